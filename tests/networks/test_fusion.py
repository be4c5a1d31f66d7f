"""Context fusion: the numbers without building the map are those of the map."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.fusion import PAIRINGS, ContextFusion, Fusions, gather, nearest, nearest_adjoint

CHANNELS = (4, 6, 8, 10)
WIDTH = 5
SIZES = {
    "halved": [(16, 16), (8, 8), (4, 4), (2, 2)],
    "odd": [(37, 29), (18, 14), (9, 7), (4, 3)],
    "3-D": [(9, 11, 7), (5, 6, 4), (3, 3, 2), (2, 2, 1)],
}


class Case:
    """A fusion with levels, a third of the pixels as anchors, and three prototypes."""

    def __init__(self, sizes, grid=0, pairing="deepest", channels=CHANNELS):
        torch.manual_seed(0)
        self.fusion = ContextFusion(channels, WIDTH, grid, pairing).double()
        self.levels = [
            torch.randn(2, c, *size, dtype=torch.float64, requires_grad=True)
            for c, size in zip(channels, sizes, strict=True)
        ]
        self.embedding = self.fusion(self.levels)
        self.size = self.embedding.shape[2:]
        self.anchors = (torch.rand(2, *self.size) < 0.3).flatten().nonzero().squeeze(1)
        self.prototypes = torch.randn(3, self.fusion.dimensions, dtype=torch.float64)

    @property
    def anchored(self) -> Tensor:
        return self.embedding.movedim(1, -1).flatten(0, -2)[self.anchors]

    def gradients(self, dot: Tensor, square: Tensor) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        along = [torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in (dot, square)]
        scalar = (dot * along[0]).sum() + (square * along[1]).sum()
        inputs = [*self.levels, *self.fusion.parameters()]
        return list(torch.autograd.grad(scalar, inputs, allow_unused=True, materialize_grads=True))


def close(mine, theirs, within=1e-9):
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() <= within * max(1, theirs.abs().max())


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("grid", [0, 1, -2, -1])
def test_products_are_those_of_the_map_and_so_are_their_gradients(sizes, grid, pairing):
    case = Case(sizes, grid, pairing)
    dot, square = case.fusion.products(case.levels, case.anchors, case.prototypes)
    plain = case.anchored @ case.prototypes.T, case.anchored.square().sum(1)
    close(dot, plain[0])
    close(square, plain[1])
    for mine, theirs in zip(case.gradients(dot, square), case.gradients(*plain), strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("grid", [0, -2])
def test_the_prototype_of_the_map_is_the_fused_prototype(sizes, grid, pairing):
    case = Case(sizes, grid, pairing)
    classes = F.one_hot(torch.randint(0, 3, (2, *case.size)), 3).movedim(-1, 1).double()
    sums, counts = case.fusion.class_sums(case.levels, classes)
    close(sums, torch.einsum("bkn,bdn->kd", classes.flatten(2), case.embedding.flatten(2)))
    assert counts.tolist() == classes.transpose(0, 1).flatten(1).sum(1).tolist()


def test_class_sums_carry_no_gradient():
    case = Case(SIZES["halved"])
    assert not case.fusion.class_sums(case.levels, torch.ones(2, 1, *case.size)).sums.requires_grad


def test_one_level_is_used_as_it_is():
    case = Case([(3, 5)], grid=-2, channels=(7,))
    assert case.embedding is case.levels[0]
    assert case.fusion.dimensions == 7
    assert not list(case.fusion.parameters())
    dot, square = case.fusion.products(case.levels, case.anchors, case.prototypes)
    close(dot, case.anchored @ case.prototypes.T)
    close(square, case.anchored.square().sum(1))
    classes = torch.ones(2, 1, 3, 5, dtype=torch.float64)
    close(case.fusion.class_sums(case.levels, classes).sums[0], case.levels[0].sum((0, 2, 3)))


def test_a_convolution_worked_by_hand():
    fusion = ContextFusion((1, 1), width=1)
    with torch.no_grad():
        fusion.convs[0].weight.copy_(torch.tensor([[2.0, 10.0]]))
        fusion.convs[0].bias.fill_(1.0)
    levels = [torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[5.0]]]])]
    assert fusion(levels).flatten().tolist() == [53, 55, 57, 59]  # 2 f + 10 g + 1
    dot, square = fusion.products(levels, torch.tensor([1, 2]), torch.tensor([[-1.0]]))
    assert dot.flatten().tolist() == [-55, -57]
    assert square.tolist() == [55**2, 57**2]


def test_pairings_differ_in_what_a_level_is_joined_with():
    assert [conv.in_features for conv in ContextFusion(CHANNELS, WIDTH).convs] == [14, 16, 18]
    assert [conv.in_features for conv in ContextFusion(CHANNELS, WIDTH, pairing="adjacent").convs] == [10, 14, 18]


def test_no_anchor_gives_no_products():
    case = Case(SIZES["odd"], -2)
    dot, square = case.fusion.products(case.levels, torch.zeros(0, dtype=torch.long), case.prototypes)
    assert (dot.shape, square.shape) == ((0, 3), (0,))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_fused_in_single_precision(half):
    case = Case(SIZES["odd"], -2)
    fusion, levels = case.fusion.float(), [level.detach().to(half) for level in case.levels]
    full = [level.float() for level in levels]
    dot, square = fusion.products(levels, case.anchors, case.prototypes.float())
    wanted = fusion.products(full, case.anchors, case.prototypes.float())
    assert dot.dtype == square.dtype == torch.float32
    close(dot, wanted.dot, 1e-5)
    close(square, wanted.square, 1e-5)
    classes = torch.ones(2, 1, *case.size)
    close(fusion.class_sums(levels, classes).sums, fusion.class_sums(full, classes).sums, 1e-5)


def test_half_precision_features_receive_half_precision_gradients():
    levels = [torch.randn(1, c, 4, 4, dtype=torch.bfloat16, requires_grad=True) for c in (2, 3)]
    ContextFusion((2, 3), 4).products(levels, torch.tensor([0, 7]), torch.randn(1, 4)).dot.sum().backward()
    assert {level.grad.dtype for level in levels} == {torch.bfloat16}


@pytest.mark.parametrize(("small", "large"), [((4, 4), (8, 8)), ((3, 7), (8, 9)), ((2, 3, 2), (5, 3, 9))])
def test_nearest_adjoint_is_the_transpose_of_nearest(small, large):
    torch.manual_seed(0)
    x, y = (torch.randn(2, 3, *size, dtype=torch.float64) for size in (small, large))
    close((nearest(x, large) * y).sum(), (x * nearest_adjoint(y, small)).sum())
    close((nearest(y, small) * x).sum(), (y * nearest_adjoint(x, large)).sum())


def test_nearest_reads_the_pixel_to_the_left():
    line = torch.arange(16.0).reshape(1, 1, 1, 16)
    assert nearest(line, (1, 4)).flatten().tolist() == [0, 4, 8, 12]
    assert nearest(line[..., :2], (1, 4)).flatten().tolist() == [0, 0, 1, 1]


def test_gather_takes_pixels_by_their_flat_position():
    image = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert gather(image, torch.tensor([1, 4])).tolist() == [[1, 5, 9], [12, 16, 20]]


def test_the_decoder_lives_above_its_deepest_level_or_at_the_finest():
    levels = [torch.zeros(1, c, s, s) for c, s in zip(CHANNELS, (16, 8, 4, 2), strict=True)]
    authors, finest = (Fusions(CHANNELS, CHANNELS, WIDTH, align=align) for align in ("authors", "finest"))
    assert authors.encoder(levels).shape == (1, 15, 16, 16)
    assert authors.decoder(levels).shape == (1, 15, 4, 4)
    assert finest.decoder(levels).shape == (1, 15, 16, 16)


def test_chosen_levels_are_counted_from_the_finest():
    fusions = Fusions(CHANNELS, CHANNELS, WIDTH, levels=(4, 2))
    assert fusions.levels == (1, 3)
    assert fusions.encoder.channels == (6, 10)
    assert Fusions(CHANNELS, CHANNELS, levels=[4]).decoder.dimensions == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairing": "deep"}, "unknown pairing 'deep'.*adjacent, deepest"),
        ({"align": "fine"}, "unknown align 'fine'.*authors, finest"),
        ({"levels": (0, 5)}, r"levels \[0, 5\]: this network has levels 1 to 4"),
    ],
)
def test_unknown_choices_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Fusions(CHANNELS, CHANNELS, **options)

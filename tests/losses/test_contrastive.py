"""The contrast: the published code's numbers with its clamps, and the exact ones without."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbcs_monai.losses.contrastive import clamped_info_nce, cosines, info_nce

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "fedbcs_losses.npz")
TEMPERATURES = (0.005, 0.05, 0.4, 1.0)
SIGNED, POSITIVE = "", "r"
EXACT = {
    (SIGNED, 0.005): 13.9204,
    (POSITIVE, 0.005): 4.3745,
    (POSITIVE, 0.05): 0.7511,
}
"""Where the clamps of the published code change the value, the value without them."""


def vector(name: str) -> Tensor:
    return torch.from_numpy(VECTORS[name])


def close(mine: Tensor, theirs: Tensor) -> None:
    """The tolerance of the reference numbers: 1e-4 of the largest."""
    assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-9


def similarities(anchors: Tensor, prototypes: Tensor) -> Tensor:
    return cosines(anchors @ prototypes.T, anchors.square().sum(1), prototypes)


def published(contrast, kind, tau):
    """Mean loss of the published example, and its gradient to the anchors."""
    anchors = vector(f"in_f{kind}").requires_grad_()
    prototypes = torch.cat([vector(f"in_pos{kind}"), vector(f"in_neg{kind}")])
    positive = torch.tensor([True] * 3 + [False] * 2)
    loss = contrast(similarities(anchors, prototypes), positive, tau).mean()
    return loss.detach(), torch.autograd.grad(loss, anchors)[0]


def multi_prototype(contrast, tau):
    """Contrast plus consistency, mean over classes 1 and 2, and its gradient to the features."""
    features, labels = vector("in_fr").requires_grad_(), vector("in_y")
    clusters = [vector(f"in_P{c}") for c in range(3)]
    owners = torch.tensor([c for c in range(3) for _ in clusters[c]])
    parts = []
    for c in (1, 2):
        mine = features[labels == c]
        contrasts = contrast(similarities(mine, torch.cat(clusters)), owners == c, tau)
        parts.append(contrasts.mean() + (mine - clusters[c].mean(0)).square().mean())
    loss = torch.stack(parts).mean()
    return loss.detach(), torch.autograd.grad(loss, features)[0]


@pytest.mark.parametrize("kind", [SIGNED, POSITIVE], ids=["signed", "positive"])
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_the_clamped_contrast_is_that_of_the_published_code(kind, tau):
    loss, gradient = published(clamped_info_nce, kind, tau)
    close(loss.double(), vector(f"out_contra{kind}_t{tau}"))
    close(gradient, vector(f"out_gcontra{kind}_t{tau}"))


@pytest.mark.parametrize("kind", [SIGNED, POSITIVE], ids=["signed", "positive"])
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_the_exact_contrast_differs_only_where_the_clamps_bite(kind, tau):
    loss, gradient = published(info_nce, kind, tau)
    if (kind, tau) in EXACT:
        assert float(loss) == pytest.approx(EXACT[kind, tau], abs=1e-4)
    else:
        close(loss.double(), vector(f"out_contra{kind}_t{tau}"))
        close(gradient, vector(f"out_gcontra{kind}_t{tau}"))


@pytest.mark.parametrize(
    ("tau", "exact"), [(0.005, 12.8076), (0.05, 2.3475), (0.4, None), (1.0, None)], ids=map(str, TEMPERATURES)
)
def test_contrast_and_consistency_over_classes_are_those_of_the_published_code(tau, exact):
    loss, gradient = multi_prototype(clamped_info_nce, tau)
    close(loss.double(), vector(f"out_LMP_t{tau}"))
    close(gradient, vector(f"out_gLMP_t{tau}"))
    unclamped, _ = multi_prototype(info_nce, tau)
    assert float(unclamped) == pytest.approx(exact or float(loss), abs=1e-4)


def test_the_published_clamps_kill_the_gradient_at_a_small_temperature():
    loss, gradient = published(clamped_info_nce, POSITIVE, 0.005)
    assert float(loss) == pytest.approx(math.log(5 / 3), abs=1e-6)
    assert gradient.abs().max() == 0
    assert published(info_nce, POSITIVE, 0.005)[1].abs().max() > 0


def test_without_a_negative_the_contrast_is_exactly_zero():
    similarity = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert info_nce(similarity, torch.ones(3, dtype=torch.bool), 0.07).tolist() == [0] * 7


def test_a_contrast_worked_by_hand():
    similarity, positive = torch.tensor([[1.0, 0.0]]), torch.tensor([True, False])
    assert float(info_nce(similarity, positive, 0.5)) == pytest.approx(math.log(1 + math.exp(-2)))
    assert float(clamped_info_nce(similarity, positive, 0.5)) == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize("tau", [1e-4, 1e-2, 1.0, 100.0])
def test_the_exact_contrast_is_finite_and_never_negative(tau):
    similarity = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.3, 0.3]])
    loss = info_nce(similarity, torch.tensor([True, False]), tau)
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()


def test_cosines_do_not_depend_on_length_and_zero_vectors_have_none():
    anchors, prototypes = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert similarities(anchors, prototypes).tolist() == [[pytest.approx(0.8), 0], [0, 0]]

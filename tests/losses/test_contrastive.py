"""The contrast: the published code's numbers with its clamps, and the exact ones without."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbcs_monai.losses.contrastive import (
    clamped_info_nce,
    class_info_nce,
    info_nce,
    model_contrast,
    pairwise_info_nce,
    similarities,
)

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


# Anchors of several classes.

CLASSES = torch.tensor([0, 1, 2, 0, 5])
OWNERS = torch.tensor([2, 0, 0, 1, 2])


def random_similarity(n: int = 5, p: int = 5) -> Tensor:
    return torch.rand(n, p, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_every_anchor_is_contrasted_with_its_own_class():
    similarity = random_similarity()
    losses = class_info_nce(similarity, CLASSES, OWNERS, 0.3)
    for n, c in enumerate(CLASSES[:4]):
        assert losses[n] == info_nce(similarity[n : n + 1], c == OWNERS, 0.3)
    assert losses[4] == 0  # of a class without prototypes


def test_without_negatives_every_anchor_has_a_loss_of_exactly_0():
    similarity = random_similarity().requires_grad_()
    losses = class_info_nce(similarity, CLASSES, torch.zeros(5, dtype=torch.long), 0.3)
    assert losses.tolist() == [0] * 5


def test_pairs_are_contrasted_as_defined():
    similarity, tau = random_similarity(5, 4), 0.2
    positive = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    negative = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    losses = pairwise_info_nce(similarity, positive, negative, tau)
    exponentials = (similarity / tau).exp()
    for n in (0, 1, 3):
        against = exponentials[n][negative[n]].sum()
        pairs = [-torch.log(e / (e + against)) for e in exponentials[n][positive[n]]]
        torch.testing.assert_close(losses[n], torch.stack(pairs).mean())
    assert losses[2] == losses[4] == 0  # no partner, no negative


def test_pairs_without_any_negative_have_no_loss_and_no_nan():
    similarity = random_similarity().requires_grad_()
    losses = pairwise_info_nce(similarity, torch.ones(5, 5).bool(), torch.zeros(5, 5).bool(), 0.1)
    assert losses.tolist() == [0] * 5


def test_gradients_of_pairs_are_finite_at_any_temperature():
    similarity = random_similarity().requires_grad_()
    same = CLASSES[:, None] == OWNERS
    pairwise_info_nce(similarity, same, ~same, 1e-4).sum().backward()
    assert torch.isfinite(similarity.grad).all()
    assert similarity.grad.abs().max() > 0


# Between networks.

MOON = np.load(Path(__file__).parents[1] / "vectors" / "moon.npz")


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize(("mu", "tau"), [(1.0, 0.5), (5.0, 0.5), (1.0, 0.1)])
def test_the_contrast_of_networks_is_that_of_the_published_code(before, mu, tau):
    features = torch.from_numpy(MOON["in_z"]).requires_grad_()
    others = [torch.from_numpy(MOON[f"in_{name}"]) for name in ("zglob", "zprev1", "zprev2")[: before + 1]]
    loss = model_contrast(features, others, tau).mean()
    loss.backward()
    theirs = torch.from_numpy(MOON[f"out_prev{before}_mu{mu}_T{tau}_gz"])
    assert float(MOON["out_ce_only"]) + mu * float(loss.detach()) == pytest.approx(
        float(MOON[f"out_prev{before}_mu{mu}_T{tau}_total"]), rel=1e-4
    )
    close(mu * features.grad, theirs)
    assert before or bool((features.grad == 0).all())


def test_the_contrast_of_networks_worked_by_hand():
    features, like, unlike = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    expected = math.log(1 + math.exp((0.6 - 1) / 0.5))
    assert model_contrast(features, [like, unlike], 0.5).item() == pytest.approx(expected)

"""Contrastive losses: features against prototypes, and against features of other networks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LENGTH_FLOOR = 1e-8
"""The least length a vector is divided by in a cosine."""


def cosines(dot: Tensor, square: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of N embeddings and P prototypes from their products.

    Args:
        dot: ``e . q``, (N, P).
        square: ``|e|^2``, (N,).
        prototypes: (P, D).

    Returns:
        (N, P), in [-1, 1]. A vector shorter than 1e-8 has cosines near 0.
    """
    lengths = square.clamp_min(LENGTH_FLOOR**2).sqrt()[:, None] * prototypes.norm(dim=1).clamp_min(LENGTH_FLOOR)
    similarity: Tensor = dot / lengths
    return similarity


def similarities(vectors: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of every vector (N, D) with every prototype (P, D), (N, P)."""
    return cosines(vectors @ prototypes.T, vectors.square().sum(1), prototypes)


def info_nce(similarity: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """InfoNCE with several positives (Zhao et al., AAAI 2026, eq. 15), as a difference of two log-sum-exps.

    Exact for any temperature. The authors' code clamps instead: see `clamped_info_nce`.

    Args:
        similarity: (N, P).
        positive: which of the P prototypes are of the anchors' class, boolean (P,); at least one.
        temperature: > 0; the gradient grows like its inverse.

    Returns:
        One loss an anchor, (N,), >= 0; exactly 0 when every prototype is positive.
    """
    logits = similarity / temperature
    return logits.logsumexp(1) - logits[:, positive].logsumexp(1)


def class_info_nce(similarity: Tensor, classes: Tensor, owners: Tensor, temperature: float) -> Tensor:
    """`info_nce` of anchors of several classes against the prototypes of all.

    Args:
        similarity: (N, P).
        classes: of the anchors, (N,).
        owners: class of each prototype, (P,).
        temperature: > 0.

    Returns:
        One loss an anchor, (N,); exactly 0 for an anchor whose class has no prototype, or that has no negative.
    """
    losses = similarity.new_zeros(len(similarity))
    for c in set(classes.tolist()):
        rows, positive = classes == c, owners == c
        if positive.any() and not positive.all():
            losses[rows] = info_nce(similarity[rows], positive, temperature)
    return losses


def pairwise_info_nce(similarity: Tensor, positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Supervised contrast (Khosla et al., NeurIPS 2020), each pair against the negatives alone.

    For an anchor i it is the mean over its positives p of ``-log(exp s_ip / (exp s_ip + sum_n exp s_in))``.

    Args:
        similarity: (N, P).
        positive: which pairs are of one class, boolean (N, P); an anchor is not a positive of itself.
        negative: which pairs are of two classes, boolean (N, P).
        temperature: > 0.

    Returns:
        One loss an anchor, (N,), >= 0; exactly 0 for an anchor without positives or without negatives.
    """
    logits = similarity / temperature
    losses = logits.new_zeros(len(logits))
    rows = positive.any(1) & negative.any(1)
    if not rows.any():
        return losses
    logits, positive, negative = logits[rows], positive[rows], negative[rows]
    against = logits.masked_fill(~negative, -torch.inf).logsumexp(1, keepdim=True)
    pairs = F.softplus(against - logits).masked_fill(~positive, 0)
    losses[rows] = pairs.sum(1) / positive.sum(1)
    return losses


def model_contrast(features: Tensor, others: Sequence[Tensor], temperature: float) -> Tensor:
    """Draw features to those of one network and away from those of others (Li et al., CVPR 2021, eq. 3).

    Args:
        features: (B, D).
        others: of the same images under other weights, each (B, D): first those to be like, then those not to be.
        temperature: > 0.

    Returns:
        One loss per image, (B,), >= 0; exactly 0, with gradient 0, if there are none not to be like.
    """
    similarity = torch.stack([F.cosine_similarity(features, other, dim=1, eps=LENGTH_FLOOR) for other in others], 1)
    return info_nce(similarity, torch.arange(len(others), device=features.device) == 0, temperature)


def clamped_info_nce(similarity: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """InfoNCE as the authors of FedBCS published it: logits cut at 20, exponentials at 1e6.

    It saturates: an anchor whose cosines all lie above 13.8 times the temperature has no gradient at all.
    """
    weights = (similarity / temperature).clamp_max(20).exp().clamp_max(1e6)
    return -torch.log((weights[:, positive].sum(1) + 1e-9) / (weights.sum(1) + 1e-9))

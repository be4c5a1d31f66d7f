"""Contrast: features against prototypes."""

import torch
from torch import Tensor

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


def clamped_info_nce(similarity: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """InfoNCE as the authors of FedBCS published it: logits cut at 20, exponentials at 1e6.

    It saturates: an anchor whose cosines all lie above 13.8 times the temperature has no gradient at all.
    """
    weights = (similarity / temperature).clamp_max(20).exp().clamp_max(1e6)
    return -torch.log((weights[:, positive].sum(1) + 1e-9) / (weights.sum(1) + 1e-9))

"""Clustering of prototypes: FINCH, which needs no parameter (Sarfraz et al., CVPR 2019), and k-means."""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans
from torch import Tensor
from torch.nn import functional

from fedbcs_monai.tensors import Tensors, joined

BLOCK = 1024
"""FINCH compares all pairs of up to this many vectors at once; of more, blocks of this many with all others."""


def finch_labels(vectors: Tensor) -> Tensor:
    """Cluster labels of the coarsest FINCH partition that has more than one cluster, else of the first.

    Args:
        vectors: (n, D), n >= 1; compared by cosine distance in float32.

    Returns:
        Integer labels (n,); their numbering means nothing. Up to three vectors always form one cluster, and so do any
        of which one is not finite: then neither is their mean, and the server refuses it.
    """
    if len(vectors) <= 3 or not torch.isfinite(vectors).all():
        return torch.zeros(len(vectors), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import, about an optional package for more points than sites ever send
        from finch import FINCH  # here, because it loads scikit-learn, which only a server of prototypes needs

    points = vectors.detach().cpu().float()
    partitions, _, _ = FINCH(
        points.numpy(),
        initial_rank=first_neighbours(points) if len(points) > BLOCK else None,
        distance="cosine",
        ensure_early_exit=False,
        ann_threshold=len(points),  # exact neighbours on every level
        verbose=False,
    )
    return torch.from_numpy(partitions[:, -1].astype(np.int64))


def first_neighbours(points: Tensor) -> NDArray[np.int32]:
    """The nearest other point of each by cosine distance, exact; memory grows with n and not with its square.

    Args:
        points: (n, D), n >= 2, float32. A zero vector is at distance 1 from all others.

    Returns:
        Indices (n,); of equally near points the first.
    """
    unit = functional.normalize(points)
    nearest = []
    for start in range(0, len(unit), BLOCK):
        similar = unit[start : start + BLOCK] @ unit.T
        rows = torch.arange(len(similar))
        similar[rows, start + rows] = -torch.inf
        nearest.append(similar.argmax(1))
    return torch.cat(nearest).numpy().astype(np.int32)


def cluster_means(vectors: Tensor) -> Tensor:
    """Plain mean of every FINCH cluster (Zhao et al., AAAI 2026, eq. 13).

    Clusters are ordered by their first member, so the result does not depend on how FINCH numbers them.

    Args:
        vectors: (n, D), n >= 1.

    Returns:
        (S, D), 1 <= S <= n.
    """
    labels = finch_labels(vectors)
    by_first_member = dict.fromkeys(labels.tolist())
    return torch.stack([vectors[labels == label].mean(0) for label in by_first_member])


def clustered(sent: Iterable[Tensors]) -> Tensors:
    """Cluster means of what all sites sent under each name: {name: (D,) or (n, D)} of every site to {name: (S, D)}."""
    return {name: cluster_means(vectors) for name, vectors in joined(sent).items()}


def k_means(vectors: Tensor, k: int) -> Tensor:
    """Centroids of k-means in Euclidean distance, started at random vectors that torch's own generator draws.

    Args:
        vectors: (n, D), n >= 1.
        k: clusters, >= 1.

    Returns:
        (S, D), S <= k: a cluster that runs empty is left out, and up to k distinct vectors are their own centroids. If
        one is not finite, the mean of all, which is not finite either, and which the server refuses.
    """
    if not torch.isfinite(vectors).all():
        return vectors.mean(0, keepdim=True)
    points = vectors.detach().cpu().double().numpy()
    distinct = np.unique(points, axis=0)
    if len(distinct) > k:
        distinct, _ = kmeans(points, distinct[torch.randperm(len(distinct))[:k].numpy()])
    return torch.from_numpy(distinct).to(vectors.dtype)

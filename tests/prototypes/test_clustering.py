"""FINCH: the published partitions, and what must not change them. K-means: what it must find."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbcs_monai.prototypes import clustering
from fedbcs_monai.prototypes.clustering import cluster_means, finch_labels, first_neighbours, k_means

VECTORS = Path(__file__).parents[1] / "vectors"
FINCH = np.load(VECTORS / "finch.npz")
SERVER = np.load(VECTORS / "fedbcs_losses.npz")


def together(labels) -> Tensor:
    """Which pairs are in one cluster, (n, n)."""
    labels = torch.as_tensor(labels)
    return labels[:, None] == labels


def random(n: int, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(n))


def test_small_partitions_are_the_published_ones():
    shapes = FINCH["in_shapes"].tolist()
    sets = np.split(FINCH["in_X"], np.cumsum([n * d for n, d in shapes])[:-1])
    last = np.split(FINCH["out_last"], np.cumsum([n for n, _ in shapes])[:-1])
    for (n, d), points, wanted in zip(shapes, sets, last, strict=True):
        labels = finch_labels(torch.from_numpy(points).reshape(n, d))
        assert torch.equal(together(labels), together(wanted)), (n, d)


@pytest.mark.parametrize("which", range(3))
def test_large_partitions_are_the_published_ones(which):
    labels = finch_labels(torch.from_numpy(FINCH[f"in_big{which}"]))
    assert torch.equal(together(labels), together(FINCH[f"out_big{which}"][:, -1]))
    assert len(labels.unique()) == FINCH[f"out_bign{which}"][-1]


@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("c", [0, 1])
def test_cluster_means_of_six_sites_are_the_published_ones(stream, c):
    sites = torch.stack([torch.from_numpy(SERVER[f"in_srv_{site}_{stream}_{c}"]) for site in range(6)])
    mine, theirs = cluster_means(sites), torch.from_numpy(SERVER[f"out_srv_{stream}_{c}"])
    nearest = torch.cdist(theirs, mine).argmin(1)
    assert sorted(nearest.tolist()) == list(range(len(theirs))) == list(range(len(mine)))
    assert (mine[nearest] - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_up_to_three_vectors_are_one_cluster(n):
    vectors = random(n)
    assert finch_labels(vectors).tolist() == [0] * n
    assert torch.equal(cluster_means(vectors), vectors.mean(0, keepdim=True))


def test_two_directions_are_two_clusters_whatever_their_lengths():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.2, 4.0]])
    torch.testing.assert_close(cluster_means(vectors), torch.tensor([[1.5, 0.05], [0.1, 2.5]]))


def test_the_order_of_the_vectors_only_permutes():
    vectors, order = random(12), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    labels, permuted = finch_labels(vectors), finch_labels(vectors[order])
    assert torch.equal(together(labels[order]), together(permuted))
    rows = [
        sorted(means.double().round(decimals=5).tolist())
        for means in (cluster_means(vectors), cluster_means(vectors[order]))
    ]
    np.testing.assert_allclose(*rows, atol=2e-5)


def test_clusters_are_ordered_by_their_first_member():
    vectors = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    assert cluster_means(vectors).tolist() == [[0, 1.5], [1.5, 0]]
    assert cluster_means(vectors.flip(0)).tolist() == [[1.5, 0], [0, 1.5]]


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
def test_first_neighbours_in_blocks_are_those_of_every_pair(monkeypatch, block):
    monkeypatch.setattr(clustering, "BLOCK", block)
    vectors = random(100)
    distances = 1 - torch.cosine_similarity(vectors[:, None], vectors[None], dim=2) + 9 * torch.eye(100)
    assert first_neighbours(vectors).tolist() == distances.argmin(1).tolist()


@pytest.mark.parametrize("which", range(3))
def test_partitions_by_blocks_are_the_published_ones(monkeypatch, which):
    monkeypatch.setattr(clustering, "BLOCK", 16)
    labels = finch_labels(torch.from_numpy(FINCH[f"in_big{which}"]))
    assert torch.equal(together(labels), together(FINCH[f"out_big{which}"][:, -1]))


def test_identical_vectors_are_one_cluster():
    vectors = torch.ones(6, 4)
    assert together(finch_labels(vectors)).all()
    assert cluster_means(vectors).tolist() == [[1, 1, 1, 1]]


def test_a_zero_vector_does_not_spoil_the_rest():
    means = cluster_means(torch.cat([torch.zeros(1, 5), random(6)]))
    assert torch.isfinite(means).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    """The server refuses it; a clustering that fails would end the whole run."""
    vectors = torch.cat([random(6), torch.full((1, 5), bad)])
    for means in (cluster_means(vectors), k_means(vectors, 2)):
        assert means.shape == (1, 5) and not torch.isfinite(means).any()


# K-means.


def test_k_means_finds_groups_that_lie_apart():
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    torch.manual_seed(0)
    found = k_means(corners.repeat(20, 1) + 0.01 * random(60, 2), 3)
    assert sorted(found.round().tolist()) == sorted(corners.tolist())


def test_every_centroid_is_the_mean_of_what_is_nearest_to_it():
    vectors = random(50)
    torch.manual_seed(0)
    centroids = k_means(vectors, 4)
    nearest = torch.cdist(vectors, centroids).argmin(1)
    means = torch.stack([vectors[nearest == n].mean(0) for n in range(len(centroids))])
    torch.testing.assert_close(centroids, means, rtol=0, atol=1e-4)


def test_up_to_k_distinct_vectors_are_their_own_centroids():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert k_means(vectors, 2).tolist() == [[0, 1], [1, 0]]
    assert k_means(vectors, 5).tolist() == [[0, 1], [1, 0]]
    assert k_means(vectors, 1).tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)]]


def test_the_generator_decides_where_k_means_starts():
    vectors = random(200)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(k_means(vectors, 8))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])

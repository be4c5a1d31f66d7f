"""FedContrast: local prototypes contrasted within and between sites; a reconstruction from the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.method import (
    Batch,
    ClientContext,
    Method,
    TensorSpec,
    choose,
    class_vectors,
    labelled,
    not_negative,
    positive,
)
from fedbcs_monai.losses.contrastive import pairwise_info_nce, similarities
from fedbcs_monai.networks import FEATURE_LAYERS, Segmenter
from fedbcs_monai.prototypes.anchors import AVERAGES, Anchors, image_anchors, window_anchors
from fedbcs_monai.prototypes.bank import Prototypes, read_prototypes
from fedbcs_monai.prototypes.clustering import k_means
from fedbcs_monai.prototypes.pooling import ClassMeans, LabelledMap, classes_in
from fedbcs_monai.tensors import Tensors, joined, prefixed

BACKGROUND = "0"


@dataclass(frozen=True)
class FedContrast(Method):
    """Contrast local prototypes within a site and between sites, after FedContrast-GPA (Zhou & Zheng, MICCAI 2023).

    This is a reconstruction, not a reimplementation. There is no public code and we had the abstract only: local
    prototypes, contrasted within a client and between clients, and an aggregation that looks at a client's progress.
    Zhao et al. (AAAI 2026, Table 3) add that features are clustered at the client and nine prototypes are sent. All
    else is ours: do not read the original's merits from its results.

    A local prototype is the mean over a window of the map that belongs to one class, or over a class in an image. The
    loss is, of the local prototypes of a batch,

        segmentation + intra * contrast with each other + inter * contrast with the other sites' prototypes

    where every pair of one class stands against all of another class (`pairwise_info_nce`). A site sends k-means
    centroids of the last epoch's local prototypes: four of the background, and for the foreground four and the mean of
    its pixels. The server relays them, named by site, so that a site can leave out its own; every site learns which
    others there are. With as many epochs at every site, progress is alike and the aggregation is that of FedAvg.

    Args:
        intra: weight of the contrast within the site, >= 0.
        inter: weight of the contrast with other sites, >= 0, none in the first round. Both 0 is FedAvg, and nothing but
            networks is sent.
        tau: temperature, > 0.
        feature_layer: features that are compared: the ``penultimate`` map before the last layer, or the ``bottleneck``.
        window: side of a window in pixels of the map.
        fraction: share of a window that must be of one class, in (0.5, 1]. Objects smaller than a window have only
            the mean.
        windows_per_class: maximum number of random windows per class and batch; 0: all of them.
        average: of the local prototypes: within each class and then over ``classes``, or over all ``anchors``.
        background: vectors of the background that a site sends at most, >= 1.
        foreground: vectors of each other class that a site sends at most, >= 1, one of them the mean.
    """

    intra: float = 1.0
    inter: float = 1.0
    tau: float = 0.07
    feature_layer: str = "penultimate"
    window: int = 8
    fraction: float = 0.95
    windows_per_class: int = 512
    average: str = "classes"
    background: int = 4
    foreground: int = 5

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("intra", self.intra)
        not_negative("inter", self.inter)
        choose("feature_layer", self.feature_layer, FEATURE_LAYERS)
        choose("average", self.average, AVERAGES)
        not_negative("windows_per_class", self.windows_per_class)
        for name in ("tau", "window", "background", "foreground"):
            positive(name, getattr(self, name))
        if not 0.5 < self.fraction <= 1:
            raise UserError(f"fraction is {self.fraction}: it must be more than 0.5 and at most 1")

    # At a site.

    def on_round_start(self, client: ClientContext) -> None:
        """Read the other sites' prototypes."""
        others = []
        for name, sent in sorted(client.here(client.received.shared).items()):  # whatever carried them
            site, _, c = name.rpartition("/")
            others += [{c: sent}] if site != client.site else []
        client.scratch["others"] = read_prototypes(joined(others))
        client.scratch["own"], client.scratch["means"] = [], ClassMeans()

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss and the contrasts within the site and with the others."""
        if not self.intra and not self.inter:
            return super().loss(client, batch)
        features = client.features(batch)
        loss = client.segmentation(features.logits, batch)
        feature = labelled(features, batch, self.feature_layer)
        anchors = self.local_prototypes(feature)
        if client.last_epoch:
            self.pool(client, feature, anchors)
        if self.intra:
            loss = loss + self.intra * client.record("intra", anchors.mean(self.within(anchors), self.average))
        others: Prototypes | None = client.scratch["others"]
        if self.inter and others is not None:
            between = anchors.mean(self.between(anchors, others), self.average)
            loss = loss + self.inter * client.record("inter", between)
        return loss

    def local_prototypes(self, feature: LabelledMap) -> Anchors:
        """Windows of one class, and the mean of each class in each image."""
        windows = window_anchors(feature, self.window, self.fraction, self.windows_per_class)
        means = image_anchors(feature)
        return Anchors(torch.cat([windows.vectors, means.vectors]), torch.cat([windows.classes, means.classes]))

    def within(self, anchors: Anchors) -> Tensor:
        """Contrast of the local prototypes with each other, (N,)."""
        same = anchors.classes[:, None] == anchors.classes
        others = same.clone().fill_diagonal_(False)
        return pairwise_info_nce(similarities(anchors.vectors, anchors.vectors), others, ~same, self.tau)

    def between(self, anchors: Anchors, others: Prototypes) -> Tensor:
        """Contrast of the local prototypes with those of the other sites, (N,)."""
        same = anchors.classes[:, None] == others.owners
        return pairwise_info_nce(similarities(anchors.vectors, others.clusters), same, ~same, self.tau)

    def pool(self, client: ClientContext, feature: LabelledMap, anchors: Anchors) -> None:
        """Keep the local prototypes of one batch for `client_payload`."""
        classes, vectors = anchors.classes.cpu(), anchors.vectors.detach().cpu()
        client.scratch["own"].append({str(c): vectors[classes == c] for c in classes_in(classes)})
        client.scratch["means"].pool(feature)

    def client_payload(self, client: ClientContext) -> Tensors:
        """Send centroids of the local prototypes, and the mean of each foreground class, {class: (n, D)}."""
        own, means = joined(client.scratch["own"]), client.scratch["means"].means()
        return {c: self.clusters(c, vectors, means[c]) for c, vectors in own.items()}

    def clusters(self, c: str, vectors: Tensor, mean: Tensor) -> Tensor:
        """What is sent of one class."""
        if c == BACKGROUND:
            return k_means(vectors, self.background)
        if self.foreground == 1:
            return mean[None]
        return torch.cat([k_means(vectors, self.foreground - 1), mean[None]])

    def payload(self, network: Segmenter) -> dict[str, TensorSpec]:
        """Any number of vectors per class."""
        return class_vectors(network, self.feature_layer, -1)

    # At the server.

    def aggregate_payload(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Relay every site's prototypes under its name, {site/class: (n, D)}."""
        return {name: sent for update in updates for name, sent in prefixed(update.site, update.shared).items()}

"""FedBCS: context-aware dual-level prototype alignment (CDPA). Style recalibration (FSR) is part of the network."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.method import Batch, ClientContext, Method, TensorSpec, choose, not_negative, positive
from fedbcs_monai.losses.contrastive import clamped_info_nce, cosines, info_nce
from fedbcs_monai.networks import Features, Segmenter
from fedbcs_monai.networks.fusion import ClassSums, ContextFusion, Fusions
from fedbcs_monai.prototypes.anchors import draw
from fedbcs_monai.prototypes.bank import Prototypes, read_prototypes
from fedbcs_monai.prototypes.clustering import clustered
from fedbcs_monai.prototypes.pooling import ClassMeans, one_hot
from fedbcs_monai.tensors import Tensors, prefixed, under

STREAMS = ("encoder", "decoder")
BACKGROUND = 0

LEVELS = [1, 2, 3, 4]
"""Every level of a network of five widths: style is recalibrated behind each, in both halves (eq. 8, 9)."""


@dataclass(frozen=True)
class FedBCS(Method):
    """Align encoder and decoder features with prototypes of all sites (Zhao et al., AAAI 2026, eq. 9-17).

    The network must carry a context fusion (``context``); FSR, if wanted, is set on the network too (``recalibrate``,
    ``recalibrate_decoder`` and ``style``). Named in a configuration, the method brings both (`network_layers`). The
    loss is

        segmentation + weight * streams_mean( classes_mean( InfoNCE + consistency ) )

    Background is a class of its own among the prototypes. A class that a site has no pixel of is absent from its
    message; a class without global prototypes, as all are in the first round, is not aligned.

    Args:
        tau: temperature of the contrast (authors: 0.005 histology, 0.4 prostate). Below 0.05 the gradient is some
            1/tau times that of the segmentation loss, and a warning is given.
        weight: weight of the prototype loss; 0 is FedAvg, and nothing but networks is sent. Paper and authors have 1,
            where it can be twice the segmentation loss and costs validation Dice (docs/study.md).
        warmup: rounds before the prototype loss begins.
        anchors: pixels that are aligned: of ``all`` classes (eq. 15), or of the ``foreground`` (authors' code), which
            draws doubtful pixels to the foreground and costs validation Dice where that is sparse (docs/study.md).
        anchors_per_class: maximum number of random pixels per class and batch; 0: all of them (paper and authors).
        clamp: cut the contrast as the authors' code does, which kills its gradient at small tau.
        consistency: ``mean`` over the D dimensions (authors' code) or ``sum`` (eq. 16).
        streams: ``mean`` of encoder and decoder (authors' code) or ``sum`` (eq. 16).
        prototype_mean: over all ``pixels`` of the last local epoch (eq. 9), or mean of ``batches`` (authors' code).
        prototype_pass: from the training passes of the last epoch, ``running`` (authors' code), or from a ``fresh``
            pass with the trained network.
    """

    tau: float = 0.4
    weight: float = 0.1
    warmup: int = 0
    anchors: str = "all"
    anchors_per_class: int = 512
    clamp: bool = False
    consistency: str = "mean"
    streams: str = "mean"
    prototype_mean: str = "pixels"
    prototype_pass: str = "running"

    network_layers: ClassVar[Mapping[str, Any]] = {
        "recalibrate": LEVELS,
        "recalibrate_decoder": LEVELS,
        "style": {"gate": "scalar"},
        "context": {"width": 256},
    }

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        choose("anchors", self.anchors, ("foreground", "all"))
        choose("consistency", self.consistency, ("mean", "sum"))
        choose("streams", self.streams, ("mean", "sum"))
        choose("prototype_mean", self.prototype_mean, ("pixels", "batches"))
        choose("prototype_pass", self.prototype_pass, ("running", "fresh"))
        positive("tau", self.tau)
        not_negative("weight", self.weight)
        not_negative("warmup", self.warmup)
        not_negative("anchors_per_class", self.anchors_per_class)
        if self.tau < 0.05 and self.weight and not self.clamp:
            warnings.warn(f"tau {self.tau} makes the contrast's gradient about {1 / self.tau:.0f} times the cosine's; "
                          "0.05 or more trains more steadily", stacklevel=2)  # fmt: skip

    @property
    def divisor(self) -> int:
        """By what the sum over streams is divided."""
        return len(STREAMS) if self.streams == "mean" else 1

    # At a site.

    def on_round_start(self, client: ClientContext) -> None:
        """Read the global prototypes."""
        for stream in STREAMS:
            client.scratch[stream] = read_prototypes(client.here(under(stream, client.received.shared)))
            client.scratch[f"own/{stream}"] = ClassMeans()

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss plus the multi-level prototype loss (eq. 17)."""
        if not self.weight:
            return super().loss(client, batch)
        features = client.features(batch)
        loss = client.segmentation(features.logits, batch)
        parts = [
            self.stream_loss(client, stream, fusion, levels, one_hot(batch["label"], grid, features.logits.shape[1]))
            for stream, fusion, levels, grid in streams_of(client.network, features)
        ]
        pulls = [part for part in parts if part is not None]
        if not pulls:
            return loss
        return loss + self.weight * sum(pulls) / self.divisor

    def stream_loss(
        self, client: ClientContext, stream: str, fusion: ContextFusion, levels: Sequence[Tensor], classes: Tensor
    ) -> Tensor | None:
        """Pool this batch's prototypes, and pull its anchors to the global ones (eq. 15, 16)."""
        if self.prototype_pass == "running" and client.last_epoch:
            self.pool(client, stream, fusion.class_sums(levels, classes))
        known: Prototypes | None = client.scratch[stream]
        if known is None or client.received.round <= self.warmup:
            return None
        return self.alignment(client, fusion, levels, classes.argmax(1).flatten(), known)

    def alignment(
        self, client: ClientContext, fusion: ContextFusion, levels: Sequence[Tensor], pixels: Tensor, known: Prototypes
    ) -> Tensor | None:
        """InfoNCE plus consistency, mean over the classes that have anchors and prototypes.

        Args:
            client: the round at this site.
            fusion: of this stream.
            levels: features of this stream.
            pixels: class of every pixel of the embedding, (B * H * W[* D],).
            known: global prototypes of this stream.
        """
        classes = [c for c in known.means if c != BACKGROUND or self.anchors == "all"]
        anchors = draw(pixels, classes, self.anchors_per_class) if classes else pixels[:0]
        if not len(anchors):
            return None
        owners = pixels[anchors]
        asked = torch.cat([known.clusters, torch.stack([known.means[c] for c in classes])])
        dot, square = fusion.products(levels, anchors, asked)
        similarity = cosines(dot[:, : len(known.clusters)], square, known.clusters)
        pull = clamped_info_nce if self.clamp else info_nce
        contrasts, distances = [], []
        for n, c in enumerate(classes):
            rows, positive = owners == c, known.owners == c
            if not rows.any():
                continue
            if not positive.all():
                contrasts.append(pull(similarity[rows], positive, self.tau).mean())
            squared = square[rows] - 2 * dot[rows, len(known.clusters) + n] + known.means[c].square().sum()
            distances.append(squared.mean() / (len(known.means[c]) if self.consistency == "mean" else 1))
        terms = torch.stack(distances).mean()
        client.record("consistency", terms / self.divisor)
        if contrasts:
            contrast = torch.stack(contrasts).sum() / len(distances)
            client.record("contrast", contrast / self.divisor)
            terms = terms + contrast
        return terms

    def pool(self, client: ClientContext, stream: str, found: ClassSums) -> None:
        """Add one batch's class sums to the round's."""
        sums, counts = found
        if self.prototype_mean == "batches":
            sums, counts = sums.double() / counts.clamp_min(1)[:, None], (counts > 0).double()
        client.scratch[f"own/{stream}"].add(sums, counts)

    def client_payload(self, client: ClientContext) -> Tensors:
        """Send one prototype a stream and class (eq. 12)."""
        if self.weight and self.prototype_pass == "fresh":
            self.fresh_pass(client)
        sent: dict[str, Tensor] = {}
        for stream in STREAMS:
            sent |= prefixed(stream, client.scratch[f"own/{stream}"].means())
        return sent

    def fresh_pass(self, client: ClientContext) -> None:
        """Pool prototypes with the trained network, in evaluation mode."""
        for features, batch in client.survey(client.epochs):
            for stream, fusion, levels, grid in streams_of(client.network, features):
                classes = one_hot(batch["label"], grid, features.logits.shape[1])
                self.pool(client, stream, fusion.class_sums(levels, classes))

    def payload(self, network: Segmenter) -> dict[str, TensorSpec]:
        """One prototype a stream and class."""
        fusions = fusions_of(network)
        widths = {stream: getattr(fusions, stream).dimensions for stream in STREAMS}
        return {f"{s}/{c}": TensorSpec((width,)) for s, width in widths.items() for c in range(network.classes)}

    # At the server.

    def aggregate_payload(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Cluster each class's prototypes per stream (eq. 13)."""
        return clustered(update.shared for update in updates)


def fusions_of(network: Segmenter) -> Fusions:
    """The context fusion of both streams.

    Raises:
        UserError: the network has none.
    """
    if not isinstance(network.fusion, Fusions):
        raise UserError("FedBCS needs a network with context fusion: set network_def::context to {width: 256}")
    return network.fusion


def streams_of(network: Segmenter, features: Features) -> Iterator[tuple[str, ContextFusion, list[Tensor], torch.Size]]:
    """Each stream's name, fusion, chosen levels, and the size of its embedding."""
    fusions = fusions_of(network)
    for stream, fusion in (("encoder", fusions.encoder), ("decoder", fusions.decoder)):
        levels = [getattr(features, stream)[k] for k in fusions.levels]
        yield stream, fusion, levels, levels[fusion.grid].shape[2:]

"""FPL: features are contrasted with clusters of all sites' prototypes, and pulled to the clusters' mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.method import ClientContext, positive
from fedbcs_monai.losses.contrastive import class_info_nce, similarities
from fedbcs_monai.methods.fedproto import FedProto
from fedbcs_monai.prototypes.anchors import Anchors
from fedbcs_monai.prototypes.bank import Prototypes
from fedbcs_monai.prototypes.clustering import clustered
from fedbcs_monai.tensors import Tensors


@dataclass(frozen=True)
class FPL(FedProto):
    """Cluster and unbiased prototypes against domain shift (Huang et al., CVPR 2023, CPCL and UPCR).

    A site sends the mean feature of each class, as with `FedProto`. The server clusters the means of a class with
    FINCH: P_c are the plain means of its clusters, and the mean of these counts every domain the same, however many
    sites it has. The loss is

        segmentation + weight * mean over anchors z of class c of
            [ InfoNCE(z; P_c, P_rest, tau) + mean over dimensions of (z - mean P_c)^2 ]

    With prototypes of one class alone there is no contrast. The contrast is a difference of two log-sum-exps, where the
    authors' code exponentiates, which overflows in half precision. The authors' weight is 1, their prototypes are
    ``fresh``.

    Args:
        tau: temperature of the contrast, > 0 (the benchmark MarsFL: 0.2; authors: 0.02, for classification). Its
            gradient grows like 1/tau: at 0.02 it is some fifty times the cosine's.

    The other arguments are those of `FedProto`.
    """

    tau: float = 0.2

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        positive("tau", self.tau)

    # At a site.

    def alignment(self, client: ClientContext, anchors: Anchors, known: Prototypes) -> Tensor:
        """Contrast with the clusters (CPCL) and distance to their mean (UPCR)."""
        cosine = similarities(anchors.vectors, known.clusters)
        contrast = class_info_nce(cosine, anchors.classes, known.owners, self.tau)
        consistency = super().alignment(client, anchors, known)
        return client.record("contrast", anchors.mean(contrast, self.average)) + consistency

    # At the server.

    def aggregate_payload(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Cluster each class's prototypes, {class: (S, D)}."""
        return clustered(update.shared for update in updates)

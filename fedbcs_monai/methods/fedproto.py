"""FedProto: features are pulled to the mean of all sites' prototypes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.method import ClientContext, choose
from fedbcs_monai.methods.prototypical import Prototypical
from fedbcs_monai.prototypes.anchors import Anchors
from fedbcs_monai.prototypes.bank import Prototypes
from fedbcs_monai.prototypes.pooling import MASKS, ClassMeans, LabelledMap
from fedbcs_monai.tensors import Tensors, joined


@dataclass(frozen=True)
class FedProto(Prototypical):
    """Pull the features of each class to its global prototype (Tan et al., AAAI 2022, Algorithm 1).

    A site sends the mean feature of each class, the server returns their plain mean T over the sites that have the
    class. The loss is

        segmentation + weight * mean over anchors z and dimensions of (T - z)^2

    The original keeps a personal network at every site and shares prototypes alone; here, as in the comparison of Zhao
    et al. (AAAI 2026), the networks are averaged too. The squared distance has no scale of its own: how strong a weight
    is depends on the size of the features. The authors' weight is 1, their prototypes are ``running``.

    Args:
        masks: whose features a class's mean is: every pixel of the map by its share of the class (``area``), or the
            pixels whose ``nearest`` label it is. By nearest, small objects vanish from a bottleneck.

    The other arguments are those of `Prototypical`.
    """

    masks: str = "area"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        choose("masks", self.masks, MASKS)

    # At a site.

    def alignment(self, client: ClientContext, anchors: Anchors, known: Prototypes) -> Tensor:
        """Squared distance to the global prototype of the anchor's class."""
        return client.record("consistency", anchors.mean(known.distances(anchors), self.average))

    def pool(self, client: ClientContext, feature: LabelledMap) -> None:
        """Add a batch to the mean of each class."""
        client.scratch.setdefault("own", ClassMeans()).pool(feature, self.masks)

    def pooled(self, client: ClientContext) -> Tensors:
        """One prototype per class, {class: (D,)}."""
        own: ClassMeans = client.scratch.get("own", ClassMeans())
        return own.means()

    # At the server.

    def aggregate_payload(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Plain mean of each class's prototypes, {class: (1, D)}."""
        sent = joined(update.shared for update in updates)
        return {c: prototypes.mean(0, keepdim=True) for c, prototypes in sent.items()}

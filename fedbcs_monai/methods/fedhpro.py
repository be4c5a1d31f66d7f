"""FedHPro: the server learns prototypes whose gradients match those of the sites' own features."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.networks.utils import eval_mode
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.method import Batch, ClientContext, Method, TensorSpec, choose, not_negative, positive
from fedbcs_monai.losses.contrastive import class_info_nce, similarities
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.networks.head import HeadPass, heads, through_head
from fedbcs_monai.prototypes.anchors import ANCHORS, AVERAGES, Anchors, draw_anchors
from fedbcs_monai.prototypes.bank import Prototypes, read_prototypes
from fedbcs_monai.prototypes.matching import (
    METRICS,
    Layer,
    descend,
    distance,
    first_points,
    layer_gradients,
    layer_of,
    point_gradient,
)
from fedbcs_monai.prototypes.pooling import ClassMeans, LabelledMap
from fedbcs_monai.tensors import Tensors, mean, under


@dataclass(frozen=True)
class FedHPro(Method):
    """Hyper-prototypes, learnt at the server by gradient matching (Wang et al., ICML 2026).

    The features z are what the last layer reads, a 1x1 convolution (W, b), and p = softmax(W z + b). Before it trains,
    a site computes at the received network, over all pixels of each class c, the mean gradient of the cross-entropy
    with respect to that layer,

        dW_c = mean (p - e_c) z',    db_c = mean (p - e_c)

    and sends both. The server keeps ``points`` vectors S_c per class, and moves them by gradient descent until they
    have the gradient that the sites that have the class have on average. The next round's loss is

        segmentation + weight * mean over anchors z of class c of [ HPCL + HPAL ]
        HPCL = log(1 + sum_{k != c} exp((s_k + margin - s_c) / tau)),    s_k = mean over q in S_k of cos(z, q)
        HPAL = Huber distance, dimension by dimension, of the directions of z and of the mean of S_c

    The margin is the site's own: the sum of the distances between the directions of its class means, every pair once,
    over (K - 1)^2. Background is a class of its own. An anchor whose class has no hyper-prototypes, as all in the first
    round, adds 0 and still counts; with one class alone there is no contrast.

    The paper matches the gradient with respect to the feature, db_c W. With two classes that is always a positive
    multiple of W_other - W_c, whatever the features are, so hyper-prototypes match from the start and stay where they
    were drawn. The default matches the gradient of the layer, which the authors' code does for another purpose. We
    leave out what else is in their code alone: the new classifier that is trained on such points and replaces the
    global one, the second division by the batch size, and a margin of dot products inside the logarithm.

    Args:
        weight: of both terms, >= 0; 0 is FedAvg, and nothing but networks is sent (paper: 1).
        tau: temperature of HPCL, > 0 (paper: 0.05).
        margin: ``distance`` (paper) or ``none`` (the authors' code by default). Between two classes that lie far apart
            the distance is as much as cosines can differ, or more: HPCL then pushes with its full strength, 1/tau,
            however good the features are.
        huber: of the ``directions`` of both vectors (authors' code), or of the ``features`` themselves (paper).
        points: hyper-prototypes per class, >= 1 (paper: 5).
        match: gradients that are matched: of the last ``layer``, or with respect to the ``feature`` (paper), which
            needs three classes or more.
        metric: ``cos``: one minus the cosine, row by row of the layer (paper); ``mse``: squared distance; ``signs``:
            one minus the cosine number by number, which counts signs and has next to no gradient (the authors' default
            for features).
        rate: of the gradient descent, > 0 (authors' code: 0.1).
        steps: of the gradient descent per round, >= 0 (authors' code: 30).
        anchor: what is pulled: random pixels (``pixel``) or the mean of each class in each image (``image_class``).
        anchors_per_class: maximum number of random pixels per class and batch; 0: all of them.
        average: of the anchors: within each class and then over ``classes``, or over all ``anchors`` (authors).
    """

    weight: float = 1.0
    tau: float = 0.05
    margin: str = "distance"
    huber: str = "directions"
    points: int = 5
    match: str = "layer"
    metric: str = "cos"
    rate: float = 0.1
    steps: int = 30
    anchor: str = "pixel"
    anchors_per_class: int = 512
    average: str = "classes"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        choose("margin", self.margin, ("distance", "none"))
        choose("huber", self.huber, ("directions", "features"))
        choose("match", self.match, ("layer", "feature"))
        choose("metric", self.metric, METRICS)
        choose("anchor", self.anchor, ANCHORS)
        choose("average", self.average, AVERAGES)
        for name in ("weight", "steps", "anchors_per_class"):
            not_negative(name, getattr(self, name))
        for name in ("tau", "points", "rate"):
            positive(name, getattr(self, name))
        if self.metric == "signs" and self.match == "layer":
            raise UserError("metric signs is of single numbers: set match to feature, or metric to cos")

    # At a site.

    def on_round_start(self, client: ClientContext) -> None:
        """Read the hyper-prototypes, and take gradients and class means of all own pixels at the received network."""
        client.scratch["known"] = read_prototypes(client.here(client.received.shared))
        client.scratch["gradients"] = {}
        if not self.weight:
            return
        own, weight, bias = ClassMeans(), torch.zeros(()), torch.zeros(())
        with eval_mode(client.network):
            for batch in client.batches(0):
                at = self.at_head(client, batch)
                read = labelled_head(at, batch)
                own.pool(read, "nearest")
                found = layer_gradients(at.logits, read)
                weight, bias = weight + found.sums.double().cpu(), bias + found.counts.double().cpu()
        for c in map(int, own.means()):
            for name, total in (("weight", weight[c]), ("bias", bias[c])):
                client.scratch["gradients"][f"{c}/{at.name}.{name}"] = (total / own.counts[c]).float()
        client.scratch["margin"] = self.margin_of(own.means(), len(own.counts))

    def at_head(self, client: ClientContext, batch: Batch) -> HeadPass:
        """The input and output of the last layer for a batch."""
        with client.autocast():
            return through_head(client.network, batch["image"])

    def margin_of(self, means: Tensors, classes: int) -> float:
        """The margin of a site with these class means, {class: (D,)}."""
        if self.margin == "none":
            return 0.0
        directions = F.normalize(torch.stack(list(means.values())))
        return float(torch.pdist(directions).sum()) / (classes - 1) ** 2

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss, separation of classes (HPCL) and uniformity within them (HPAL)."""
        if not self.weight:
            return super().loss(client, batch)
        at = self.at_head(client, batch)
        loss = client.segmentation(at.logits, batch)
        known: Prototypes | None = client.scratch["known"]
        if known is None:
            return loss
        anchors = draw_anchors(labelled_head(at, batch), self.anchor, self.anchors_per_class)
        separation = anchors.mean(self.separation(anchors, known, client.scratch["margin"]), self.average)
        uniformity = anchors.mean(self.uniformity(anchors, known), self.average)
        return loss + self.weight * (client.record("separation", separation) + client.record("uniformity", uniformity))

    def separation(self, anchors: Anchors, known: Prototypes, margin: float) -> Tensor:
        """HPCL: contrast with the hyper-prototypes, every other class a margin closer, (N,)."""
        cosine = similarities(anchors.vectors, known.clusters)
        classes = torch.tensor(list(known.means), device=cosine.device)
        scores = torch.stack([cosine[:, known.owners == c].mean(1) for c in known.means], dim=1)
        scores = scores + margin * (anchors.classes[:, None] != classes)
        return class_info_nce(scores, anchors.classes, classes, self.tau)

    def uniformity(self, anchors: Anchors, known: Prototypes) -> Tensor:
        """HPAL: Huber distance to the mean of the class's hyper-prototypes, mean over dimensions, (N,)."""
        features, (targets, there) = anchors.vectors, known.targets(anchors.classes)
        if self.huber == "directions":
            features, targets = F.normalize(features), F.normalize(targets)
        return F.smooth_l1_loss(features, targets, reduction="none").mean(1) * there

    def client_payload(self, client: ClientContext) -> Tensors:
        """Send the gradients of each class, named by parameter: {class/name.weight: (K, D), class/name.bias: (K,)}."""
        gradients: Tensors = client.scratch["gradients"]
        return gradients

    def payload(self, network: Segmenter) -> dict[str, TensorSpec]:
        """The gradients of each class."""
        classes, state = network.classes, network.state_dict()
        return {
            f"{c}/{name}.{part}": TensorSpec((classes, *state[f"{name}.{part}"].shape[1:2]))
            for c in range(classes)
            for name in heads(network)
            for part in ("weight", "bias")
        }

    # At the server.

    def aggregate_payload(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Move the hyper-prototypes towards the sites' mean gradients at the network they had, {class: (points, D)}."""
        shared = dict(state.shared)
        for c in sorted({name.partition("/")[0] for update in updates for name in update.shared}, key=int):
            sent = [found for update in updates if len(found := under(c, update.shared)) == len(Layer._fields)]
            if not sent:
                continue
            real = mean((gradient, 1) for gradient in sent)
            head = layer_of({name: state.weights[name] for name in real})
            start = shared.get(c, first_points(int(c), self.points, head.weight.shape[1]))
            shared[c] = self.learn(start, int(c), head, layer_of(real))
        return shared

    def learn(self, points: Tensor, c: int, head: Layer, real: Layer) -> Tensor:
        """Gradient descent of one class's points, (I, D), on the mismatch of their gradient and the real one."""
        if self.match == "feature" and len(head.bias) == 2:
            warnings.warn(
                "FedHPro: with two classes the gradient with respect to a feature says nothing of the feature, so "
                "hyper-prototypes stay where they were drawn; set match to layer",
                stacklevel=2,
            )
        return descend(points, lambda at: self.mismatch(point_gradient(at, c, head), real, head), self.rate, self.steps)

    def mismatch(self, points: Layer, real: Layer, head: Layer) -> Tensor:
        """L_GM of one class, a scalar."""
        if self.match == "feature":
            return distance((points.bias @ head.weight)[None], (real.bias @ head.weight)[None], self.metric)
        bias = distance(points.bias[None], real.bias[None], self.metric)
        return distance(points.weight, real.weight, self.metric) + bias


def labelled_head(at: HeadPass, batch: Batch) -> LabelledMap:
    """What the last layer reads, with its label."""
    return LabelledMap(at.feature, batch["label"], at.logits.shape[1])

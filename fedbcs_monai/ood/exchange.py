"""OOD exchange: two rounds of questions from which the server learns the style of each site's cases."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fedbcs_monai.federated.messages import Broadcast, Carry
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.metrics.cases import Item, Segmentation
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.ood.distance import (
    DISTANCES,
    STYLES,
    SiteStyle,
    StyleAnswer,
    complete,
    site_styles,
    within,
)
from fedbcs_monai.ood.style import style_of
from fedbcs_monai.tensors import Tensors


def styles_of(segmentation: Segmentation, items: Iterable[Item], network: Segmenter) -> Tensor:
    """The styles of cases, read one by one, each seen as a whole case is: (N, D)."""
    styles = []
    for item in items:
        image = segmentation.prepare(item)["image"]
        with style_of(network) as style:
            # `forward`, because a compiled network calls no hooks.
            segmentation.inferer(image[None].to(segmentation.device), network.forward)
        styles.append(style.vector())
    return torch.stack(styles) if styles else torch.zeros(0, 1)


def learn_site_styles(aggregator: Aggregator, ask: Carry) -> dict[str, SiteStyle]:
    """Ask the sites how their cases look to the aggregator's network, and how far these lie from each other.

    Where sites keep tensors of the network to themselves, each sees its cases with a network of its own, and nothing is
    pooled.

    Returns:
        The sites that have enough cases; empty where none has.
    """

    def answers(question: str, sent: Tensors) -> dict[str, StyleAnswer]:
        broadcast = Broadcast(aggregator.state.round, aggregator.state.weights, sent, question)
        updates = aggregator.numbers(ask, broadcast)
        return complete(question, {update.site: StyleAnswer(update.shared, update.metrics) for update in updates})

    alone, first = bool(aggregator.private), answers(STYLES, {})
    if not first:
        return {}
    return site_styles(first, answers(DISTANCES, {} if alone else within(first)), alone)

"""Out-of-distribution warning: how far an image is from the training sites, and a warning if it is too far."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from fedbcs_monai.ood.distance import UNLIKE_SD, distances
from fedbcs_monai.ood.style import style_of
from fedbcs_monai.predict.model import Model


@contextmanager
def listening(models: Sequence[Model]) -> Iterator[Callable[[], dict[str, float]]]:
    """Record the styles that models see of an image while the context lasts.

    Yields:
        A function to call once they are done. It returns the distance of the image to every site in standard
        deviations, the nearest first. Of several models the one from whose sites the image is farthest counts. Empty
        if no model knows its sites.
    """
    with ExitStack() as stack:
        styles = [(m.sites, stack.enter_context(style_of(m.trained.network))) for m in models if m.sites]

        def found() -> dict[str, float]:
            each = [distances(sites, style.vector()) for sites, style in styles]
            return max(each, key=lambda of_model: next(iter(of_model.values())), default={})

        yield found


def statistics_of(distances_sd: dict[str, float]) -> dict[str, Any]:
    """``ood``: the ``nearest`` site, its ``distance_sd``, and those of all ``sites``; empty where unknown."""
    if not distances_sd:
        return {}
    nearest, distance_sd = next(iter(distances_sd.items()))
    return {"ood": {"nearest": nearest, "distance_sd": distance_sd, "sites": distances_sd}}


def warnings_of_distance(distances_sd: dict[str, float]) -> list[str]:
    """What is unusual about an image, in one sentence."""
    nearest, distance_sd = next(iter(distances_sd.items()), ("", 0.0))
    if distance_sd <= UNLIKE_SD:
        return []
    return [f"unlike any training site: nearest is {nearest}, distance {distance_sd:.1f} sd"]

"""The picture of the README: the demo's sites, and what both methods outline there.

    fedbcs demo
    python benchmarks/demo_picture.py fedbcs-demo-prostate -o docs/demo.png

It shows one training image of each site, and the first example case of the first site and of the unseen site.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedbcs_monai.runs.reader import Example, Run, read_examples, read_run

REFERENCE, FEDAVG, FEDBCS = "#ffdc4a", "#2b8cd6", "#e0601a"


def main() -> None:
    """Read both runs of a demo and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the folder that `fedbcs demo` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    picture(read_run(options.demo / "fedavg"), read_run(options.demo / "fedbcs")).savefig(
        options.output, dpi=100, bbox_inches="tight", pad_inches=0.05
    )


def picture(fedavg: Run, fedbcs: Run) -> Figure:
    """Sites above, one row of outlines for each shown case below."""
    figure = plt.figure(figsize=(9, 8.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 3.2])
    for axes, site in zip(above.subplots(1, len(fedavg.sites)), fedavg.sites, strict=True):
        axes.imshow(plt.imread(fedavg.folder / "looks" / f"{site}.png"), cmap="gray")
        title(axes, f"{site} (never trained on)" if site in fedavg.unseen else site)
    shown = [first(fedavg, site) for site in (fedavg.sites[0], *fedavg.unseen)]
    rows = below.subplots(len(shown), 3, squeeze=False)
    for row, case in zip(rows, shown, strict=True):
        other = next(found for found in read_examples(fedbcs) if (found.site, found.case) == (case.site, case.case))
        for axes, example, mask, colour, name in (
            (row[0], case, case.truth, REFERENCE, f"{case.site}: reference"),
            (row[1], case, case.prediction, FEDAVG, f"FedAvg, Dice {100 * case.dice:.1f} %"),
            (row[2], other, other.prediction, FEDBCS, f"FedBCS, Dice {100 * other.dice:.1f} %"),
        ):
            axes.imshow(example.image)
            outline(axes, example.truth, REFERENCE)
            outline(axes, mask, colour)
            title(axes, name)
    return figure


def first(run: Run, site: str) -> Example:
    """The first example case of a site."""
    return next(example for example in read_examples(run) if example.site == site)


def outline(axes: Axes, mask: NDArray, colour: str) -> None:
    """Draw a mask's border."""
    if mask.any():
        axes.contour(mask, levels=[0.5], colors=colour, linewidths=1.6)


def title(axes: Axes, words: str) -> None:
    """Words above an image, and no axes."""
    axes.set_title(words, fontsize=10)
    axes.set_axis_off()


if __name__ == "__main__":
    main()

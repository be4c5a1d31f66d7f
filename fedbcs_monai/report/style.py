"""Figure style: colours, lines and fonts of all figures."""

from typing import Any

# Okabe and Ito's colour-blind safe hues, in a lightness that holds on white and on a stained slide.
COLOURS = ("#2b8cd6", "#e0601a", "#0fa37a", "#c9659f", "#b98a00", "#7d62d0", "#8a8f98")
DASHES = ("-", "--", ":")  # three and seven have no common divisor: 21 methods differ
INK, SOFT, GRID = "#1b2430", "#5b6674", "#dde2e8"

WIDTH_IN = 7.2
"""Width of a figure in inches: two columns of a journal."""

RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a figure is the same on every machine
    "font.size": 7.5,
    "text.color": INK,
    "text.parse_math": False,  # a name with $ in it is a name
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.05,
    "axes.labelsize": 7.5,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.2,
    "savefig.dpi": 300,
    "svg.hashsalt": "fedbcs",
    "svg.fonttype": "path",  # a reader's own fonts have other widths
    "pdf.fonttype": 42,  # journals refuse Type 3
}

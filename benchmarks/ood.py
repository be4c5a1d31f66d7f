"""How well does the out-of-distribution distance separate images of other sites, and spoilt ones, from known sites?

    python benchmarks/ood.py RUN [RUN ...] --measured FOLDER --figure docs/concepts/out_of_distribution.png

Every case of a run's site list goes through its network, and of the sites that trained also spoilt copies of every
validation and test case. `--others` adds images from elsewhere. What is kept of each are channel means and deviations
of every level, the mean features of what was predicted as each class, and Dice; a run that FOLDER has is not measured
again.

Candidates differ in what they read and in whether they know of correlations. They are compared without any test case:
by how well they tell training and validation cases of a training site that is left out from those of the other sites,
each of these left out in its turn; and spoilt validation cases from those they were made of. The one that is used is
then compared on test cases.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from conditions import close, conditions, finish, say, script, table
from matplotlib.figure import Figure
from monai.transforms import AdjustContrast, GaussianSmooth, RandBiasField, RandGaussianNoise
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.data.sites import read_sites
from fedbcs_monai.metrics.masks import dice
from fedbcs_monai.ood import distance as site_styles
from fedbcs_monai.ood.distance import DISTANCES, STYLES, UNLIKE_SD, distances, known, style_answer, within
from fedbcs_monai.ood.style import Style
from fedbcs_monai.predict.model import Model, load_model
from fedbcs_monai.predict.source import Source
from fedbcs_monai.predict.studies import AcceptedImages, find_studies
from fedbcs_monai.runs.setup import build_segmentation
from fedbcs_monai.tensors import read_tensors, write_tensors

USED = ("image, encoder 0-1", 0.1)
SHALLOW = ("image", "encoder0")
CANDIDATES: dict[str, tuple[str, ...]] = {
    "image": ("image",),
    "encoder 0": ("encoder0",),
    "image, encoder 0": SHALLOW,
    "image, encoder 0-1": (*SHALLOW, "encoder1"),
    "image, encoder 0-2": (*SHALLOW, "encoder1", "encoder2"),
    "class means, penultimate": ("classes",),
}
"""From a name to the levels that are read."""

SHRINKAGES = (0.1, 1.0)
"""Of the covariance; with 1 it is its diagonal."""

CLEAN = "clean"
GROUPS = ("seen", "unseen", "spoilt")


class Row(NamedTuple):
    """One image or copy: whose it is, what was done to it, Dice (NaN where unknown), and its levels, (2 C,) each."""

    site: str
    part: str
    case: str
    copy: str
    dice: float
    levels: Mapping[str, Tensor]


Sites = Mapping[str, list[Tensor]]
"""The vectors of every site's cases."""


def main() -> None:
    """Measure, print, and draw."""
    options = _options()
    torch.set_num_threads(1)
    found = conditions(torch.device("cpu"), options.seed)
    results, shown = {}, {}
    for run in options.runs:
        rows = _measured(run, options)
        task = json.loads((run / "config.json").read_text(encoding="utf-8"))["task"]
        say(f"{task}: {len(rows)} images and copies")
        trained = sorted({row.site for row in rows if row.part == "train"})
        results[task] = {
            "candidates": [_candidate(name, share, rows, trained) for name in CANDIDATES for share in SHRINKAGES],
            **_tested(rows, trained, options),
        }
        shown[task] = _scored(rows, trained, ("train", "val"), ("test",))
    close(found)
    if options.figure:
        _figure(shown).savefig(options.figure, dpi=110)
    finish(found, results, _text(results), options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, of one task each")
    parser.add_argument("--measured", type=Path, required=True, metavar="FOLDER", help="what was measured of each run")
    parser.add_argument("--others", type=Path, nargs="+", default=[], help="volumes from elsewhere")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=None, help="PNG of numbers alone")
    parser.add_argument("--json", type=Path, default=None, help="also write all that was found to this file")
    return parser.parse_args()


# Measuring.


def _measured(run: Path, options: argparse.Namespace) -> list[Row]:
    file = options.measured / f"{run.name}.safetensors"
    if not file.is_file():
        rows = list(_rows(load_model(run, "cpu"), options))
        levels = {name: torch.stack([row.levels[name] for row in rows]) for name in rows[0].levels}
        heads = [list(row[:5]) for row in rows]
        write_tensors(file, levels)
        file.with_suffix(".json").write_text(json.dumps(heads), encoding="utf-8")
    levels, heads = read_tensors(file), json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return [Row(*head, {name: tensor[n] for name, tensor in levels.items()}) for n, head in enumerate(heads)]


def _rows(model: Model, options: argparse.Namespace) -> Iterator[Row]:
    config = model.trained.settings
    whole = build_segmentation(config, model.trained.compute)
    wanted = AcceptedImages(model.pictures)
    for name, site in sorted(read_sites(Path(config.sites)).items()):
        for part in ("train", "val", "test"):
            for item in site.items(part, config.fold):
                source = find_studies([item["image"]], wanted).studies[0].read()
                reference = whole.reference(item)
                copies = {CLEAN: source.array}
                if part != "train" and not site.unseen:
                    copies |= _spoilt(source.array, model.pictures, options.seed)
                for copy, array in copies.items():
                    levels, mask = _seen(model, source._replace(array=array))
                    moved = copy in ("upside down", "turned")
                    score = float("nan") if moved else dice(mask > 0, reference)
                    yield Row(name, part, item["case"], copy, score, levels)
        say(f"{name} is done")
    for path in () if model.pictures else options.others:
        source = find_studies([path], wanted).studies[0].read()
        yield Row(path.parent.name, "test", path.parent.name, CLEAN, float("nan"), _seen(model, source)[0])


def _seen(model: Model, source: Source) -> tuple[dict[str, Tensor], Any]:
    """The levels of an image, and its mask."""
    styles: dict[str, Style] = {}
    sums: list[Tensor] = []

    def network(image: Tensor) -> Tensor:
        features = model.trained.network.features(image)
        maps = {"image": image, "bottleneck": features.bottleneck}
        maps |= {f"encoder{n}": level for n, level in enumerate(features.encoder)}
        for name, level in maps.items():
            styles.setdefault(name, Style()).add("", level)
        shares = F.interpolate(features.logits.softmax(1), size=features.decoder[0].shape[2:], mode="area")
        sums.append(torch.einsum("bkhw,bchw->kc", shares, features.decoder[0]).double())
        sums.append(shares.sum((0, 2, 3)).double()[:, None])
        return features.logits

    with model.trained.compute.inference():
        case = model.segmentation.prepare({"image": source.tensor()})
        mask = model.decide(model.segmentation.predicted(network, case))
    classes = sum(sums[::2]) / sum(sums[1::2]).clamp_min(1e-6)
    return {**{name: style.vector() for name, style in styles.items()}, "classes": classes.flatten().float()}, mask


def _spoilt(array: Any, pictures: bool, seed: int) -> dict[str, Any]:
    """Copies of a picture (H, W, 3) or a volume (X, Y, Z)."""
    image = torch.as_tensor(array.astype(np.float32))
    image = image.movedim(-1, 0) if pictures else image[None]
    low, high, deviation = image.min(), image.max(), float(image.std())

    def drawn(transform: Any) -> Tensor:
        transform.set_random_state(seed=seed)
        return transform(image.clone())

    def noisy(share: float) -> Tensor:
        return drawn(RandGaussianNoise(prob=1, std=share * deviation, sample_std=False))

    def smooth(sigma: float) -> Tensor:
        return GaussianSmooth((sigma, sigma) if pictures else (sigma, sigma, 0.0))(image)

    copies = {
        "noise, 1/4 sd": noisy(0.25),
        "noise, 1/2 sd": noisy(0.5),
        "blur, 1 pixel": smooth(1.0),
        "blur, 2 pixels": smooth(2.0),
        "gamma 1/2": AdjustContrast(gamma=0.5)(image),
        "gamma 2": AdjustContrast(gamma=2.0)(image),
        "uneven light": drawn(RandBiasField(prob=1, degree=3, coeff_range=(0.3, 0.3))),
        "inverted": low + high - image,
    }
    if pictures:
        copies |= {
            "grey": image.mean(0, keepdim=True).expand(3, -1, -1),
            "colours swapped": image.flip(0),
            "half the contrast": (image - image.mean()) * 0.5 + image.mean(),
        }
        return {name: c.clamp(0, 255).round().movedim(0, -1).numpy().astype(np.uint8) for name, c in copies.items()}
    copies |= {"upside down": image.flip(2), "turned": torch.rot90(image, 1, (1, 2))}
    return {name: np.asarray(copy[0]) for name, copy in copies.items()}


# Candidates, without test cases.


def _vector(row: Row, levels: Sequence[str]) -> Tensor:
    return torch.cat([row.levels[name] for name in levels])


def _cases(rows: Sequence[Row], trained: Sequence[str], parts: Sequence[str], levels: Sequence[str]) -> Sites:
    return {
        site: [_vector(r, levels) for r in rows if r.site == site and r.part in parts and r.copy == CLEAN]
        for site in trained
    }


def _learnt(sites: Sites) -> Callable[[Tensor], float]:
    """From a vector to its distance to the nearest site."""
    styles = {site: torch.stack(vectors) for site, vectors in sites.items()}
    first = {site: style_answer(STYLES, of_site, {}) for site, of_site in styles.items()}
    sent = within(first)
    found = known(first, {site: style_answer(DISTANCES, of_site, sent) for site, of_site in styles.items()})
    return lambda vector: next(iter(distances(found, vector).values()))


def _candidate(name: str, shrinkage: float, rows: Sequence[Row], trained: Sequence[str]) -> dict[str, Any]:
    levels, site_styles.SHRINKAGE = CANDIDATES[name], shrinkage
    every = _cases(rows, trained, ("train", "val"), levels)
    apart = {site: _left_out(site, every) for site in trained}
    distance = _learnt(_cases(rows, trained, ("train",), levels))
    validation = [row for row in rows if row.part == "val" and row.site in trained]
    clean = [distance(_vector(row, levels)) for row in validation if row.copy == CLEAN]
    spoilt = {
        copy: auroc(clean, [distance(_vector(row, levels)) for row in validation if row.copy == copy])
        for copy in dict.fromkeys(row.copy for row in validation if row.copy != CLEAN)
    }
    say(f"{name}, {shrinkage}: {np.mean(list(apart.values())):.2f} {np.mean(list(spoilt.values())):.2f}")
    size = len(_vector(rows[0], levels))
    return {"reads": name, "shrinkage": shrinkage, "numbers": size, "left out": apart, "spoilt": spoilt}


def _left_out(site: str, sites: Sites) -> float:
    """How well a site's cases are distinguished from those of the others, each left out in turn."""
    others = {other: vectors for other, vectors in sites.items() if other != site}
    distance, seen = _learnt(others), []
    for other, vectors in others.items():
        for n, vector in enumerate(vectors):
            without = vectors[:n] + vectors[n + 1 :]
            if len(without) >= site_styles.MIN_CASES:
                seen.append(_learnt({**others, other: without})(vector))
    return auroc(seen, [distance(vector) for vector in sites[site]])


def auroc(low: Sequence[float], high: Sequence[float]) -> float:
    """The share of pairs in which the second is the larger; ties count half."""
    first, second = np.asarray(low)[None], np.asarray(high)[:, None]
    return float(((second > first) + 0.5 * (second == first)).mean())


# The one that is used, on test cases.


class Scored(NamedTuple):
    """An image and its distance to the nearest site."""

    row: Row
    group: str
    distance: float


def _scored(rows: Sequence[Row], trained: Sequence[str], fit: Sequence[str], parts: Sequence[str]) -> list[Scored]:
    levels, site_styles.SHRINKAGE = CANDIDATES[USED[0]], USED[1]
    distance = _learnt(_cases(rows, trained, fit, levels))
    scored = []
    for row in rows:
        if row.part in parts:
            group = "unseen" if row.site not in trained else "seen" if row.copy == CLEAN else "spoilt"
            scored.append(Scored(row, group, distance(_vector(row, levels))))
    return scored


Pair = tuple[float, float]


def _tested(rows: Sequence[Row], trained: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    scored = _scored(rows, trained, ("train", "val"), ("test",))
    random = np.random.default_rng(options.seed)
    seen = [s for s in scored if s.group == "seen"]
    groups = {"test cases of the training sites": seen}
    for s in scored:
        if s.group != "seen":
            groups.setdefault(s.row.site if s.group == "unseen" else s.row.copy, []).append(s)
    groups["all that is spoilt"] = [s for s in scored if s.group == "spoilt"]
    separations = {}
    for name, group in groups.items():
        found = [s.distance for s in group]
        separations[name] = {
            "images": len(found),
            "median": float(np.median(found)),
            "largest": max(found),
            "warned": float(np.mean(np.asarray(found) > UNLIKE_SD)),
            **({} if group is seen else _separation(seen, group, options, random)),
        }
    rated = [s for s in scored if np.isfinite(s.row.dice)]
    clean = {_case(s): s for s in rated if s.row.copy == CLEAN}
    pairs: dict[str, list[tuple[Scored, Pair]]] = {
        "distance and Dice, training sites": [(s, (s.distance, s.row.dice)) for s in rated if s.group == "seen"],
        "the same with spoilt copies": [(s, (s.distance, s.row.dice)) for s in rated if s.group != "unseen"],
        "the same with the unseen site": [(s, (s.distance, s.row.dice)) for s in rated],
        "what spoiling adds to the distance, and to Dice": [
            (s, (s.distance - clean[_case(s)].distance, s.row.dice - clean[_case(s)].row.dice))
            for s in rated
            if s.group == "spoilt"
        ],
    }
    return {"groups": separations, "dice": {name: _correlated(found, options, random) for name, found in pairs.items()}}


def _case(scored: Scored) -> tuple[str, str]:
    return scored.row.site, scored.row.case


def _drawn(by_case: Sequence[Sequence[Any]], random: np.random.Generator) -> list[Any]:
    """As many cases, resampled, with all that belongs to each."""
    return [value for n in random.integers(len(by_case), size=len(by_case)) for value in by_case[n]]


def _by_case(values: Sequence[tuple[Scored, Any]]) -> list[list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for scored, value in values:
        found.setdefault(_case(scored), []).append(value)
    return list(found.values())


def _separation(
    seen: Sequence[Scored], found: Sequence[Scored], options: argparse.Namespace, random: np.random.Generator
) -> dict[str, Any]:
    """AUROC, and 95 % of those of cases resampled."""
    near, far = (_by_case([(s, s.distance) for s in group]) for group in (seen, found))
    drawn = [auroc(_drawn(near, random), _drawn(far, random)) for _ in range(options.draws)]
    value = auroc([s.distance for s in seen], [s.distance for s in found])
    return {"auroc": value, "interval": [float(end) for end in np.percentile(drawn, [2.5, 97.5])]}


def _correlated(
    pairs: Sequence[tuple[Scored, Pair]], options: argparse.Namespace, random: np.random.Generator
) -> dict[str, Any]:
    """Spearman's rank correlation, and 95 % of those of cases resampled."""
    by_case, drawn = _by_case(pairs), []
    for _ in range(options.draws):
        some = np.asarray(_drawn(by_case, random))
        if np.ptp(some, axis=0).all():
            drawn.append(spearmanr(*some.T).statistic)
    value = spearmanr(*np.asarray([pair for _, pair in pairs]).T).statistic
    ends = [float(end) for end in np.percentile(drawn, [2.5, 97.5])]
    return {"images": len(pairs), "cases": len(by_case), "rho": float(value), "interval": ends}


# Telling.


def _text(results: Mapping[str, Any]) -> str:
    parts = []
    for task, found in results.items():
        rows = [
            [
                f"{c['reads']}{'' if c['shrinkage'] < 1 else ', diagonal'}",
                str(c["numbers"]),
                f"{np.mean(list(c['left out'].values())):.2f}",
                f"{np.mean(list(c['spoilt'].values())):.2f}",
            ]
            for c in found["candidates"]
        ]
        parts += [f"### {task}: candidates", table(["reads", "numbers", "site left out", "spoilt validation"], rows)]
        rows = [
            [
                name,
                str(g["images"]),
                f"{g['median']:.1f}",
                f"{g['warned']:.0%}",
                f"{g['auroc']:.2f} [{g['interval'][0]:.2f}, {g['interval'][1]:.2f}]" if "auroc" in g else "",
            ]
            for name, g in found["groups"].items()
        ]
        head = ["images", "number", "median sd", f"beyond {UNLIKE_SD:.0f} sd", "AUROC [95 %]"]
        parts += [f"### {task}: test cases", table(head, rows)]
        rows = [
            [name, str(c["images"]), f"{c['rho']:.2f} [{c['interval'][0]:.2f}, {c['interval'][1]:.2f}]"]
            for name, c in found["dice"].items()
        ]
        parts += [f"### {task}: rank correlation", table(["", "images", "rho [95 %]"], rows)]
    return "\n\n".join(parts)


def _name(scored: Scored) -> str:
    names = {"seen": "test cases of\ntraining sites", "unseen": scored.row.site, "spoilt": scored.row.copy}
    return names[scored.group]


def _rank(scored: Scored) -> int:
    return GROUPS.index(scored.group)


def _figure(shown: Mapping[str, Sequence[Scored]]) -> Figure:
    """Distances by group, and against Dice."""
    figure = Figure(figsize=(9.5, 3.6 * len(shown)), layout="constrained")
    charts = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(3, 2))
    colours = dict(zip(GROUPS, ("#0072b2", "#d55e00", "#999999"), strict=True))
    random = np.random.default_rng(0)
    for (task, scored), (left, right) in zip(shown.items(), charts, strict=True):
        of = [_name(s) for s in scored]
        order = list(dict.fromkeys(name for _, name in sorted(zip(map(_rank, scored), of, strict=True))))
        for s, name in zip(scored, of, strict=True):
            left.plot(s.distance, order.index(name) + random.uniform(-0.2, 0.2), ".", color=colours[s.group], ms=4)
            right.plot(s.distance, s.row.dice, ".", color=colours[s.group], ms=4)
        left.axvline(UNLIKE_SD, color="black", lw=0.8, ls="--")
        left.set_yticks(range(len(order)), order, fontsize=8)
        left.invert_yaxis()
        left.set_title(task, loc="left")
        for panel in (left, right):
            panel.set_xscale("symlog", linthresh=5)
            panel.set_xticks([-2, 0, 2, 5, 10, 20], ["-2", "0", "2", "5", "10", "20"])
            panel.minorticks_off()
            panel.set_xlabel("distance to the nearest training site, sd")
        right.set_ylabel("Dice")
        for group, what in zip(GROUPS, ("training sites", "elsewhere", "spoilt copies"), strict=True):
            right.plot([], [], ".", color=colours[group], label=what)
    figure.legend(*charts[-1][1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    script(main)

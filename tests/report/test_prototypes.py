"""The map of prototypes: directions on two axes, sites coloured, the server's hollow."""

import json

import numpy as np
import pytest
import torch

from fedbcs_monai.report.groups import group
from fedbcs_monai.report.prototypes import KEPT, SENT, dots_of, project, prototype_map
from fedbcs_monai.report.summary import Comparison
from fedbcs_monai.runs.prototypes import KeptPrototypes, write_prototypes
from fedbcs_monai.runs.reader import read_run


def drawn(*folders):
    runs = [read_run(folder) for folder in folders]
    return prototype_map(Comparison(group(runs), runs[0].sites, runs[0].unseen))


def test_vectors_in_a_plane_keep_their_distances():
    angles = np.array([0.0, 0.5, 1.2, 3.0])
    plane = np.stack([np.cos(angles), np.sin(angles), np.zeros(4)], 1)
    flat, shares = project(7 * plane)  # length does not count
    apart = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    assert np.linalg.norm(flat[:, None] - flat[None], axis=-1) == pytest.approx(apart)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] >= shares[1]


def test_the_sign_of_a_component_is_fixed():
    vectors = np.random.default_rng(0).normal(size=(5, 4))
    flat, _ = project(vectors)
    assert flat[np.abs(flat).argmax(0), [0, 1]].min() > 0


def test_equal_vectors_lie_on_one_point():
    flat, shares = project(np.ones((3, 4)))
    assert flat == pytest.approx(np.zeros((3, 2)))
    assert list(shares) == [0, 0]


def test_every_place_has_a_panel_and_every_prototype_a_mark(make_run):
    folder = make_run("a", "FedBCS")
    generator = torch.Generator().manual_seed(0)
    names = [f"{stream}/{label}" for stream in ("encoder", "decoder") for label in (0, 1)]
    sites = {site: {name: torch.randn(8, generator=generator) for name in names} for site in ("Ash", "Elm")}
    write_prototypes(folder, {name: torch.randn(3, 8, generator=generator) for name in names}, sites)
    drawing = drawn(folder)
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["FedBCS, decoder", "FedBCS, encoder"]
    marks = drawing.figure.axes[0].lines
    assert sum(line.get_markerfacecolor() == "none" for line in marks) == 6
    assert sum(line.get_markerfacecolor() != "none" for line in marks) == 4
    assert {line.get_marker() for line in marks} == {"o", "^"}
    assert drawing.caption.endswith(SENT)


def test_classes_are_called_as_the_run_calls_them(make_run):
    folder = make_run("a", "FedProto")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"classes": ["background", "gland"]}))
    write_prototypes(folder, {"0": torch.eye(3)[:2], "1": torch.eye(3)[2], "2": torch.ones(3)}, {})
    (legend,) = drawn(folder).figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["background", "gland", "class 2"]


def test_a_run_without_those_of_sites_shows_the_servers_and_says_so(make_run):
    folder = make_run("a", "FedProto")
    write_prototypes(folder, {"0": torch.eye(3)[:2], "1": torch.eye(3)[2]}, {})
    drawing = drawn(folder)
    assert len(drawing.figure.axes[0].lines) == 3
    assert drawing.caption.endswith(KEPT)


def test_what_a_server_relays_is_shown_once_under_the_sites_name(make_run):
    run = read_run(make_run("a", "FedContrast"))
    server = {"Ash/0": torch.ones(2, 3), "Birch/1": torch.ones(3)}
    assert [dot.site for dot in dots_of(KeptPrototypes(server, {}), run)[""]] == ["Ash", "Ash", "Birch"]
    sites = {"Ash": {"0": torch.ones(2, 3)}, "Birch": {"1": torch.ones(3)}}
    assert [dot.site for dot in dots_of(KeptPrototypes(server, sites), run)[""]] == ["Ash", "Ash", "Birch"]


def test_what_has_no_direction_is_left_out(make_run):
    run = read_run(make_run("a", "FedProto"))
    server = {"0": torch.zeros(3), "1": torch.tensor([1.0, float("nan"), 0.0])}
    assert dots_of(KeptPrototypes(server, {}), run) == {}


def test_runs_without_prototypes_have_no_map(make_run):
    assert drawn(make_run("a")) is None

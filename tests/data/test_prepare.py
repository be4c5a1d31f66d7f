"""A folder to a site list, and everything that is wrong with it at once."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedbcs_monai.data.prepare import list_sites, split_patients
from fedbcs_monai.data.sites import read_sites, write_sites
from fedbcs_monai.errors import UserError


def save_pair(site: Path, stem: str, seed: int, labels: str = "masks") -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), np.uint8)
    mask = np.zeros((6, 5), np.uint8)
    mask[1:3, 1:3] = 255
    for kind, array in (("images", pixels), (labels, mask)):
        (site / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(site / kind / f"{stem}.png")


@pytest.fixture
def folder(tmp_path):
    """Two sites of six pictures."""
    for number in range(6):
        save_pair(tmp_path / "north", f"n{number}", number)
        save_pair(tmp_path / "south", f"s{number}", 100 + number, "labels")
    return tmp_path


def splits(sites):
    return {site.name: {case.patient: case.split for case in site.cases} for site in sites}


def test_a_folder_becomes_a_list_that_can_be_read_back(folder):
    sites = list_sites(folder, modality="H&E")
    write_sites(folder / "sites.json", sites, "nuclei")
    assert read_sites(folder / "sites.json") == {site.name: site for site in sites}
    assert [(site.name, site.modality, len(site.cases)) for site in sites] == [("north", "H&E", 6), ("south", "H&E", 6)]
    assert sites[1].cases[0].label == "south/labels/s0.png"


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (7, (5, 1, 1)), (25, (16, 4, 5)), (100, (64, 16, 20))])
def test_patients_are_split_64_16_20_and_no_part_is_empty(count, expected):
    parts = list(split_patients([str(n) for n in range(count)], "north").values())
    assert tuple(parts.count(part) for part in ("train", "val", "test")) == expected


def test_folds_are_even():
    parts = list(split_patients([str(n) for n in range(11)], "north", folds=5).values())
    assert sorted(parts.count(f"fold{k}") for k in range(5)) == [2, 2, 2, 2, 3]


def test_the_split_depends_on_seed_and_site_but_not_on_order():
    names = [str(n) for n in range(30)]
    assert split_patients(names, "north") == split_patients(reversed(names), "north")
    assert split_patients(names, "north") != split_patients(names, "north", seed=1)
    assert split_patients(names, "north") != split_patients(names, "south")


def test_another_site_changes_nothing(folder):
    before = splits(list_sites(folder))["north"]
    for number in range(3):
        save_pair(folder / "east", str(number), 200 + number)
    assert splits(list_sites(folder))["north"] == before


def test_an_unseen_site_is_for_testing_only(folder):
    north, south = list_sites(folder, unseen=["south"], folds=3)
    assert south.unseen
    assert north.folds == 3


def test_a_share_of_the_training_patients(folder):
    for number in range(10):
        save_pair(folder / "east", str(number), 200 + number)
    whole, half, least = (splits(list_sites(folder, train_share=share))["east"] for share in (1.0, 0.5, 0.01))
    assert [list(parts.values()).count("train") for parts in (whole, half, least)] == [6, 3, 1]
    assert least.items() <= half.items() <= whole.items()
    assert all(part == "train" for case, part in whole.items() if case not in least)


@pytest.mark.parametrize(("wrong", "folds"), [(0, 0), (1.5, 0), (-1, 0), (0.5, 5)])
def test_a_share_that_cannot_be(folder, wrong, folds):
    with pytest.raises(UserError, match=f"train share {wrong}"):
        list_sites(folder, folds=folds, train_share=wrong)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cases.csv", "site,image,patient\n{rows}"),
        ("manifest.csv", "domain,name,case,note\n{rows}"),
        ("cases.csv", "\ufeffPatient;Site;Image\n{swapped}"),
    ],
)
def test_a_table_says_who_the_patients_are(folder, name, text):
    rows = [(site, f"{site[0]}{n}.png", f"p{n // 2}") for site in ("north", "south") for n in range(6)]
    lines = {"rows": [",".join(row) for row in rows], "swapped": [";".join((row[2], *row[:2])) for row in rows]}
    (folder / name).write_text(text.format(**{key: "\n".join(value) for key, value in lines.items()}), encoding="utf-8")
    for site in list_sites(folder):
        assert {case.patient for case in site.cases} == {"p0", "p1", "p2"}
        assert all(len(site.split(part)) == 2 for part in ("train", "val", "test"))


def test_a_table_may_name_the_image_by_its_case_column(folder):
    rows = "\n".join(f"{site},{site[0]}{n}" for site in ("north", "south", "a site not here") for n in range(6))
    (folder / "manifest.csv").write_text(f"site,case\n{rows}")
    assert {case.patient for case in list_sites(folder)[0].cases} == {f"n{n}" for n in range(6)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2", "no column site or domain"),
        ("", "no header"),
        ("site,image,patient\nnorth,n0,", "line 2 lacks its"),
        ("site,image,patient\nnorth,n9,p", "names image 'n9' of site 'north'"),
        ("site,image,patient\nnorth,n0,p", "n1.png: not in"),
        ("site,image,patient\nnorth,n0,p\nnorth,n0,q", "second patient"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(folder, text, message):
    (folder / "table.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        list_sites(folder, cases_csv=folder / "table.csv")


def test_all_problems_are_told_at_once(folder):
    (folder / "north/masks/n0.png").unlink()
    (folder / "north/images/n1.png").unlink()
    (folder / "north/images/n2.png").write_text("no picture")
    Image.fromarray(np.full((6, 5), 128, np.uint8)).save(folder / "north/masks/n3.png")
    Image.new("L", (5, 7)).save(folder / "south/labels/s0.png")
    (folder / "south/images/s1.svs").write_text("a slide")
    with pytest.raises(UserError) as caught:
        list_sites(folder)
    for part in (
        "n0.png: no label",
        "n1.png: no image",
        "n2.png: not a read",
        "n3.png: holds",
        "s0.png: its size",
        "svs",
    ):
        assert part in str(caught.value)
    assert "6 problems" in str(caught.value)


def test_at_most_twenty_lines_are_shown(folder):
    for number in range(40):
        (folder / f"north/images/x{number}.png").write_text("")
    with pytest.raises(UserError, match="and 22 more") as caught:
        list_sites(folder)
    assert len(str(caught.value).splitlines()) == 20


def test_the_same_image_at_two_sites_is_refused(folder):
    (folder / "south/images/s0.png").write_bytes((folder / "north/images/n0.png").read_bytes())
    with pytest.raises(UserError, match="same image as"):
        list_sites(folder)


def test_a_site_without_foreground_is_refused_and_an_empty_label_warned_of(folder, caplog):
    Image.new("L", (5, 6)).save(folder / "north/masks/n0.png")
    with caplog.at_level(logging.WARNING):
        list_sites(folder)
    assert "site north: 1 of 6 labels are empty" in caplog.text
    for number in range(6):
        Image.new("L", (5, 6)).save(folder / f"north/masks/n{number}.png")
    with pytest.raises(UserError, match="no label has any foreground"):
        list_sites(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 2}, "use 3 or more"),
        ({"folds": 7}, "6 patients for 7 folds"),
        ({"unseen": ["west"]}, "no site 'west' in .*; it has north, south"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, options, message):
    with pytest.raises(UserError, match=message):
        list_sites(folder, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no cases; expected <site>/images/"),
        (lambda path: (path / "a" / "images").mkdir(parents=True), "expected images/ and either"),
        (lambda path: [(path / "a" / kind).mkdir(parents=True) for kind in ("images", "masks")], "no images; add"),
        (lambda path: [save_pair(path / "a", str(n), n) for n in range(2)], "2 patients for 3 parts"),
        (lambda path: path.rmdir(), "no such folder"),
    ],
)
def test_a_folder_without_enough_in_it_is_refused(tmp_path, make, message):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        list_sites(tmp_path / "data")


def test_progress_counts_to_the_total(folder):
    seen = []
    list_sites(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 12) for n in range(1, 13)]


def warned(caplog, folder, **options):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        list_sites(folder, **options)
    return [record.getMessage() for record in caplog.records]


def test_every_folder_that_is_not_taken_is_named_with_the_reason(folder, caplog):
    save_pair(folder / "group" / "east", "e0", 300)
    (folder / "west" / "image").mkdir(parents=True)
    (folder / "scans").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "flat").mkdir()
    (folder / "flat" / "a.png").write_bytes(b"")
    (folder / "notes.txt").write_text("a file is no folder")
    said = warned(caplog, folder)
    assert [line.split(":")[0].rpartition("/")[2] for line in said] == [".hidden", "flat", "group", "scans", "west"]
    reason = "not taken for a site, expected images/ and labels/ or masks/ in it, got"
    for line, held in zip(said[1:], ["files: 1", "east/", "nothing", "image/"], strict=True):
        assert line.endswith(f"{reason} {held}")
    assert "begins with a dot" in said[0]


def test_a_folder_that_is_itself_a_site_is_told_what_was_expected(tmp_path):
    save_pair(tmp_path, "a", 0)
    with pytest.raises(UserError) as caught:
        list_sites(tmp_path)
    for name in ("images", "masks"):
        assert f"{tmp_path / name}: not taken for a site" in str(caught.value)


def test_names_of_several_images_of_one_patient_are_warned_of(folder, caplog):
    for number in range(6):
        save_pair(folder / "east", f"P{number // 2}_{'ab'[number % 2]}", 400 + number)
    (said,) = warned(caplog, folder)
    assert said.startswith(f"{folder / 'east'}: 6 files look like several images of one patient, such as P0_a and P0_b")
    assert warned(caplog, folder, unseen=["east"]) == []  # nothing is split there
    sites = {"north": "n{}", "south": "s{}"}
    rows = [(site, name.format(n), n) for site, name in sites.items() for n in range(6)]
    rows += [("east", f"P{n // 2}_{'ab'[n % 2]}", n // 2) for n in range(6)]
    (folder / "cases.csv").write_text("\n".join(["site,image,patient", *(f"{a},{b},{c}" for a, b, c in rows)]))
    assert warned(caplog, folder) == []

"""Site lists: what is written is read, and what is unsound is refused with a way out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbcs_monai.data.sites import Case, SiteData, read_sites, sha256, verify, write_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.names import checked_site_name, is_site_name


def make_site(root: Path, name: str = "north", splits: tuple[str, ...] = ("train", "val", "test")) -> SiteData:
    cases = []
    for number, split in enumerate(splits):
        paths = {kind: root / name / kind / f"{number}.png" for kind in ("image", "label")}
        for kind, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} {kind} {number}")
        image, label = (path.relative_to(root).as_posix() for path in paths.values())
        digests = {kind: sha256(path) for kind, path in paths.items()}
        cases.append(Case(f"patient{number}", image, label, split, digests))
    return SiteData(name, "H&E", root, tuple(cases))


@pytest.fixture
def listed(tmp_path):
    """A sound site list on disk and its content."""
    path = tmp_path / "sites.json"
    write_sites(path, [make_site(tmp_path)], "nuclei")
    return path, json.loads(path.read_text())


def test_what_is_written_is_read(tmp_path):
    sites = [make_site(tmp_path), make_site(tmp_path, "süd", ("test", "test"))]
    write_sites(tmp_path / "sites.json", sites, "nuclei")
    assert read_sites(tmp_path / "sites.json") == {site.name: site for site in sites}


def test_list_and_data_below_it_move_together(tmp_path):
    (tmp_path / "old").mkdir()
    write_sites(tmp_path / "old" / "sites.json", [make_site(tmp_path / "old")], "nuclei")
    (tmp_path / "old").rename(tmp_path / "new")
    item = read_sites(tmp_path / "new" / "sites.json")["north"].items("val")[0]
    assert item["image"] == str(tmp_path / "new/north/image/1.png")


def test_a_root_elsewhere_is_written_in_full(tmp_path):
    write_sites(tmp_path / "lists" / "sites.json", [make_site(tmp_path / "data")], "nuclei")
    assert json.loads((tmp_path / "lists" / "sites.json").read_text())["root"] == str(tmp_path / "data")
    assert read_sites(tmp_path / "lists" / "sites.json")["north"].cases


def test_items_name_files_and_a_case_without_patient_data(tmp_path):
    site = make_site(tmp_path)
    (item,) = site.items("train")
    assert item == {
        "image": str(tmp_path / "north/image/0.png"),
        "label": str(tmp_path / "north/label/0.png"),
        "case": sha256(tmp_path / "north/image/0.png")[:8],
        "sha256": {kind: sha256(tmp_path / f"north/{kind}/0.png") for kind in ("image", "label")},
    }


def test_every_fold_is_tested_once_and_parts_never_meet(tmp_path):
    site = make_site(tmp_path, splits=("fold0", "fold1", "fold2", "fold3", "fold0"))
    tested = []
    for fold in range(4):
        parts = [{case.patient for case in site.split(part, fold)} for part in ("train", "val", "test")]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 5
        tested += parts[2]
    assert sorted(tested) == [f"patient{n}" for n in range(5)]


def test_validation_takes_the_next_fold(tmp_path):
    site = make_site(tmp_path, splits=("fold0", "fold1", "fold2"))
    assert [site.split(part, 2)[0].split for part in ("train", "val", "test")] == ["fold1", "fold0", "fold2"]


def test_an_unseen_site_is_tested_whole_in_every_fold(tmp_path):
    site = make_site(tmp_path, splits=("test", "test"))
    assert site.unseen
    assert len(site.split("test", 3)) == 2
    assert site.split("train", 3) == ()


@pytest.mark.parametrize(
    ("splits", "part", "fold", "message"),
    [
        (("train", "val", "test"), "train", 1, "has no folds"),
        (("fold0", "fold1", "fold2"), "train", 3, "folds 0 to 2"),
        (("train", "val", "test"), "training", 0, "use one of train, val, test"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(tmp_path, splits, part, fold, message):
    with pytest.raises(UserError, match=message):
        make_site(tmp_path, splits=splits).split(part, fold)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.update(format="other"), "not a site list"),
        (lambda c: c.update(extra=1), "expected the keys"),
        (lambda c: c.pop("task"), "expected the keys"),
        (lambda c: c.update(sites={}), "must be a list"),
        (lambda c: c.update(sites=[]), "no sites"),
        (lambda c: c["sites"].append(c["sites"][0]), "listed twice"),
        (lambda c: c["sites"][0].update(cases=[]), "no cases"),
        (lambda c: c["sites"][0]["cases"][0].update(patient=7), "patient must be text"),
        (lambda c: c["sites"][0]["cases"][0].update(split="trian"), "split 'trian'"),
        (lambda c: c["sites"][0]["cases"][0].update(split="fold0"), "three or more"),
        (lambda c: c["sites"][0]["cases"][0].update(patient="patient2"), "is in train and test"),
        (lambda c: c["sites"][0]["cases"][0].update(label=None, sha256={"image": "0" * 64}), "has no label"),
        (lambda c: c["sites"][0]["cases"][0].update(image="gone.png"), "gone.png is missing"),
        (lambda c: c["sites"][0]["cases"][0]["sha256"].update(image="abc"), "64 hexadecimal digits"),
        (lambda c: c["sites"][0]["cases"].append({**c["sites"][0]["cases"][0], "patient": "x"}), "the same image"),
    ],
)
def test_an_unsound_list_is_refused_in_one_line_that_names_it(listed, spoil, message):
    path, content = listed
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        read_sites(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "not a readable site list"), ("[]", "not a site list")])
def test_a_file_that_is_no_list_is_refused(tmp_path, text, message):
    (tmp_path / "sites.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_sites(tmp_path / "sites.json")


def test_a_list_that_is_not_there_says_how_to_write_one(tmp_path):
    with pytest.raises(UserError, match="fedbcs sites"):
        read_sites(tmp_path / "sites.json")


def test_verify_names_changed_and_missing_files(tmp_path):
    site = make_site(tmp_path)
    assert verify([site]) == []
    (tmp_path / site.cases[0].image).write_text("other pixels")
    (tmp_path / str(site.cases[1].label)).unlink()
    changed, missing = verify([site])
    assert "image" in changed
    assert "has changed" in changed
    assert "is missing" in missing
    assert verify([site], checksums=False) == [missing]


def test_a_failed_write_leaves_the_old_list(tmp_path, monkeypatch, listed):
    path, _ = listed
    before = path.read_text()
    monkeypatch.setattr("os.fsync", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_sites(path, [make_site(tmp_path)], "nuclei")
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_sites_of_one_list_share_a_root(tmp_path):
    with pytest.raises(UserError, match="share one root"):
        write_sites(tmp_path / "sites.json", [make_site(tmp_path / "a"), make_site(tmp_path / "b", "south")], "nuclei")


UNSAFE = ("../evil", "/evil", "a/b", "a\\b", "a\nb", "a" * 101, "", ".", "a.", "=1", "\u202eevil")


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_cannot_be_a_file_is_refused_where_a_list_is_written_and_read(listed, tmp_path, name):
    path, content = listed
    content["sites"][0]["name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="its name is not one; use up to 100 letters") as error:
        read_sites(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="its name is not one; use up to 100 letters"):
        write_sites(tmp_path / "other.json", [replace(make_site(tmp_path / "more"), name=name)], "task")


def test_names_that_differ_in_case_alone_are_refused(tmp_path):
    sites = [replace(make_site(tmp_path, folder), name=name) for folder, name in (("a", "North"), ("b", "north"))]
    with pytest.raises(UserError, match="sites 'North', 'north' differ in case alone"):
        write_sites(tmp_path / "sites.json", sites, "task")


@settings(deadline=None)
@given(st.text(max_size=120))
def test_a_site_name_is_one_file_in_its_folder_and_one_line(name):
    if is_site_name(name):
        path = Path("folder") / f"{name}.safetensors"
        assert (path.parent, path.stem) == (Path("folder"), name)
        assert name.isprintable()
        assert len(f".{path.name}.part".encode()) < 255
    else:
        with pytest.raises(UserError):
            checked_site_name(name)

"""Datalist: one site's cases, whoever listed them."""

import json

import pytest

from fedbcs_monai.data import datalist, read_sites
from fedbcs_monai.errors import UserError


@pytest.fixture
def decathlon(tmp_path):
    """A datalist of MONAI with one training case and one unlabelled test case."""
    for name in ("a.nii.gz", "a_label.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_bytes(name.encode())
    content = {"training": [{"image": "a.nii.gz", "label": "./a_label.nii.gz"}], "test": [{"image": "b.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path / "dataset.json"


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_site_of_a_site_list_is_taken_by_name(nuclei_sites, part):
    items = read_sites(nuclei_sites)["Birch"].items(part)
    assert datalist(nuclei_sites, part, "Birch") == [
        {key: item[key] for key in item if key != "sha256"} for item in items
    ]


def test_a_list_of_one_site_needs_no_name(nuclei_sites, tmp_path):
    content = json.loads(nuclei_sites.read_text())
    content["sites"] = [site for site in content["sites"] if site["name"] == "Cedar"]
    content["root"] = str(nuclei_sites.parent)
    (tmp_path / "one.json").write_text(json.dumps(content))
    assert datalist(tmp_path / "one.json", "val") == datalist(nuclei_sites, "val", "Cedar")


def test_a_datalist_of_monai_is_read_beside_its_files(decathlon):
    (case,) = datalist(decathlon, "train")
    assert case["image"] == str(decathlon.parent / "a.nii.gz")
    assert case["label"] == str(decathlon.parent / "a_label.nii.gz")
    assert len(case["case"]) == 8
    (unlabelled,) = datalist(decathlon, "test")
    assert set(unlabelled) == {"image", "case"}


def test_several_sites_without_a_name_are_listed(nuclei_sites):
    for site in ("", "Berch"):
        with pytest.raises(UserError, match=r"which site\? It lists Alder, Birch, Cedar, Elm; name one as `site`"):
            datalist(nuclei_sites, "train", site)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": []}, "no train cases"),
        ({"test": []}, "has no 'training'; a MONAI datalist has training, validation, test"),
        ({"training": ["a.nii.gz"]}, "training 0 is 'a.nii.gz'; expected a mapping"),
        ({"training": [{"image": "gone.nii.gz"}]}, "gone.nii.gz is missing"),
        (["a.nii.gz"], "a list of cases is a mapping, got list"),
    ],
)
def test_what_is_no_datalist_says_why(tmp_path, content, message):
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        datalist(tmp_path / "list.json", "train")


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match="`fedbcs sites FOLDER` writes one"):
        datalist(tmp_path / "none.json", "train")


def test_there_are_three_parts(nuclei_sites):
    with pytest.raises(UserError, match="unknown part 'validation'"):
        datalist(nuclei_sites, "validation", "Birch")

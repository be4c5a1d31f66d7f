"""Studies: what an input names, and under which names its outputs go."""

import sys

import nibabel as nib
import numpy as np
import pytest

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.intended_input import IntendedInput
from fedbcs_monai.predict.studies import AcceptedImages, find_studies

PICTURES, VOLUMES = AcceptedImages(True), AcceptedImages(False)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(found) -> list[str]:
    return [study.name for study in found.studies]


def test_a_folder_gives_its_own_images_sorted_and_names_those_of_another_kind(tmp_path):
    touch(tmp_path, "b.PNG", "a.tif", ".hidden.png", "notes.txt", "c.nii.gz", "deeper/d.png")
    found = find_studies([tmp_path], PICTURES)
    assert names(found) == ["a", "b"]
    assert found.skipped == ["c.nii.gz"]


@pytest.mark.parametrize(
    ("there", "given", "wanted", "said"),
    [
        (["a.nii.gz"], ".", PICTURES, "holds only others, such as a.nii.gz; this model segments pictures"),
        (["a.txt"], ".", PICTURES, "holds no image; this model segments pictures"),
        (["a.nii.gz"], "a.nii.gz", PICTURES, "a.nii.gz: this model segments pictures"),
        (["a.dcm"], "a.dcm", PICTURES, "a.dcm: this model segments pictures"),
        (["a.png"], "a.png", VOLUMES, r"a.png: this model segments volumes \(.*, or DICOM\)"),
        ([], "there is none.png", PICTURES, "no such file or folder"),
        ([], "*.png", PICTURES, "nothing matches this pattern"),
        (["a.png", "A.tif"], ".", PICTURES, "A.tif and a.png would get masks of one name"),
        (["a.nii.gz", "d/a.dcm"], ".", VOLUMES, "holds 1 image files such as a.nii.gz and 1 DICOM files; name"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, there, given, wanted, said):
    touch(tmp_path, *there)
    with pytest.raises(UserError, match=said):
        find_studies([tmp_path / given], wanted)


def test_a_pair_is_one_study(tmp_path):
    nib.save(nib.Nifti1Pair(np.ones((2, 2, 2), np.int16), np.eye(4)), tmp_path / "a.img")
    for given in (".", "a.img", "a.hdr"):
        (study,) = find_studies([tmp_path / given], VOLUMES).studies
        assert (study.name, study.path.name, study.mask_suffixes[0]) == ("a", "a.hdr", ".nii.gz")


def test_patterns_and_several_inputs_give_names_that_differ(tmp_path):
    touch(tmp_path, "p1/t2.nii.gz", "p2/t2.nii.gz", "p2/t1.nii.gz")
    assert names(find_studies([f"{tmp_path}/*/t2.nii.gz"], VOLUMES)) == ["p1_t2", "p2_t2"]
    assert names(find_studies([tmp_path / "p1", tmp_path / "p2"], VOLUMES)) == ["p1_t2", "t1", "p2_t2"]
    touch(tmp_path, "x/a/t2.nii.gz", "y/a/t2.nii.gz")
    assert names(find_studies([f"{tmp_path}/**/a/t2.nii.gz"], VOLUMES)) == ["x_a_t2", "y_a_t2"]


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_names_images_relative_to_itself(tmp_path, separator):
    touch(tmp_path, "p1/t2.nii.gz", "größe 2.nii.gz")
    rows = [["Image", "name"], ["p1/t2.nii.gz", "one"], ["größe 2.nii.gz", ""]]
    (tmp_path / "studies.csv").write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    assert names(find_studies([tmp_path / "studies.csv"], VOLUMES)) == ["one", "größe 2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file\na.nii.gz", "no column image; it has file"),
        ("image\n", "names no image"),
        ("image,name\n,one", "line 2: lacks its image"),
        ("image,name\na.nii.gz,../one", "line 2: name '../one' is none for a file"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, content, said):
    (tmp_path / "studies.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        find_studies([tmp_path / "studies.csv"], VOLUMES)


def test_of_several_inputs_one_that_gives_nothing_does_not_stop_the_others(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.png", "empty/notes.txt")
    found = find_studies([f"{tmp_path}/*"], VOLUMES)
    assert names(found) == ["a"]
    assert {path.name for path in found.failed} == {"b.png", "empty"}


def test_a_dicom_study_is_named_by_its_folder_or_file(tmp_path, made):
    tree = tmp_path / "study 7"
    made.save(made.slices(made.voxels()), tree / "x")
    made.save(made.slices(made.voxels(), [1, 0, 0, 0, 0, -1], "1.2.3.4.8", 7), tree / "y", "slice")
    axial = AcceptedImages(False, IntendedInput("MR", "axial"))
    assert names(find_studies([tree], axial)) == ["study 7"]
    assert names(find_studies([tree], axial, ["all"])) == ["study 7_4", "study 7_7"]
    assert names(find_studies([tree / "x" / "im000.dcm"], axial)) == ["im000"]
    (tmp_path / "studies.csv").write_text("image,name,series\nstudy 7,first,7\nstudy 7,second,4")
    found = find_studies([tmp_path / "studies.csv"], axial)
    assert [(study.name, study.series.number) for study in found.studies] == [("first", "7"), ("second", "4")]
    touch(tree, "label.nii.gz")
    with pytest.raises(UserError, match=r"holds 1 image files such as label.nii.gz and 10 DICOM files"):
        find_studies([tree], axial)


def test_a_file_without_an_ending_is_known_as_dicom_by_its_content(tmp_path, made):
    folder = made.save(made.slices(made.voxels()), tmp_path / "series")
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(""))
    assert len(find_studies([folder], VOLUMES).studies[0].series.files) == 5


@pytest.mark.parametrize(
    ("module", "room", "given", "said"),
    [
        ("pydicom", "dicom.series", "a.dcm", r"DICOM needs pydicom: pip install 'fedbcs-monai\[dicom\]'"),
        ("tifffile", "large_image.tiff", "a.tif", r"large TIFF needs tifffile: pip install 'fedbcs-monai\[tiff\]'"),
    ],
)
def test_what_an_extra_is_needed_for_is_said_with_the_command(tmp_path, monkeypatch, module, room, given, said):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"fedbcs_monai.predict.{room}", raising=False)
    (tmp_path / given).write_bytes(bytes(2**24 + 1))
    with pytest.raises(UserError, match=said):
        find_studies([tmp_path / given], AcceptedImages(given.endswith("tif"))).studies[0].read()

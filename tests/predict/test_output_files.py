"""Outputs: all or none."""

from pathlib import Path

import pytest

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.output_files import stem, together


def test_files_appear_when_the_block_ends_well(tmp_path):
    with together(tmp_path / "new") as part:
        for name in ("a", "b"):
            part(tmp_path / "new" / name).write_text(name)
        assert all(path.name.startswith(".") for path in (tmp_path / "new").iterdir())
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {"a": "a", "b": "b"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_none_appears_when_it_does_not(tmp_path, error):
    with pytest.raises(error), together(tmp_path) as part:
        part(tmp_path / "a").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_none_appears_when_one_was_announced_and_not_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"), together(tmp_path) as part:
        part(tmp_path / "a").write_text("a")
        part(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b.nii.gz", "a.b"), ("A.NRRD", "A"), ("im.dcm", "im"), ("patient.1", "patient.1"), ("IM0001", "IM0001")],
)
def test_a_stem_loses_the_ending_of_an_image_only(name, expected):
    assert stem(Path(name)) == expected

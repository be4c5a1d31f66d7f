"""Made-up sites: the same bytes every time, one grid per case, and hospitals that differ."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from fedbcs_monai.demo.synthetic import SITES, TASKS, UNSEEN, make_case, synthesise
from fedbcs_monai.demo.synthetic_nuclei import HAEMATOXYLIN, LABORATORIES, Blob, make_tile, paint
from fedbcs_monai.demo.synthetic_prostate import SCANNERS, make_volume
from fedbcs_monai.demo.synthetic_texture import noise, ramp


@pytest.fixture(scope="module", params=TASKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    synthesise(folder, request.param, cases=2, seed=3, size=64)
    return request.param, folder


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path) if path.suffix == ".png" else nibabel.load(path).dataobj)


def test_same_seed_gives_the_same_bytes(made: tuple[str, Path], tmp_path: Path) -> None:
    task, folder = made
    synthesise(tmp_path, task, cases=2, seed=3, size=64)
    assert _bytes(tmp_path) == _bytes(folder)


def test_more_cases_leave_the_first_as_they_were(made: tuple[str, Path], tmp_path: Path) -> None:
    task, folder = made
    synthesise(tmp_path, task, cases=1, seed=3, size=64)
    assert {name: data for name, data in _bytes(tmp_path).items() if name != "cases.csv"}.items() <= (
        _bytes(folder).items()
    )


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_gives_other_images(task: str) -> None:
    one, two = (make_case(task, 0, np.random.default_rng(seed), size=64).image for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_table_lists_every_file_once(made: tuple[str, Path]) -> None:
    _, folder = made
    listed = [row[column] for row in _rows(folder) for column in ("image", "label")]
    assert sorted([*listed, "cases.csv"]) == sorted(name.replace("\\", "/") for name in _bytes(folder))
    assert [row["site"] for row in _rows(folder)] == [site for site in SITES for _ in range(2)]


def test_every_case_has_an_image_and_label_on_one_grid(made: tuple[str, Path]) -> None:
    task, folder = made
    for row in _rows(folder):
        image, label = _read(folder / row["image"]), _read(folder / row["label"])
        assert image.shape == (*label.shape, 3) if task == "nuclei" else image.shape == label.shape
        assert set(np.unique(label)) == ({0, 255} if task == "nuclei" else {0, 1})


def test_volumes_say_where_they_lie_in_both_forms(tmp_path: Path) -> None:
    synthesise(tmp_path, "prostate", cases=1, size=32)
    for row in _rows(tmp_path):
        image, label = (nibabel.load(tmp_path / row[column]) for column in ("image", "label"))
        assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
        np.testing.assert_array_equal(image.affine, label.affine)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_prostate_leaves_the_first_and_last_slice_free() -> None:
    for scanner in SCANNERS:
        for seed in range(3):
            slices = make_volume(scanner, np.random.default_rng(seed), size=48).label.any(axis=(0, 1))
            assert slices.sum() >= 5
            assert not slices[0]
            assert not slices[-1]


def test_prostate_has_a_plausible_volume_in_ml() -> None:
    for scanner in SCANNERS:
        volume = make_volume(scanner, np.random.default_rng(0), size=64)
        volume_ml = volume.label.sum() * abs(np.linalg.det(volume.affine[:3, :3])) / 1000
        assert 10 < volume_ml < 90


def test_laboratories_differ_in_mean_colour_by_ten_levels() -> None:
    colours = [
        make_tile(laboratory, np.random.default_rng(0), size=128).image.mean((0, 1)) for laboratory in LABORATORIES
    ]
    for index, colour in enumerate(colours):
        for other in colours[index + 1 :]:
            assert np.abs(colour - other).max() > 10


def test_scanners_differ_in_brightness_tenfold_and_all_in_spacing() -> None:
    volumes = [make_volume(scanner, np.random.default_rng(0), size=64) for scanner in SCANNERS]
    bright = [float(np.percentile(volume.image, 99)) for volume in volumes]
    assert max(bright) > 10 * min(bright)
    assert len({tuple(np.diag(volume.affine)) for volume in volumes}) == len(SITES)


def test_every_fourth_nuclei_case_shares_its_patient_and_no_prostate_does(tmp_path: Path) -> None:
    patients = {}
    for task in TASKS:
        synthesise(tmp_path / task, task, cases=4, size=32)
        patients[task] = [row["patient"] for row in _rows(tmp_path / task) if row["site"] == UNSEEN]
    assert patients["nuclei"] == ["elm_000", "elm_001", "elm_002", "elm_002"]
    assert len(set(patients["prostate"])) == 4


def test_a_round_blob_covers_its_circle() -> None:
    disc = Blob((16.0, 16.0), 6.0, 1.0, 0.0, np.zeros(5, complex), 1.0, 0.0, 1.0, HAEMATOXYLIN, nucleus=True)
    dyes, mask = paint(np.zeros((3, 33, 33)), [disc], chromatin=np.zeros((33, 33)))
    assert mask.sum() == pytest.approx(np.pi * 36, rel=0.05)
    assert dyes[HAEMATOXYLIN, 16, 16] == 1


def test_debris_is_painted_but_not_labelled() -> None:
    crumb = Blob((4.0, 4.0), 2.0, 1.0, 0.0, np.zeros(5, complex), 1.0, 0.0, 1.0, HAEMATOXYLIN, nucleus=False)
    dyes, mask = paint(np.zeros((3, 9, 9)), [crumb], chromatin=np.zeros((9, 9)))
    assert dyes.sum() > 0
    assert not mask.any()


def test_noise_has_mean_zero_and_deviation_one() -> None:
    field = noise(np.random.default_rng(0), (64, 64), 3.0)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-5)


def test_ramp_is_half_on_the_edge() -> None:
    np.testing.assert_array_equal(ramp(np.array([-2.0, 0.0, 1.0]), width=2.0), [0.0, 0.5, 1.0])


def test_progress_hears_of_every_site(tmp_path: Path) -> None:
    heard: list[str] = []
    synthesise(tmp_path, "nuclei", cases=1, size=32, progress=heard.append)
    assert [line.split(":")[0] for line in heard] == list(SITES)


def test_unknown_task_names_the_tasks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown task 'liver'; the tasks are nuclei, prostate"):
        synthesise(tmp_path, "liver")


@pytest.mark.parametrize(("option", "value"), [("cases", 0), ("size", 16)])
def test_too_few_is_refused(tmp_path: Path, option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least"):
        synthesise(tmp_path, "nuclei", **{option: value})

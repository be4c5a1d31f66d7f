"""Segment: strip by strip a large picture gets the mask that it would get whole."""

import json

import numpy as np
import pytest
import tifffile

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict import Predictor, predict
from fedbcs_monai.predict.large_image.segment import segment_large_image
from fedbcs_monai.predict.large_image.streaming import Window

WINDOW = {"inferer::roi_size": [64, 64], "preprocessing::transforms::1::spatial_size": [64, 64]}


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 255, (203, 331, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def small_window(make_model):
    return make_model("nuclei", WINDOW)


@pytest.mark.parametrize("rows", [1, 64, 100, 112, 113, 160, 203, 1000])
def test_windows_lie_where_monai_lays_them(rows):
    from monai.data.utils import dense_patch_slices

    interval = 64 if rows == 64 else 48
    monai = dense_patch_slices((max(rows, 64), 64), (64, 64), (interval, 64))
    assert Window(64, 48).tops(rows) == sorted({slices[0].start for slices in monai})


@pytest.mark.parametrize("models", [1, 2])
def test_strips_give_the_mask_and_the_statistics_of_the_whole(tmp_path, small_window, picture, models):
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", tile=(48, 80), compression="zlib")
    predictor = Predictor([small_window / "model.safetensors", small_window / "last.safetensors"][:models], "cpu")
    whole, on_study = predictor(tmp_path / "a.tif"), []
    region = segment_large_image(predictor, tmp_path / "a.tif", tmp_path / "m.tif", tmp_path / "p.tif", on_study.append)
    assert np.array_equal(tifffile.imread(tmp_path / "m.tif") > 0, whole.mask > 0)
    assert 0.05 < whole.mask.mean() < 0.95
    assert np.abs(tifffile.imread(tmp_path / "p.tif") / 255 - whole.probability).max() < 0.003
    ours, theirs = (each["classes"]["1"] for each in (region.statistics, whole.statistics))
    assert ours.pop("mean_probability") == pytest.approx(theirs.pop("mean_probability"), abs=1e-5)
    assert ours == theirs
    assert np.array_equal(region.overview.array, picture)
    assert np.array_equal(region.mask, whole.mask)
    assert on_study == sorted(on_study)
    assert on_study[-1] == 1


def test_over_a_picture_for_a_model_that_takes_them_whole_a_window_is_slid(tmp_path, make_model, picture, monkeypatch):
    monkeypatch.setattr("fedbcs_monai.predict.large_image.streaming.WHOLE", 64)
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb")
    small = {"preprocessing::transforms::1::spatial_size": [64, 64]}
    slides = {"_target_": "SlidingWindowInferer", "roi_size": [64, 64], "overlap": 0.25}
    whole, slid = (make_model("nuclei", {**small, "inferer": one}) for one in ({"_target_": "SimpleInferer"}, slides))
    region = segment_large_image(Predictor(whole, "cpu"), tmp_path / "a.tif", tmp_path / "m.tif", None, lambda _: None)
    assert np.array_equal(region.mask, Predictor(slid, "cpu")(tmp_path / "a.tif").mask)
    assert "takes pictures whole" in region.warnings[-1]


def test_a_large_tiff_leaves_tiled_outputs_and_nothing_half_written(tmp_path, small_window, picture, monkeypatch):
    monkeypatch.setattr("fedbcs_monai.predict.large_image.tiff.LARGE", 1000)
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", tile=(48, 80))
    predict(small_window, tmp_path / "a.tif", tmp_path / "out", probability=True, device="cpu")
    endings = ("mask.tif", "probability.tif", "overlay.png", "statistics.json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", *(f"a_{end}" for end in endings)}
    assert json.loads((tmp_path / "out" / "a_statistics.json").read_text())["shape"] == [203, 331]
    with pytest.raises(UserError, match="too large for memory; `fedbcs predict` segments it strip by strip"):
        Predictor(small_window, "cpu")(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content[: len(content) - 60000])
    with pytest.raises(UserError, match=r"b.tif: "):
        predict(small_window, tmp_path / "b.tif", tmp_path / "none", device="cpu")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inferer::mode": "gaussian"}, "no sliding window of constant weight"),
        ({"inferer": {"_target_": "SaliencyInferer", "cam_name": "CAM", "target_layers": ""}}, "no sliding window"),
        (
            {"postprocessing::transforms::3": {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}},
            "postprocessing that needs the whole mask",
        ),
        (
            {"preprocessing::transforms::2": {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [99, 99]}},
            "preprocessing that changes the size",
        ),
    ],
)
def test_a_model_that_needs_the_whole_is_refused(tmp_path, make_model, picture, changes, said):
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb")
    predictor = Predictor(make_model("nuclei", {**WINDOW, **changes}), "cpu")
    with pytest.raises(UserError, match=f"a.tif: is too large for memory, and this model has {said}"):
        segment_large_image(predictor, tmp_path / "a.tif", tmp_path / "m.tif", None, lambda fraction: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]

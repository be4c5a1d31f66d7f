"""Predict: masks on the images' own grids, and what is refused before and during the work."""

import hashlib
import json
import shutil
import subprocess
import sys

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedbcs_monai.clinical import Predictor, predict
from fedbcs_monai.errors import UserError

AFFINES = {
    "oblique": np.array([[-0.58, 0.1, 0.2, 31], [-0.11, -0.55, 0.6, -12.5], [0.02, -0.2, 3.3, 5], [0, 0, 0, 1]]),
    "flipped": np.array([[1.25, 0, 0, -80], [0, -0.5, 0, 90], [0, 0, -3.6, 40], [0, 0, 0, 1]]),
    "turned": np.array([[0, 0, 3.0, -20], [0.5, 0, 0, 7], [0, -0.7, 0, 1], [0, 0, 0, 1]]),
}


def box(shape=(20, 32, 5)) -> np.ndarray:
    """An L in a corner, which no flip or turn maps onto itself."""
    inside = np.zeros(shape, bool)
    inside[2:6, 3:20, 1:3] = True
    inside[2:14, 3:8, 1:3] = True
    return inside


def volume(inside=None, affine=AFFINES["oblique"], code=1) -> nib.Nifti1Image:
    """An MRI: bright where `inside` is true."""
    inside = box() if inside is None else inside
    made = nib.Nifti1Image(np.where(inside, 1000, 10).astype(np.int16), affine)
    made.set_sform(affine, code)
    made.set_qform(affine, 0)
    return made


def picture(height=30, width=50) -> np.ndarray:
    """An H&E picture: a bright bar at the lower left."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[height - 6 : height - 2, 3:20] = 220
    return pixels


def save_picture(path, **size):
    """Write a picture."""
    Image.fromarray(picture(**size)).save(path)
    return path


def dice(first, second) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("name", AFFINES)
def test_a_mask_lies_on_what_the_network_saw(tmp_path, models, bright, name):
    nib.save(volume(affine=AFFINES[name]), tmp_path / "a.nii.gz")
    (path,) = predict(models["prostate"], tmp_path / "a.nii.gz", tmp_path / "out")
    mask, image = nib.load(path), nib.load(tmp_path / "a.nii.gz")
    assert mask.shape == image.shape
    assert np.abs(mask.affine - image.affine).max() < 1e-6
    assert dice(np.asarray(mask.dataobj) > 0, box()) > 0.97


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_itk_files_give_the_same_voxels_as_nifti(tmp_path, models, bright, suffix):
    image = itk.image_from_array(np.ascontiguousarray(np.where(box(), 1000, 10).astype(np.int16).T))
    image.SetSpacing([0.5, 0.6, 3.0])
    itk.imwrite(image, str(tmp_path / f"a.{suffix}"))
    (path,) = predict(models["prostate"], tmp_path / f"a.{suffix}", tmp_path / "out")
    assert path.name == f"a_mask.{suffix}"
    assert dice(itk.array_from_image(itk.imread(str(path))).T > 0, box()) > 0.97
    row = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"][0]
    assert row["classes"]["1"]["volume_ml"] == pytest.approx(box().sum() * 0.9 / 1000, rel=0.05)


@pytest.mark.parametrize(
    "size", [{"height": 30, "width": 50}, {"height": 300, "width": 270}, {"height": 7, "width": 21}]
)
def test_a_picture_s_mask_has_its_rows_and_columns(tmp_path, models, bright, size):
    image = save_picture(tmp_path / "a.png", **size)
    (path,) = predict(models["nuclei"], image, tmp_path / "out")
    with Image.open(path) as mask:
        assert np.array_equal(np.asarray(mask) == 255, picture(**size)[..., 1] == 220)


@pytest.mark.parametrize("shape", [(1, 4, 1), (3, 3, 2)])
def test_tiny_volumes_pass_through_the_real_network(tmp_path, models, shape):
    nib.save(nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), np.eye(4)), tmp_path / "a.nii")
    prediction = Predictor(models["prostate"], device="cpu")(tmp_path / "a.nii")
    assert prediction.mask.shape == shape
    assert prediction.mask.dtype == np.uint8
    assert prediction.spacing_mm == (1, 1, 1)


def test_a_folder_gives_masks_outlines_and_one_summary(tmp_path, models):
    inputs, done = tmp_path / "Bilder für Ω 1", []
    inputs.mkdir()
    for name in ("b c.png", "größe.jpg"):
        save_picture(inputs / name)
    nib.save(volume(), inputs / "mri.nii.gz")
    out = tmp_path / "ma sk"
    masks = predict(models["nuclei"], inputs, out, progress=lambda n, of: done.append((n, of)))
    assert masks == [out / "b c_mask.png", out / "größe_mask.png"]
    expected = {"b c_mask.png", "b c_overlay.png", "größe_mask.png", "größe_overlay.png", "predictions.json"}
    assert {path.name for path in out.iterdir()} == expected
    assert done == [(0, 2), (1, 2), (2, 2)]
    summary = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert (
        summary["model"]["sha256"] == hashlib.sha256((models["nuclei"] / "model.safetensors").read_bytes()).hexdigest()
    )
    assert [row["image"] for row in summary["images"]] == ["b c.png", "größe.jpg"]
    assert summary["skipped"] == ["mri.nii.gz"]
    assert str(tmp_path) not in json.dumps(summary)


def test_one_broken_file_does_not_keep_the_others(tmp_path, models):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in ("a.png", "c.png"):
        save_picture(inputs / name)
    (inputs / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of 3 failed:\n.*b\.png: not a readable picture"):
        predict(models["nuclei"], inputs, out, overlay=False)
    assert {path.name for path in out.iterdir()} == {"a_mask.png", "c_mask.png", "predictions.json"}
    assert list(json.loads((out / "predictions.json").read_text())["failed"]) == ["b.png"]


def test_nothing_is_overwritten_unless_asked_and_then_nothing_old_stays(tmp_path, models):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in ("a.png", "b.png"):
        save_picture(inputs / name)
    predict(models["nuclei"], inputs, out)
    (out / "a_mask.png").unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match=r"and 3 more: already there; replace with --overwrite"):
        predict(models["nuclei"], inputs, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (inputs / "b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.png"):
        predict(models["nuclei"], inputs, out, overwrite=True, overlay=False)
    assert {path.name for path in out.iterdir()} == {"a_mask.png", "predictions.json"}


def test_one_image_may_name_its_mask(tmp_path, models):
    nib.save(volume(), tmp_path / "a.nii.gz")
    predict(models["prostate"], tmp_path / "a.nii.gz", tmp_path / "new" / "x.nii")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"x.nii", "x_overlay.png", "x.json"}


@pytest.mark.parametrize(
    ("task", "inputs", "output", "said"),
    [
        ("nuclei", "a.nii.gz", "out", "a.nii.gz: this model segments pictures"),
        ("prostate", "a.png", "out", "a.png: this model segments volumes"),
        ("prostate", "a.nii.gz", "out.png", r"out.png: the mask of a.nii.gz is written as .nii.gz or .nii"),
        ("nuclei", "a.png", "a.png", "is the image itself"),
        ("nuclei", ".", ".", "holds the images; name another folder"),
        ("nuclei", "a.png", "a.txt", "is a file; name a folder"),
        ("nuclei", "a.png", "a.txt/out", "cannot be made a folder"),
    ],
)
def test_inputs_and_outputs_that_make_no_sense_are_refused(tmp_path, models, task, inputs, output, said):
    nib.save(volume(), tmp_path / "a.nii.gz")
    save_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=said):
        predict(models[task], tmp_path / inputs, tmp_path / output, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", "a.png", "a.txt"}


def nan(image):
    return nib.Nifti1Image(np.where(box(), np.nan, 1).astype(np.float32), image.affine)


def singular(image):
    affine = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nan, "NaN or infinite"),
        (singular, "singular"),
        (lambda image: nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), image.affine), "every voxel is 1"),
        (lambda image: volume(code=0), "no orientation"),
    ],
)
def test_unsound_volumes_are_refused_by_name(tmp_path, models, spoil, said):
    nib.save(spoil(volume()), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match=f"a.nii.gz: .*{said}"):
        predict(models["prostate"], tmp_path / "a.nii.gz", tmp_path / "out")


def test_which_model_and_a_file_of_weights_can_be_chosen(tmp_path, models):
    folder = models["nuclei"]
    image = save_picture(tmp_path / "a.png")
    by_folder, by_file = Predictor(folder, "cpu"), Predictor(folder / "model.safetensors", "cpu")
    assert np.array_equal(by_folder(image).mask, by_file(image).mask)
    assert by_folder.sha256 != Predictor(folder, "cpu", which="last").sha256
    with pytest.raises(UserError, match="choose one of selected, last"):
        Predictor(folder, "cpu", which="best")
    with pytest.raises(UserError, match="is one model"):
        Predictor(folder / "model.safetensors", "cpu", which="last")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_unfinished_run_is_no_model(tmp_path, models, missing):
    shutil.copytree(models["nuclei"], tmp_path / "run")
    (tmp_path / "run" / missing).unlink()
    with pytest.raises(UserError, match=f"{missing}: no .* of a model there"):
        Predictor(tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"rubbish that is long enough", None])
def test_weights_that_do_not_fit_are_refused(tmp_path, models, content):
    shutil.copytree(models["nuclei"], tmp_path / "run")
    if content is None:
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        config["network_def"]["features"] = [16] * 5
        (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    else:
        (tmp_path / "run" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors: .*weights"):
        Predictor(tmp_path / "run", "cpu")


def test_a_run_without_what_prediction_needs_is_refused(tmp_path, models):
    shutil.copytree(models["nuclei"], tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(UserError, match=r"lacks .*network_def"):
        Predictor(tmp_path / "run", "cpu")


def test_importing_does_not_load_clustering():
    code = "import sys, fedbcs_monai.clinical; sys.exit('finch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0

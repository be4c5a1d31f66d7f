"""Predict: masks on the images' own grids, and what is refused before and during the work."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict import Predictor, predict
from fedbcs_monai.predict.images import content_of
from fedbcs_monai.runs.model_io import load_trained

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
    row = json.loads((tmp_path / "out" / "a_statistics.json").read_text())
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
    endings = ("mask.png", "overlay.png", "statistics.json")
    expected = {"report.html", *(f"{name}_{ending}" for name in ("b c", "größe") for ending in endings)}
    assert {path.name for path in out.iterdir()} == expected
    assert done == [(0, 2), (1, 2), (2, 2)]
    row = json.loads((out / "größe_statistics.json").read_text(encoding="utf-8"))
    weights = (models["nuclei"] / "model.safetensors").read_bytes()
    assert row["models"][0]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert row["image"] == "größe.jpg"
    assert row["files"]["mask"] == "größe_mask.png"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "mri.nii.gz" in page
    assert page.count("data:image/jpeg") == 2
    assert str(tmp_path) not in json.dumps(row) + page


def test_one_broken_file_does_not_keep_the_others(tmp_path, models):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in ("a.png", "c.png"):
        save_picture(inputs / name)
    (inputs / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of 3 failed:\n.*b\.png: not a readable picture"):
        predict(models["nuclei"], inputs, out, overlay=False)
    done = {f"{name}_{ending}" for name in "ac" for ending in ("mask.png", "statistics.json")}
    assert {path.name for path in out.iterdir()} == {"report.html", *done}
    page = (out / "report.html").read_text()
    assert re.search("2 segmented, . with warnings, 1 failed", page)
    assert "not a readable picture" in page
    assert str(tmp_path) not in page


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no file that refuses to be read")
def test_a_file_that_cannot_be_read_does_not_keep_the_others(tmp_path, models):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    nib.save(volume(), inputs / "a.nii.gz")
    (inputs / "b.nii.gz").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"1 of 2 failed:\n.*b\.nii\.gz: cannot be read"):
        predict(models["prostate"], inputs, out, device="cpu")
    assert (out / "a_mask.nii.gz").exists()
    (inputs / "IM0001").symlink_to("/proc/self/mem")  # it may be a slice of a series
    with pytest.raises(UserError, match=r"IM0001: cannot be read"):
        predict(models["prostate"], inputs, out, device="cpu", overwrite=True)


def test_a_tiff_that_is_none_does_not_keep_the_others(tmp_path, models):
    inputs = tmp_path / "in"
    inputs.mkdir()
    save_picture(inputs / "a.png")
    (inputs / "b.tif").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of 2 failed:\n.*b\.tif: not a readable picture"):
        predict(models["nuclei"], inputs, tmp_path / "out", device="cpu")
    assert (tmp_path / "out" / "a_mask.png").exists()


class Greedy(torch.nn.Module):
    """Wants more memory than there is."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_empty(2**50)


def test_an_image_too_large_for_memory_is_named(tmp_path, models, monkeypatch):
    monkeypatch.setattr("fedbcs_monai.runs.model_io.build_network", lambda *_: Greedy())
    with pytest.raises(UserError, match=r"a\.png: does not fit into the memory of cpu; try another --device"):
        predict(models["nuclei"], save_picture(tmp_path / "a.png"), tmp_path / "out", device="cpu")


def test_nothing_is_overwritten_unless_asked_and_what_fails_then_keeps_the_old(tmp_path, models):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in ("a.png", "b.png"):
        save_picture(inputs / name)
    predict(models["nuclei"], inputs, out)
    (out / "a_mask.png").unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match=r"and 4 more: already exists; replace it with --overwrite"):
        predict(models["nuclei"], inputs, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (inputs / "b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.png"):
        predict(models["nuclei"], inputs, out, overwrite=True, overlay=False)
    kept = {name for name in before if name.startswith("b_")}
    assert {path.name for path in out.iterdir()} == {"a_mask.png", "a_statistics.json", "report.html", *kept}
    assert {name: (out / name).read_bytes() for name in kept} == {name: before[name] for name in kept}


def test_one_image_may_name_its_mask(tmp_path, models):
    nib.save(volume(), tmp_path / "a.nii.gz")
    predict(models["prostate"], tmp_path / "a.nii.gz", tmp_path / "new" / "x.nii")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *("x.nii", "x_preview.png", "x_statistics.json", "x_report.html")
    }


@pytest.mark.parametrize(
    ("task", "inputs", "output", "said"),
    [
        ("nuclei", "a.nii.gz", "out", "a.nii.gz: this model segments pictures"),
        ("prostate", "a.png", "out", "a.png: this model segments volumes"),
        ("prostate", "a.nii.gz", "out.png", r"out.png: the mask of a.nii.gz is written as .nii.gz or .nii"),
        ("nuclei", "a.png", "a.png", "is the image itself"),
        ("nuclei", ".", ".", "holds the images; name another folder"),
        ("nuclei", "a.png", "a.txt", "is a file; name a folder"),
        ("nuclei", "a.png", "a.txt/out", "cannot be a folder of outputs"),
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


def test_a_slip_in_a_name_shows_before_the_model_is_loaded(tmp_path):
    with pytest.raises(UserError, match=r"scna\.nii\.gz: there is no such file"):
        predict(tmp_path / "no model", tmp_path / "scna.nii.gz", tmp_path / "masks")


def test_which_model_and_a_file_of_weights_can_be_chosen(tmp_path, models):
    folder = models["nuclei"]
    image = save_picture(tmp_path / "a.png")
    by_folder, by_file = Predictor(folder, "cpu"), Predictor(folder / "model.safetensors", "cpu")
    assert np.array_equal(by_folder(image).mask, by_file(image).mask)
    assert by_folder.provenance()["models"] != Predictor(folder, "cpu", which="last").provenance()["models"]
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


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "damaged"), (b"rubbish that is long enough", "damaged"), (None, "not weights of")]
)
def test_weights_that_do_not_fit_are_refused(tmp_path, models, content, said):
    shutil.copytree(models["nuclei"], tmp_path / "run")
    if content is None:
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        config["network_def"]["features"] = [16] * 5
        (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    else:
        (tmp_path / "run" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=f"model.safetensors: {said}"):
        Predictor(tmp_path / "run", "cpu")


def test_a_run_without_what_prediction_needs_is_refused(tmp_path, models):
    shutil.copytree(models["nuclei"], tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(UserError, match=r"lacks .*network_def"):
        Predictor(tmp_path / "run", "cpu")


def test_importing_does_not_load_clustering():
    code = "import sys, fedbcs_monai.predict; sys.exit('finch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def predicted(models, made, folder, out, **options):
    predict(models["prostate"], folder, out, device="cpu", **options)
    return {path.name: path for path in out.iterdir()}


def test_dicom_and_nifti_of_one_scan_give_the_same_mask(tmp_path, models, made):
    folder = made.save(made.slices(made.voxels()), tmp_path / "study 1")
    by_dicom = Predictor(models["prostate"], "cpu")(folder)
    (tmp_path / "a.nii.gz").write_bytes(content_of(by_dicom.source.array, by_dicom.source, ".nii.gz"))
    by_nifti = Predictor(models["prostate"], "cpu")(tmp_path / "a.nii.gz")
    assert by_dicom.mask.any()
    assert np.array_equal(by_dicom.mask, by_nifti.mask)
    assert np.array_equal(by_dicom.probability, by_nifti.probability)
    assert np.abs(by_dicom.affine - by_nifti.affine).max() < 1e-6
    assert by_dicom.statistics["classes"]["1"].keys() >= {"volume_ml", "components", "bounding_box", "mean_probability"}


def test_a_dicom_study_leaves_every_product_and_names_the_patient_only_in_dicom(tmp_path, models, made, bright):
    folder, out = made.save(made.slices(made.voxels()), tmp_path / "study 1"), tmp_path / "out"
    types = ["nifti", "dicom_seg", "dicom_rtstruct"]
    files = predicted(models, made, folder, out, types=types, probability=True)
    endings = ["mask.nii.gz", "seg.dcm", "rtstruct.dcm", "probability.nii.gz", "preview.png", "statistics.json"]
    assert files.keys() == {"report.html", *(f"study 1_{ending}" for ending in endings)}
    mask = nib.load(files["study 1_mask.nii.gz"])
    assert np.abs(mask.affine - made.geometry()).max() < 1e-6
    assert [int(mask.header[code]) for code in ("sform_code", "qform_code")] == [1, 0]
    assert mask.header.get_xyzt_units()[0] == "mm"
    assert dice(np.asarray(mask.dataobj) > 0, box()) > 0.97
    probability = np.asarray(nib.load(files["study 1_probability.nii.gz"]).dataobj)
    assert np.array_equal(probability > 0.5, np.asarray(mask.dataobj) > 0)
    modalities = {pydicom.dcmread(path).Modality for name, path in files.items() if name.endswith(".dcm")}
    assert modalities == {"SEG", "RTSTRUCT"}
    for name, path in files.items():
        content = path.read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
        named = [word for word in (b"Doe", b"Jane", b"HOSP-4711", b"19500101", b"Elsewhere") if word in content]
        assert bool(named) == name.endswith(".dcm"), name


def test_several_series_are_asked_about_or_named_by_number(tmp_path, models, made):
    tree = tmp_path / "patient"
    made.save(made.slices(made.voxels()), tree / "a")
    made.save(made.slices(made.voxels(seed=1), series="1.2.3.4.8", number=7), tree / "b")
    with pytest.raises(UserError, match="holds 2 DICOM series"):
        predicted(models, made, tree, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert "patient_mask.nii.gz" in predicted(models, made, tree, tmp_path / "one", series=["7"])
    both = predicted(models, made, tree, tmp_path / "both", series=["all"])
    assert {"patient_4_mask.nii.gz", "patient_7_mask.nii.gz"} <= both.keys()
    assert json.loads(both["patient_7_statistics.json"].read_text())["series"] == "7"


def test_a_bundle_takes_the_series_that_it_was_made_for(tmp_path, models, made):
    bundle, tree = tmp_path / "bundle", tmp_path / "patient"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    weights = load_trained(models["prostate"], device="cpu").network.state_dict()
    torch.save(weights, bundle / "models" / "model.pt")
    shutil.copyfile(models["prostate"] / "config.json", bundle / "configs" / "train.json")
    image = {"modality": "MR", "orientation": "axial"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": {"inputs": {"image": image}}}))
    made.save(made.slices(made.voxels()), tree / "t2 axial")
    coronal = [1, 0, 0, 0, 0, -1]
    made.save(made.slices(made.voxels(seed=1), coronal, "1.2.3.4.7", 6), tree / "t2 coronal")
    localizer = made.slices(made.voxels(seed=2), series="1.2.3.4.8", number=1)
    localizer[0].ImageOrientationPatient = coronal
    made.save(localizer, tree / "localizer")
    predict(bundle, tree, tmp_path / "out", device="cpu")
    row = json.loads((tmp_path / "out" / "patient_statistics.json").read_text())
    assert row["series"] == "4"
    with pytest.raises(UserError, match="holds 3 DICOM series; 2 of them may be meant"):
        predict(models["prostate"], tree, tmp_path / "none", device="cpu")


def test_a_segmentation_of_images_that_nothing_can_refer_to_is_refused_and_nothing_written(tmp_path, models, made):
    images = made.slices(made.voxels())
    for n, image in enumerate(images):
        image.FrameOfReferenceUID = f"1.2.3.{n}"
    folder = made.save(images, tmp_path / "study")
    with pytest.raises(UserError, match="different frames of reference: nothing can refer to them all; write NIfTI"):
        predicted(models, made, folder, tmp_path / "out", types=["dicom_seg"])
    assert not (tmp_path / "out").exists()
    files = predicted(models, made, folder, tmp_path / "out")
    assert "5 frames of reference" in files["study_statistics.json"].read_text()


@pytest.mark.parametrize("types", [["dicom_seg"], ["dicom_rtstruct"], ["tiff"], []])
def test_types_that_an_image_cannot_have_are_refused_before_any_work(tmp_path, models, types):
    nib.save(volume(), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match=r"DICOM series|choose from"):
        predict(models["prostate"], tmp_path / "a.nii.gz", tmp_path / "out", types=types)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_call_goes_on_where_it_was(tmp_path, models):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        save_picture(inputs / name)

    def interrupt(name, row):
        if name == "b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(models["nuclei"], inputs, out, on_study=interrupt)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert before.keys() == {f"{name}_{end}" for name in "ab" for end in ("mask.png", "overlay.png", "statistics.json")}
    on_study = []
    predict(models["nuclei"], inputs, out, resume=True, on_study=lambda name, row: on_study.append(name))
    assert on_study == ["c"]
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in out.iterdir()}.items()
    assert "3 segmented" in (out / "report.html").read_text()
    with pytest.raises(UserError, match=r"a_statistics.json: is of another model"):
        predict(models["nuclei"], inputs, out, resume=True, which="last")


def test_what_fails_half_way_leaves_nothing(tmp_path, models, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr("fedbcs_monai.predict.outputs.overlay", fail)
    nib.save(volume(), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match="No space left on device"):
        predict(models["prostate"], tmp_path / "a.nii.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mine", [False, True], ids=["new folder", "folder that was there"])
def test_a_file_that_alone_is_broken_leaves_the_output_as_it_was(tmp_path, models, mine):
    (tmp_path / "b.png").write_bytes(b"no picture")
    out = tmp_path / "new" / "out"
    if mine:
        out.mkdir(parents=True)
    with pytest.raises(UserError, match=r"b\.png: not a readable picture"):
        predict(models["nuclei"], tmp_path / "b.png", out)
    assert out.exists() == (tmp_path / "new").exists() == mine


def test_an_ensemble_of_one_model_twice_is_the_model(tmp_path, models):
    image, model = save_picture(tmp_path / "a.png"), models["nuclei"]
    one, twice = Predictor(model, "cpu")(image), Predictor([model, model], "cpu")(image)
    assert np.array_equal(one.probability, twice.probability)


def test_an_ensemble_averages_probabilities(tmp_path, models):
    image = save_picture(tmp_path / "a.png")
    first, last = (Predictor(models["nuclei"], "cpu", which)(image) for which in ("selected", "last"))
    files = [models["nuclei"] / name for name in ("model.safetensors", "last.safetensors")]
    both = Predictor(files, "cpu")(image)
    assert np.allclose(both.probability, (first.probability + last.probability) / 2, atol=1e-6)
    assert np.array_equal(both.mask, both.probability > 0.5)
    with pytest.raises(UserError, match="ensemble"):
        Predictor([models["nuclei"], models["prostate"]], "cpu")


def test_mirror_images_are_averaged_and_a_symmetric_image_gets_a_symmetric_mask(tmp_path, models):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    pixels = np.maximum(pixels, pixels[:, ::-1])
    Image.fromarray(np.maximum(pixels, pixels[::-1])).save(tmp_path / "a.png")
    plain, mirrored = (Predictor(models["nuclei"], "cpu", tta=tta)(tmp_path / "a.png") for tta in (False, True))
    assert np.allclose(mirrored.probability, mirrored.probability[::-1, ::-1], atol=1e-6)
    assert not np.allclose(plain.probability, plain.probability[::-1, ::-1], atol=1e-6)


def test_mirroring_changes_nothing_for_a_network_that_looks_at_single_pixels(tmp_path, models, bright):
    nib.save(volume(), tmp_path / "a.nii.gz")
    plain, mirrored = (Predictor(models["prostate"], "cpu", tta=tta)(tmp_path / "a.nii.gz") for tta in (False, True))
    assert np.allclose(plain.probability, mirrored.probability, atol=1e-5)


def test_the_largest_component_is_kept_where_the_model_says_so(tmp_path, make_model, bright):
    keep = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]}
    sizes = {"preprocessing::transforms::2::spatial_size": [40, 64, -1]}
    model = make_model("prostate", {**sizes, "postprocessing::transforms::3": keep})
    inside = box()
    inside[16:18, 26:28, 3:5] = True
    nib.save(volume(inside), tmp_path / "a.nii.gz")
    prediction = Predictor(model, "cpu")(tmp_path / "a.nii.gz")
    assert prediction.statistics["classes"]["1"]["components"] == 1
    assert dice(prediction.mask > 0, box()) > 0.97
    assert (prediction.probability > 0.5)[16, 26, 3]

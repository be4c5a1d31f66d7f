"""One bad study never costs another, nor its own other outputs, and nothing that was there before."""

import json
import os
import sys
import warnings

import numpy as np
import pydicom
import pytest
from PIL import Image

from fedbcs_monai.cli import main
from fedbcs_monai.errors import UserError
from fedbcs_monai.predict import predict
from fedbcs_monai.predict.output_files import together
from fedbcs_monai.predict.predictor import Predictor
from fedbcs_monai.predict.studies_to_masks import PartlyFailed


def pictures(folder, *names):
    folder.mkdir(exist_ok=True)
    for n, name in enumerate(names):
        pixels = np.random.default_rng(n).integers(0, 255, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(os.fsencode(folder / name), "PNG")
    return folder


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def failing(monkeypatch):
    """Makes the segmentation of the study ``b`` raise an error that quotes a patient."""
    segment = Predictor.segment

    def arrange(error):
        def fail(predictor, source):
            if source.path.name.startswith("b"):
                raise error
            return segment(predictor, source)

        monkeypatch.setattr(Predictor, "segment", fail)

    return arrange


@pytest.mark.parametrize(
    "error", [RuntimeError("Doe^Jane"), MemoryError(), KeyError("Doe^Jane"), OSError(28, "No space left on device")]
)
def test_whatever_happens_to_one_study_is_one_line_and_the_others_go_on(tmp_path, models, failing, error):
    inputs, out = pictures(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    failing(error)
    with pytest.raises(PartlyFailed) as raised:
        predict(models["nuclei"], inputs, out, device="cpu")
    summary, line = str(raised.value).splitlines()
    assert summary == "1 of 3 failed:"
    assert line.startswith(f"{inputs / 'b.png'}: ")
    assert "Doe^Jane" not in line
    assert raised.value.written == [out / "a_mask.png", out / "c_mask.png"]
    page = (out / "report.html").read_text()
    assert "2 segmented" in page
    assert "1 failed" in page
    assert "Doe^Jane" not in page


def test_masks_of_the_others_are_named_when_one_fails(tmp_path, models, failing, capsys):
    inputs, out = pictures(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    failing(RuntimeError("?"))
    assert main(["predict", str(models["nuclei"]), "-i", str(inputs), "-o", str(out), "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert f"wrote: {out}/a_mask.png" in said.out.splitlines()
    assert "b.png: failed with RuntimeError at test_failing.py:" in said.err


def test_a_mask_as_nifti_is_kept_where_there_can_be_no_seg(tmp_path, models, made):
    unfit = made.slices(made.voxels())
    for n, image in enumerate(unfit):
        image.FrameOfReferenceUID = f"1.2.3.{n}"
    made.save(unfit, tmp_path / "p1")
    made.save(made.slices(made.voxels()), tmp_path / "p2")
    out, types = tmp_path / "out", ["dicom_seg", "nifti"]
    with pytest.raises(PartlyFailed, match=r"1 of 2 failed:\n.*p1: no dicom_seg: .*frames of reference") as raised:
        predict(models["prostate"], [tmp_path / "p1", tmp_path / "p2"], out, types=types, device="cpu")
    assert raised.value.written == [out / "p1_mask.nii.gz", out / "p2_seg.dcm"]
    assert {"p1_mask.nii.gz", "p1_preview.png", "p2_mask.nii.gz", "p2_seg.dcm"} <= names(out)
    row = json.loads((out / "p1_statistics.json").read_text())
    assert "dicom_seg" not in row["files"]
    assert any(warning.startswith("dicom_seg was not written") for warning in row["warnings"])
    assert "dicom_seg was not written" in (out / "report.html").read_text()


def test_a_picture_that_cannot_be_drawn_costs_no_mask(tmp_path, models, monkeypatch):
    def fail(*_):
        raise ValueError("Doe^Jane")

    monkeypatch.setattr("fedbcs_monai.predict.outputs.overlay", fail)
    with pytest.raises(PartlyFailed, match=r"no picture: failed with ValueError at test_failing\.py"):
        predict(models["nuclei"], pictures(tmp_path / "in", "a.png"), tmp_path / "out", device="cpu")
    assert names(tmp_path / "out") == {"a_mask.png", "a_statistics.json", "report.html"}


def test_one_call_a_study_into_one_folder_gives_a_page_of_all(tmp_path, models):
    inputs, out = pictures(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    for name in ("a.png", "b.png"):
        predict(models["nuclei"], inputs / name, out, device="cpu")
    page = (out / "report.html").read_text()
    assert "2 segmented" in page
    assert page.count("data:image/jpeg") == 2
    with pytest.raises(UserError, match="already exists"):
        predict(models["nuclei"], inputs / "b.png", out, device="cpu")


def test_a_page_of_another_kind_is_not_replaced(tmp_path, models):
    inputs, out = pictures(tmp_path / "in", "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("<title>Of a training</title>")
    with pytest.raises(UserError, match=r"report\.html: already exists"):
        predict(models["nuclei"], inputs, out, device="cpu")
    assert names(out) == {"report.html"}


def test_what_is_to_be_replaced_stays_until_there_is_something_new(tmp_path, models, failing):
    inputs, out = pictures(tmp_path / "in", "b.png"), tmp_path / "out"
    predict(models["nuclei"], inputs, out, device="cpu")
    before = {name: (out / name).read_bytes() for name in names(out) if name != "report.html"}
    failing(MemoryError())
    with pytest.raises(UserError, match="does not fit into memory"):
        predict(models["nuclei"], inputs, out, device="cpu", overwrite=True, overlay=False)
    assert {name: (out / name).read_bytes() for name in names(out) if name != "report.html"} == before
    assert "these are outputs of an earlier call; in the last one the study failed" in (out / "report.html").read_text()


def test_what_is_half_done_is_done_again_on_resume(tmp_path, models):
    inputs, out = pictures(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    predict(models["nuclei"], inputs, out, device="cpu")
    (out / "a_mask.png").unlink()
    on_study = []
    predict(models["nuclei"], inputs, out, device="cpu", resume=True, on_study=lambda name, _: on_study.append(name))
    assert on_study == ["a"]


def test_two_processes_do_not_remove_each_other_s_files(tmp_path):
    with together(tmp_path) as mine:
        mine(tmp_path / "a").write_text("mine")
        with pytest.raises(RuntimeError), together(tmp_path) as other:
            other(tmp_path / "a").write_text("other's")
            raise RuntimeError
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_text() == "mine"


def test_outputs_of_an_earlier_call_are_not_segmented_and_said(tmp_path, models):
    inputs = pictures(tmp_path / "in", "a.png")
    predict(models["nuclei"], inputs / "a.png", inputs / "x.png", device="cpu", probability=True)
    pictures(inputs, "b.png", "b_mask.png", "c_mask.png")
    on_note, on_study = [], []
    predict(
        *(models["nuclei"], inputs, tmp_path / "out"),
        device="cpu",
        on_study=lambda name, _: on_study.append(name),
        on_note=on_note.append,
    )
    assert on_study == ["a", "b", "c_mask"]
    assert on_note == ["left out, as outputs of an earlier call: b_mask.png, x.png, x_overlay.png, x_probability.png"]
    assert "b_mask.png, x.png" in (tmp_path / "out" / "report.html").read_text()


def test_masks_in_a_dicom_folder_are_no_candidates(tmp_path, models, made):
    folder = made.save(made.slices(made.voxels()), tmp_path / "study")
    types = ["nifti", "dicom_seg", "dicom_rtstruct"]
    predict(models["prostate"], folder, tmp_path / "out", types=types, device="cpu")
    for path in (tmp_path / "out").iterdir():
        path.rename(folder / path.name)
    wrong = pydicom.dcmread(folder / "study_seg.dcm")
    wrong.Modality = "MR"  # as some programs write it
    wrong.save_as(folder / "other.dcm")
    (mask,) = predict(models["prostate"], folder, tmp_path / "out", device="cpu")
    assert mask.name == "study_mask.nii.gz"


@pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere want text")
def test_names_that_are_no_text_and_names_as_long_as_they_may_be(tmp_path, models, capsys):
    odd, long = os.fsdecode(b"caf\xe9.png"), "n" * 243 + ".png"
    inputs, out = pictures(tmp_path / "in", odd, long, "n" * 242 + "m.png"), tmp_path / "out"
    arguments = ["predict", str(models["nuclei"]), "-i", str(inputs), "-o", str(out), "--device", "cpu", "-p"]
    assert main(arguments) == 0
    assert len(names(out)) == 3 * 4 + 1
    assert os.fsdecode(b"caf\xe9_mask.png") in names(out)
    assert main([*arguments, "--resume"]) == 0
    assert main([*arguments, "--overwrite", "--json"]) == 0
    assert len(names(out)) == 3 * 4 + 1
    assert "3 segmented" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("options", [[], ["-ot", "dicom_seg"]])
def test_a_seg_may_be_named(tmp_path, models, made, options):
    folder = made.save(made.slices(made.voxels()), tmp_path / "study")
    output = tmp_path / "out" / "seg.dcm"
    assert main(["predict", str(models["prostate"]), "-i", str(folder), "-o", str(output), "-q", *options]) == 0
    assert pydicom.dcmread(output).Modality == "SEG"
    assert names(tmp_path / "out") == {"seg.dcm", *(f"seg_{end}" for end in ("preview.png", "statistics.json", PAGE))}


PAGE = "report.html"


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        ("in/a.png", "seg.dcm", r"seg\.dcm: the mask of a\.png is written as \.png"),
        ("in/a.png", "masks.json", r"masks\.json: the mask of a\.png is written as \.png"),
        ("in", "mask.png", r"mask\.png: names one file, and there are 2 studies; name a folder"),
        ("in", "seg.dcm", r"seg\.dcm: names one file, and there are 2 studies; name a folder"),
    ],
)
def test_a_file_that_cannot_be_the_mask_is_refused_before_any_work(tmp_path, models, inputs, output, said):
    pictures(tmp_path / "in", "a.png", "b.png")
    with pytest.raises(UserError, match=said):
        predict(models["nuclei"], tmp_path / inputs, tmp_path / "out" / output, device="cpu")
    assert names(tmp_path) == {"in"}


def test_a_malformed_header_is_never_quoted(tmp_path, models, made, capfd, caplog):
    images = made.slices(made.voxels())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for image in images:
            image.PatientBirthDate, image.PatientName, image.StudyTime = "3.5.1950", "Doe^", "noon^"
        folder = made.save(images, tmp_path / "study")
    caplog.clear()
    arguments = ["predict", str(models["prostate"]), "-i", str(folder), "-o", str(tmp_path / "out")]
    assert main([*arguments, "-ot", "nifti", "dicom_seg", "dicom_rtstruct"]) == 0
    said = capfd.readouterr()
    assert "left out of DICOM masks: " in said.err
    assert "PatientBirthDate" in said.err
    everything = said.out + said.err + caplog.text + (tmp_path / "out" / "report.html").read_text()
    assert not any(secret in everything for secret in ("3.5.1950", "Doe^", "noon^"))
    for kind in ("seg", "rtstruct"):
        mask = pydicom.dcmread(tmp_path / "out" / f"study_{kind}.dcm")
        assert (mask.PatientBirthDate, str(mask.PatientName)) == ("", "Doe^")


def test_two_series_of_one_folder_that_fail_are_both_named(tmp_path, models, made, failing):
    tree = tmp_path / "b"
    made.save(made.slices(made.voxels()), tree / "a")
    made.save(made.slices(made.voxels(seed=1), series="1.2.3.4.8", number=7), tree / "c")
    failing(RuntimeError())
    with pytest.raises(UserError, match=r"2 of 2 failed:\n.*\n.*"):
        predict(models["prostate"], tree, tmp_path / "out", series=["all"], device="cpu")

"""The command: what it says, in words, as JSON, or not at all, and its exit codes."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

from fedbcs_monai.cli import main
from fedbcs_monai.predict.overlay import overlay


@pytest.fixture
def volumes(tmp_path):
    folder = tmp_path / "volumes"
    folder.mkdir()
    for n in range(2):
        voxels = np.random.default_rng(n).integers(0, 500, (20, 16, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-0.5, -0.5, 3, 1])), folder / f"{n}.nii.gz")
    return folder


def test_it_names_each_study_its_sizes_and_its_masks(tmp_path, models, volumes, capsys):
    assert main(["predict", str(models["prostate"]), "-i", str(volumes), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    wrote = [f"wrote: {tmp_path}/out/{n}_mask.nii.gz" for n in "01"]
    assert [line.split(",")[0] for line in said] == ["segmented: 0", "segmented: 1", *wrote]
    assert all("prostate" in line and "mL" in line for line in said[:2])


def test_json_is_one_object_a_line_with_the_warnings(tmp_path, models, volumes, capsys):
    assert main(["predict", str(models["prostate"]), "-i", str(volumes), "-o", str(tmp_path / "out"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} >= {"segmented", "wrote"}
    segmented = [line for line in lines if line["event"] == "segmented"]
    assert [line["study"] for line in segmented] == ["0", "1"]
    assert all(structure["volume_ml"] >= 0 for line in segmented for structure in line["structures"])


def test_quiet_says_nothing(tmp_path, models, volumes, capsys):
    arguments = ["predict", str(models["prostate"]), "-i", str(volumes), "-o", str(tmp_path / "out"), "-q"]
    assert main(arguments) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*arguments, "--resume"]) == 0
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_several_models_are_an_ensemble_and_all_options_are_understood(tmp_path, models, made, capsys):
    folder = made.save(made.slices(made.voxels()), tmp_path / "study")
    weights = [str(models["prostate"] / name) for name in ("model.safetensors", "last.safetensors")]
    options = ["-ot", "nifti", "dicom_seg", "--series", "4", "--tta", "-p", "--device", "cpu", "--no-overlay"]
    assert main(["predict", *weights, "-i", str(folder), "-o", str(tmp_path / "out"), *options]) == 0
    endings = ("mask.nii.gz", "seg.dcm", "probability.nii.gz", "statistics.json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", *(f"study_{end}" for end in endings)}
    row = json.loads((tmp_path / "out" / "study_statistics.json").read_text())
    assert (len(row["models"]), row["tta"]) == (2, True)


def test_models_may_stand_anywhere(tmp_path, models, volumes, capsys):
    weights = [str(models["prostate"] / name) for name in ("model.safetensors", "last.safetensors")]
    ensemble = ["-m", weights[0], "-m", weights[1]]
    assert main(["predict", "-i", str(volumes / "0.nii.gz"), "-o", str(tmp_path / "out"), *ensemble, "-q"]) == 0
    row = json.loads((tmp_path / "out" / "0_statistics.json").read_text())
    assert len({model["sha256"] for model in row["models"]}) == 2
    assert main(["predict", "-i", str(volumes), "-o", str(tmp_path / "none")]) == 2
    assert "which model?" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(tmp_path, models, volumes, capsys, monkeypatch):
    drawn = []

    def draw(*of):
        drawn.append(of)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return overlay(*of)

    monkeypatch.setattr("fedbcs_monai.predict.outputs.overlay", draw)
    arguments = ["predict", str(models["prostate"]), "-i", str(volumes), "-o", str(tmp_path / "out")]
    assert main(arguments) == 130
    assert f"interrupted: {tmp_path}/out; resume with the same command and --resume" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("0_mask.nii.gz", "0_preview.png", "0_statistics.json")
    }
    assert main([*arguments, "--resume", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["study"] for line in lines if line["event"] == "segmented"] == ["1"]


def test_the_listing_of_series_is_all_that_is_said(tmp_path, models, made, capsys, caplog):
    tree = tmp_path / "patient"
    made.save(made.slices(made.voxels()), tree / "a")
    made.save(made.slices(made.voxels(seed=1), series="1.2.3.4.8", number=7), tree / "b")
    with caplog.at_level(logging.DEBUG):
        assert main(["predict", str(models["prostate"]), "-i", str(tree), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 3
    assert "--series" in said.err
    everything = said.out + said.err + caplog.text
    assert not any(word in everything for word in ("Doe", "Jane", "HOSP-4711", "19500101"))


def test_a_prediction_logs_its_studies_by_number(tmp_path, models, nuclei_sites, capsys):
    image = next(nuclei_sites.parent.glob("Elm/images/*.png"))
    study = tmp_path / "DOE_JANE_19500101.png"
    study.write_bytes(image.read_bytes())
    out = tmp_path / "out"
    assert main(["predict", str(models["nuclei"]), "-i", str(study), "-o", str(out), "-vv", "--device", "cpu"]) == 0
    logged = [line for line in capsys.readouterr().err.splitlines() if " fedbcs_monai." in line]
    assert "info fedbcs_monai.predict.studies_to_masks: study 1 of 1: segmented" in logged
    assert not any("DOE" in line for line in logged)

"""IntendedInput: what a bundle's metadata states is used, and a run folder states only its task."""

import json

import pytest

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.intended_input import ANY_INPUT, IntendedInput, intended_input_of
from fedbcs_monai.runs.model_io import load_trained


@pytest.fixture
def trained(models):
    return load_trained(models["prostate"], device="cpu")


def bundle(tmp_path, trained, content: str):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(content)
    return trained._replace(weights=tmp_path / "models" / "model.safetensors")


@pytest.mark.parametrize(
    ("image", "intended_input"),
    [
        ({"modality": "MRI", "orientation": "Axial"}, IntendedInput("MR", "axial")),
        ({"modality": "CT"}, IntendedInput("CT")),
        ({"modality": "T2-weighted, 3 T"}, ANY_INPUT),
        ({}, ANY_INPUT),
    ],
)
def test_a_bundle_states_modality_and_plane(tmp_path, trained, image, intended_input):
    content = json.dumps({"network_data_format": {"inputs": {"image": image}}})
    assert intended_input_of(bundle(tmp_path, trained, content)) == intended_input


def test_a_run_states_nothing(trained):
    assert intended_input_of(trained) == ANY_INPUT


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_metadata_that_cannot_be_read_is_named(tmp_path, trained, content):
    with pytest.raises(UserError, match=r"metadata.json: not readable metadata of a bundle"):
        intended_input_of(bundle(tmp_path, trained, content))


def test_what_is_not_stated_fits_everything():
    assert ANY_INPUT.fits(IntendedInput("CT", "coronal"))
    assert IntendedInput("MR").fits(IntendedInput("MR", "coronal"))
    assert not IntendedInput("MR", "axial").fits(IntendedInput("MR", "coronal"))

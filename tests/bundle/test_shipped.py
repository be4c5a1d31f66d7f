"""The bundle as it is shipped: whole, sound by MONAI's own checks, and no key in two hands."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, onnx_export, verify_metadata, verify_net_in_out

from fedbcs_monai.bundle.card import card
from fedbcs_monai.bundle.configs import inference_config
from fedbcs_monai.bundle.metadata import data_format, descriptions
from fedbcs_monai.catalog import shipped
from fedbcs_monai.config import WORKFLOW, load_config, read_config
from fedbcs_monai.predict.intended_input import IntendedInput
from fedbcs_monai.settings import KEYS

CONFIGS = shipped() / "bundle" / "configs"
CHECKLIST = """
LICENSE large_files.yml docs/README.md docs/data_license.txt configs/metadata.json configs/logging.conf
configs/train.json configs/nuclei.json configs/evaluate.json configs/inference.json configs/inference_trt.json
configs/multi_gpu_train.json configs/multi_gpu_evaluate.json
"""


def read(name: str):
    return read_config(CONFIGS / f"{name}.json")


def settings():
    return load_config(CONFIGS / "train.json")


def network_of(content):
    torch.manual_seed(0)
    return ConfigParser(content).get_parsed_content("network_def").eval()


def test_every_file_of_the_checklist_is_there(copied):
    found = {path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file()}
    assert found == set(CHECKLIST.split())


# One owner for every key.


def test_inference_repeats_what_training_says_and_nothing_else():
    assert inference_config(read("inference"), read("train"), read("nuclei")) == read("inference")


def test_the_metadata_are_those_of_the_network():
    metadata = read("metadata")
    found = data_format(settings(), network_of(read("inference")), IntendedInput("MR", "axial"))
    assert metadata["network_data_format"] == found
    assert metadata.items() >= descriptions(settings()).items()


def test_the_model_card_is_the_template_filled():
    text = card(read("metadata"), settings(), network_of(read("inference")), None)
    assert (CONFIGS.parent / "docs" / "README.md").read_text(encoding="utf-8") == text


def test_the_licence_is_that_of_the_repository():
    assert "Apache License" in (CONFIGS.parent / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["train", "nuclei"])
def test_every_key_is_known_to_a_federation_or_passed_by(name):
    assert set(read(name)) <= KEYS.keys() | WORKFLOW
    assert not KEYS.keys() & WORKFLOW


# MONAI's checks.


@pytest.fixture(scope="module")
def weights(copied, inside, small, tmp_path_factory):
    """A copy of the bundle with weights as they are before training."""
    folder = tmp_path_factory.mktemp("weights") / "bundle"
    shutil.copytree(copied, folder)
    (folder / "models").mkdir()
    content = read("inference")
    content["network_def"]["network"]["features"] = small["prostate"].inference["network_def::network::features"]
    torch.save(network_of(content).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.mark.filterwarnings("ignore:No hash value provided:UserWarning")
def test_verify_metadata(copied, tmp_path):
    schema = shutil.copy(Path(__file__).with_name("meta_schema_20240725.json"), tmp_path / "schema.json")
    verify_metadata(meta_file=str(copied / "configs" / "metadata.json"), filepath=schema)
    lacking = {key: value for key, value in read("metadata").items() if key != "network_data_format"}
    (tmp_path / "metadata.json").write_text(json.dumps(lacking))
    with pytest.raises(ValueError, match="network_data_format"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=schema)


@pytest.mark.parametrize("n", [1, 2])
def test_verify_net_in_out(copied, inside, small, n):
    with inside(copied):
        verify_net_in_out(
            net_id="network_def",
            meta_file="configs/metadata.json",
            config_file="configs/inference.json",
            device="cpu",
            n=n,
            any=n,
            **small["prostate"].inference,
        )


@pytest.mark.parametrize("task", ["prostate", "nuclei"])
@pytest.mark.parametrize("kind", ["train", "inference"])
def test_every_property_that_hosts_ask_for_is_there(copied, inside, small, task, kind, tmp_path):
    overrides = {"train": small[task].train, "inference": small[task].inference}[kind]
    data = small[task].sites.parent if kind == "train" else small[task].sites.parent / "Alder" / "images"
    with inside(copied):
        workflow = ConfigWorkflow(
            config_file=small[task].files(kind),
            workflow_type=kind,
            logging_file=False,
            bundle_root=str(tmp_path),
            dataset_dir=str(data),
            site="Alder",
            device="cpu",
            **overrides,
        )
        workflow.initialize()
        assert workflow.check_properties() == []


@pytest.mark.filterwarnings("ignore")  # warnings of the exporters
def test_exports_of_monai_agree_with_the_network_at_other_sizes(weights, inside, small):
    overrides = small["prostate"].inference
    export = {"net_id": "network_def", "config_file": "configs/inference.json", "ckpt_file": "models/model.pt"}
    axes = {0: "batch", 2: "height", 3: "width", 4: "depth"}
    onnx = {"dynamo": True, "opset_version": 18, "input_names": ["image"], "dynamic_shapes": [axes]}
    with inside(weights):
        ckpt_export(**export, **overrides)
        sample = {"input_shape": [2, 1, 32, 32, 3], "use_trace": True}
        onnx_export(**export, filepath="models/model.onnx", **sample, converter_kwargs=onnx, **overrides)
        content = read("inference")
        content["network_def"]["network"]["features"] = overrides["network_def::network::features"]
        network = network_of(content)
        network.load_state_dict(torch.load("models/model.pt", weights_only=True))
        script, session = torch.jit.load("models/model.ts"), onnxruntime.InferenceSession("models/model.onnx")
    for shape in ((1, 1, 64, 32, 5), (3, 1, 32, 48, 2)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            logits = network(image)
            torch.testing.assert_close(script(image), logits, atol=1e-4, rtol=0)
        computed = session.run(None, {"image": image.numpy()})[0]
        np.testing.assert_allclose(computed, logits.numpy(), atol=1e-4, rtol=0)

"""A finished run as a bundle: loadable everywhere, with its own scores, and nothing of a patient in it."""

import json
import shutil
import zipfile
from pathlib import Path

import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, load_bundle_config, verify_metadata
from msgspec.structs import replace

from fedbcs_monai.backends.evaluate import evaluate
from fedbcs_monai.backends.local import train
from fedbcs_monai.bundle import write_bundle
from fedbcs_monai.bundle.metadata import kind_of, required_packages
from fedbcs_monai.bundle.record import read_record
from fedbcs_monai.catalog import shipped
from fedbcs_monai.cli import main
from fedbcs_monai.config import load_config, read_config
from fedbcs_monai.data import NeighbouringSlicesInferer, read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.predict import Predictor
from fedbcs_monai.predict.intended_input import IntendedInput, intended_input_of
from fedbcs_monai.runs.model_io import load_trained
from fedbcs_monai.settings import plain
from fedbcs_monai.tensors import read_tensors, write_tensors

ABOUT = {"authors": "A consortium", "network_data_format": {"inputs": {"image": {"weighting": "T2"}}}}


@pytest.fixture(scope="module")
def zipped(finished, tmp_path_factory):
    """The bundle of a run as one zip, written by the command."""
    folder, about = tmp_path_factory.mktemp("zipped"), tmp_path_factory.mktemp("about") / "about.json"
    about.write_text(json.dumps(ABOUT))
    name = str(folder / "prostate_segmentation")
    assert main(["bundle", str(finished), "-o", name, "--zip", "--about", str(about), "--quiet"]) == 0
    return folder / "prostate_segmentation.zip"


@pytest.fixture(scope="module")
def made(zipped, tmp_path_factory):
    """The same, unpacked."""
    folder = tmp_path_factory.mktemp("made")
    zipfile.ZipFile(zipped).extractall(folder)
    return folder / "prostate_segmentation"


def read(made, name):
    return read_config(made / "configs" / f"{name}.json")


def network_of(made):
    """What hosts build: the network of `inference.json`, with the weights."""
    network = ConfigParser(read(made, "inference")).get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(made / "models" / "model.pt", weights_only=True))
    return network


def volume(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def dices(model, sites=None):
    """Dice of every test case."""
    found = evaluate(model, sites=sites, device="cpu")
    return {site: {score.case: score.dice for score in scores} for site, scores in found.items()}


def test_it_holds_what_the_shipped_bundle_holds_and_weights(made):
    found = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    source = shipped() / "bundle"
    whole = {path.relative_to(source).as_posix() for name in ("configs", "docs") for path in (source / name).iterdir()}
    weights = {f"models/model.{ending}" for ending in ("pt", "safetensors", "ts", "onnx")}
    sums = {"models/model.pt.sha256", "configs/train.json.sha256"}
    assert found == {"LICENSE", *whole, *weights, *sums} - {"configs/nuclei.json"}


def test_nothing_else_lies_beside_it(made, zipped):
    assert [path.name for path in made.parent.iterdir()] == ["prostate_segmentation"]
    assert [path.name for path in zipped.parent.iterdir()] == ["prostate_segmentation.zip"]


def test_monai_reads_the_zip(zipped, finished):
    parser = load_bundle_config(str(zipped), "inference.json")
    assert parser["_meta_"]["name"] == read_config(finished / "summary.json")["name"] + ", prostate"


def test_what_is_predicted_with_it_names_the_run(made, finished):
    name = read_config(finished / "summary.json")["name"]
    assert Predictor(made).algorithm()["name"] == Predictor(finished).algorithm()["name"] == name


def test_both_files_of_weights_are_those_of_the_run(made, finished):
    selected = read_tensors(finished / "model.safetensors")
    for weights in (
        read_tensors(made / "models" / "model.safetensors"),
        torch.load(made / "models" / "model.pt", weights_only=True),
    ):
        assert weights.keys() == selected.keys()
        assert all(torch.equal(weights[name], selected[name]) for name in selected)


def test_its_exports_agree_with_the_network(made):
    network = network_of(made)
    script = torch.jit.load(made / "models" / "model.ts").eval()
    session = onnxruntime.InferenceSession(made / "models" / "model.onnx")
    for shape in ((1, 1, 64, 48, 5), (3, 1, 32, 32, 2)):
        image = volume(shape)
        with torch.inference_mode():
            torch.testing.assert_close(script(image), network(image), atol=1e-4, rtol=0)
            computed = torch.as_tensor(session.run(None, {"image": image.numpy()})[0])
            torch.testing.assert_close(computed, network(image), atol=1e-4, rtol=0)


def test_the_network_for_hosts_is_that_of_the_run_over_volumes(made, finished):
    image = volume((1, 1, 32, 32, 3))
    with torch.inference_mode():
        slices = NeighbouringSlicesInferer(3)(image, load_trained(finished, device="cpu").network)
        assert torch.equal(network_of(made)(image), slices)


def test_it_is_loaded_and_scored_as_the_run_is(made, finished):
    config = load_config(finished / "config.json")
    assert load_trained(made).settings.network_def == config.network_def
    assert dices(made, config.sites) == dices(finished)
    with pytest.raises(UserError, match="lacks sites; name a site list with --sites"):
        evaluate(made, device="cpu")


@pytest.mark.filterwarnings("ignore:No hash value provided:UserWarning")
def test_its_metadata_are_sound_and_tell_of_the_run(made, finished, tmp_path):
    schema = shutil.copy(Path(__file__).with_name("meta_schema_20240725.json"), tmp_path / "schema.json")
    verify_metadata(meta_file=str(made / "configs" / "metadata.json"), filepath=schema)
    metadata = read(made, "metadata")
    scores = evaluate(finished, device="cpu")
    for site, found in scores.items():
        told = metadata["eval_metrics"]["sites"][site]
        assert told["cases"] == len(found)
        assert told["dice"] == pytest.approx(sum(score.dice for score in found) / len(found), abs=1e-6)
    seen = [score["dice"] for site, score in metadata["eval_metrics"]["sites"].items() if site != "Elm"]
    assert metadata["eval_metrics"]["mean_dice"] == pytest.approx(sum(seen) / len(seen))
    cases = sum(len(found) for site, found in scores.items() if site != "Elm")
    assert [metadata["eval_metrics"][key] for key in ("test_cases", "seeds", "sd_over_seeds")] == [cases, 1, None]
    assert metadata["federation"]["unseen_sites"] == ["Elm"]
    assert metadata["federation"]["method"]["_target_"] == "fedbcs_monai.methods.FedAvg"
    assert metadata["federation"]["data_sha256"].keys() == scores.keys()
    assert metadata["authors"] == "A consortium"
    image = metadata["network_data_format"]["inputs"]["image"]
    assert (image["weighting"], image["num_channels"]) == ("T2", 1)


def test_it_states_of_which_images_it_is(made):
    assert intended_input_of(load_trained(made, device="cpu")) == IntendedInput("MR", "axial")


def test_sites_say_of_which_images_it_is_and_the_task_only_where_they_do_not(finished):
    of_task, record = (
        IntendedInput("MR", "coronal"),
        read_record(finished, load_config(finished / "config.json"), "selected"),
    )
    assert kind_of(record, of_task) == IntendedInput("MR", "axial")
    assert kind_of(record._replace(modalities=frozenset({"CT"}), planes=frozenset()), of_task) == IntendedInput(
        "CT", "coronal"
    )
    assert kind_of(record._replace(modalities=frozenset({"CT", "MR"})), of_task) == IntendedInput("", "axial")


def test_what_its_postprocessing_needs_is_among_its_packages(finished):
    config = load_config(finished / "config.json")
    assert "scikit-image" not in required_packages(config)
    steps = config.postprocessing["transforms"]
    steps.append({"_target_": "KeepLargestConnectedComponentd", "keys": "pred"})
    assert "scikit-image" in required_packages(config)


def test_its_card_has_a_row_for_each_site(made):
    text = (made / "docs" / "README.md").read_text(encoding="utf-8")
    metadata = read(made, "metadata")
    for site, score in metadata["eval_metrics"]["sites"].items():
        name = f"{site} (never trained on)" if site == "Elm" else site
        assert f"| {name} | {score['cases']} | {score['dice']:.3f} |" in text
    assert f"Mean Dice, sites weighing the same: {metadata['eval_metrics']['mean_dice']:.3f}." in text
    assert f"It is of {metadata['eval_metrics']['test_cases']} test cases and one\nseed: the spread" in text


def test_nothing_in_it_names_a_case_or_a_folder(made, finished):
    config = load_config(finished / "config.json")
    cases = [case for site in read_sites(config.sites).values() for case in site.cases]
    words = {*(case.patient for case in cases), *(case.image for case in cases), str(finished.parent), config.sites}
    for path in made.rglob("*"):
        if path.suffix in (".json", ".md"):
            text = path.read_text(encoding="utf-8")
            assert not [word for word in words if word in text], path


def test_it_goes_on_training(made, small, run, tmp_path):
    folder = shutil.copytree(made, tmp_path / "bundle")
    data = {"dataset_dir": str(small["prostate"].sites.parent), "site": "Birch"}
    run(folder, ["configs/train.json"], **data, **{"train::trainer::max_epochs": 1})
    before, after = (torch.load(f / "models" / "model.pt", weights_only=True) for f in (made, folder))
    assert before.keys() == after.keys()


def test_a_bundle_that_is_there_is_replaced_only_where_asked(made, finished, tmp_path):
    with pytest.raises(UserError, match=r"already exists; replace it with --overwrite"):
        write_bundle(finished, made)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.pdf").touch()
    with pytest.raises(UserError, match="is not empty and holds no bundle to overwrite"):
        write_bundle(finished, tmp_path / "papers", overwrite=True)


def test_a_run_that_is_not_finished_leaves_nothing(finished, tmp_path):
    unfinished = shutil.copytree(finished, tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    with pytest.raises(UserError, match=r"summary.json: is not there; give the folder of a finished run"):
        write_bundle(unfinished, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished"]


def test_weights_that_are_no_weights_are_refused_in_one_line(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "bundle")
    (folder / "models" / "model.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"model.pt: is not the file whose SHA-256 is in model.pt.sha256; restore it"):
        load_trained(folder)
    (folder / "models" / "model.pt.sha256").unlink()
    with pytest.raises(UserError, match=r"model.pt: not weights of the network in its train.json") as error:
        load_trained(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="is one model"):
        load_trained(folder, which="last")


def test_what_sites_keep_to_themselves_needs_a_site(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    write_tensors(folder / "sites" / "model" / "Birch.safetensors", {"norm": torch.zeros(1)})
    with pytest.raises(UserError, match="sites keep parts of the network to themselves; choose whose: Birch"):
        write_bundle(folder, tmp_path / "bundle")


@pytest.mark.slow
def test_the_network_of_a_site_becomes_a_bundle(tiny, tmp_path):
    folder = train(tiny("FedBN", rounds=1))
    made = write_bundle(folder, tmp_path / "bundle", site="Birch").path
    network, own = load_trained(made, device="cpu").network, load_trained(folder, device="cpu", site="Birch").network
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in network.state_dict().items())
    assert read(made, "metadata")["eval_metrics"]["sites"].keys() == {"Birch"}


OTHERS = {
    "fedbcs": ("FedBCS", {}),
    "dynunet": ("FedAvg", {"network_def::norm": "instance", "network_def::backbone": "DynUNet"}),
    "segresnet": ("FedAvg", {"network_def::backbone": "SegResNet", "network_def::features": [8, 16, 32, 64]}),
    "another task": ("FedAvg", {"network_def::backbone": "UNet", "classes": None, "task": "glands"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "overrides"), OTHERS.values(), ids=OTHERS)
def test_other_networks_and_tasks_become_bundles(tiny, tmp_path, method, overrides):
    folder = train(tiny(method, rounds=1, **overrides))
    made = write_bundle(folder, tmp_path / "bundle").path
    data_format = read(made, "metadata")["network_data_format"]
    assert data_format["inputs"]["image"]["num_channels"] == 3
    assert data_format["outputs"]["pred"]["channel_def"]["1"] == overrides.get("task", "nuclei")
    assert dices(made, load_config(folder / "config.json").sites) == dices(folder)


VOLUMES = {
    "network_def::spatial_dims": 3,
    "network_def::in_channels": 1,
    "slicing": None,
    "augmentation": None,
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "overlap": 0.25},
    "preprocessing::transforms::3": {
        "_target_": "SpatialPadd",
        "keys": ["image", "label"],
        "spatial_size": [32, 32, 32],
        "allow_missing_keys": True,
    },
    "batch_size": 1,
}


@pytest.mark.slow
def test_a_network_of_volumes_becomes_a_bundle(tiny_prostate, tmp_path):
    (tmp_path / "base.json").write_text(json.dumps({**plain(tiny_prostate), "output": str(tmp_path / "run")}))
    folder = train(load_config(tmp_path / "base.json", {**VOLUMES, "rounds": 1}))
    made = write_bundle(folder, tmp_path / "bundle").path
    image = read(made, "metadata")["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["spatial_shape"]) == (1, ["32*n", "32*n", "32*n"])
    assert dices(made, tiny_prostate.sites) == dices(folder)


@pytest.mark.slow
def test_a_network_whose_norm_looks_at_its_batch_is_refused(tiny_prostate, tmp_path):
    network = {**tiny_prostate.network_def, "norm": "batch_statistics"}
    folder = train(replace(tiny_prostate, network_def=network, rounds=1, output=str(tmp_path / "run")))
    with pytest.raises(UserError, match="a network whose norm looks at its batch cannot be exported"):
        write_bundle(folder, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

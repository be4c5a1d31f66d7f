"""Writing a bundle: all files of a finished run's bundle, complete or not at all."""

import json
import shutil
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import nn

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.bundle.card import card
from fedbcs_monai.bundle.configs import inference_config, train_config
from fedbcs_monai.bundle.export import Differences, export
from fedbcs_monai.bundle.metadata import metadata
from fedbcs_monai.bundle.record import Record, read_record
from fedbcs_monai.catalog import shipped
from fedbcs_monai.config import Content, read_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import HIDDEN, check_folder_can_be, naming, replace_folder, write_sum
from fedbcs_monai.ood.file import read_site_styles, write_site_styles
from fedbcs_monai.predict.intended_input import ANY_INPUT, stated
from fedbcs_monai.runs.model_io import BUNDLED, TrainedModel, find_weights, keeping_sites, load_trained
from fedbcs_monai.tensors import detached, write_tensors

AS_SHIPPED = (
    *("LICENSE", "docs/data_license.txt", "configs/logging.conf", "configs/evaluate.json"),
    *("configs/multi_gpu_train.json", "configs/multi_gpu_evaluate.json", "configs/inference_trt.json"),
)
"""Files that are the same in every bundle."""


class Bundled(NamedTuple):
    """Where a bundle is, and how its exports differ from its network."""

    path: Path
    differences: Differences


def write_bundle(
    run: str | Path,
    output: str | Path,
    *,
    which: str = "selected",
    site: str | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    zipped: bool = False,
    trust: Iterable[str] | Trust = (),
) -> Bundled:
    """Write a finished run as a MONAI bundle.

    Args:
        run: its folder.
        output: the bundle's folder, whose name is the bundle's.
        which: the ``selected`` or the ``last`` model.
        site: use the network of this site, where sites keep private layers.
        about: laid over the metadata, such as ``authors`` and ``data_source``; mappings are merged.
        overwrite: replace an existing bundle.
        zipped: write ``OUTPUT.zip`` with the folder inside, instead of the folder.
        trust: as in `load_config`.

    Raises:
        UserError: the run is not finished, its network cannot be exported, or there is something at the output.
    """
    run, output = Path(run), Path(output)
    target = output.with_name(f"{output.name}.zip") if zipped else output
    _check_free(target, overwrite, zipped)
    keeping = keeping_sites(find_weights(run, which))
    if keeping and site is None:
        raise UserError(f"{run}: sites keep parts of the network to themselves; choose whose: {', '.join(keeping)}")
    trained = load_trained(run, which, "cpu", site, trust)
    record = read_record(run, trained.settings, which)
    if site is not None:
        own = {name: score for name, score in record.scores.items() if name == site}
        record = record._replace(name=f"{record.name} at {site}", scores=own)
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(target), TemporaryDirectory(dir=target.parent, prefix=HIDDEN[0], suffix=HIDDEN[1]) as temporary:
        folder = Path(temporary) / output.name
        differences = _fill(folder, trained, record, about or {})
        write_site_styles(folder / "models" / "model.pt", read_site_styles(trained.weights, site))
        made = Path(shutil.make_archive(str(folder), "zip", temporary, folder.name)) if zipped else folder
        replace_folder(target, made)
    return Bundled(target, differences)


def _fill(folder: Path, trained: TrainedModel, record: Record, about: Mapping[str, Any]) -> Differences:
    """Write every file of the bundle."""
    source = shipped() / "bundle"
    for name in AS_SHIPPED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    settings = trained.settings
    workflow, shipped_metadata = (read_config(source / "configs" / f"{name}.json") for name in ("train", "metadata"))
    train = {"name": record.name, **train_config(workflow, settings)}
    pictures = read_config(source / "configs" / "nuclei.json")
    inference = inference_config(read_config(source / "configs" / "inference.json"), train, pictures)
    weights = detached(trained.network.state_dict())
    (folder / "models").mkdir()
    write_tensors(folder / "models" / "model.safetensors", weights)
    stored = BytesIO()  # torch's error on a full disk does not name it
    torch.save(dict(weights), stored)
    (folder / "models" / "model.pt").write_bytes(stored.getvalue())
    network = ConfigParser(inference).get_parsed_content("network_def").eval()
    network.load_state_dict(dict(weights))
    of_task = (
        stated(shipped_metadata) if settings.task == workflow["task"] and settings.reads == "volumes" else ANY_INPUT
    )
    intended_input = _merged(metadata(shipped_metadata, settings, network, record, of_task), about)
    _check_texts({"name": train["name"], **intended_input})
    for name, content in (("train", train), ("inference", inference), ("metadata", intended_input)):
        _write_json(folder / "configs" / f"{name}.json", content)
    for path in BUNDLED:
        write_sum(folder / path)
    (folder / "docs" / "README.md").write_text(card(intended_input, settings, network, record), encoding="utf-8")
    return _exported(folder, network, intended_input)


def _exported(folder: Path, network: nn.Module, intended_input: Mapping[str, Any]) -> Differences:
    image = intended_input["network_data_format"]["inputs"]["image"]
    smallest = int(image["spatial_shape"][0].removesuffix("*n"))
    return export(folder, network, image["num_channels"], smallest, len(image["spatial_shape"]))


def _check_texts(content: Any, where: str = "metadata") -> None:
    """Refuse a text that MONAI would evaluate, or read another file for, wherever a host reads it."""
    if isinstance(content, str) and content.lstrip().startswith(("$", "%", "@")):
        raise UserError(f"{where}: {content!r} would be evaluated by hosts; begin it with a letter")
    if isinstance(content, Mapping):
        for name, inner in content.items():
            _check_texts(name, where)
            _check_texts(inner, f"{where}: {name}")
    elif isinstance(content, list | tuple):
        for inner in content:
            _check_texts(inner, where)


def _check_free(target: Path, overwrite: bool, zipped: bool) -> None:
    check_folder_can_be(target.parent)
    if not target.exists():
        return
    if not overwrite:
        raise UserError(f"{target}: already exists; replace it with --overwrite, or name another -o")
    if target.is_dir() != (not zipped):
        raise UserError(f"{target}: is a {'file' if target.is_file() else 'folder'}; name another -o")
    if target.is_dir() and any(target.iterdir()) and not (target / "configs" / "metadata.json").is_file():
        raise UserError(f"{target}: is not empty and holds no bundle to overwrite; name another -o")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _write_json(path: Path, content: Content) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")

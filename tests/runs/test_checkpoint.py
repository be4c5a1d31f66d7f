"""Checkpoints: back bit for bit, or refused; what was whole before a failure still is."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State
from fedbcs_monai.files import DIGEST, sha256
from fedbcs_monai.runs import checkpoint as module
from fedbcs_monai.runs.checkpoint import (
    Checkpoint,
    drop_checkpoints_after,
    newest_round,
    read_checkpoint,
    write_checkpoint,
)


def a_checkpoint(round=1):
    torch.manual_seed(round)
    return Checkpoint(
        State(round, {"conv.weight": torch.randn(2, 3), "n": torch.tensor(round)}, {"decoder/1": torch.randn(1, 4)}),
        {"Al": {"moments/0/step": torch.tensor(3.0)}, "Alder": {"memory/x": torch.randn(2)}, "Birch": {}},
        {"seconds": 1.5, "best": {"round": round, "dice": 0.1 + 0.2}},
    )


def same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first)


def rounds(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def files_of(*numbers):
    return sorted(f"round_{number:04d}.{kind}" for number in numbers for kind in ("json", "safetensors"))


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    written = a_checkpoint()
    write_checkpoint(tmp_path, written)
    read = read_checkpoint(tmp_path)
    assert (read.state.round, read.history) == (1, written.history)
    same(read.state.weights, written.state.weights)
    same(read.state.shared, written.state.shared)
    assert read.sites.keys() == written.sites.keys()
    for name in written.sites:
        same(read.sites[name], written.sites[name])


def test_the_newest_is_read_unless_a_round_is_named(tmp_path):
    for round in (1, 2, 10):
        write_checkpoint(tmp_path, a_checkpoint(round), keep=0)
    assert read_checkpoint(tmp_path).state.round == 10
    assert read_checkpoint(tmp_path, 2).state.round == 2


@pytest.mark.parametrize(("keep", "left"), [(0, (1, 2, 3)), (1, (3,)), (2, (2, 3))])
def test_so_many_are_kept(tmp_path, keep, left):
    for round in (1, 2, 3):
        write_checkpoint(tmp_path, a_checkpoint(round), keep)
    assert rounds(tmp_path) == files_of(*left)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no checkpoint; train from the start"):
        read_checkpoint(tmp_path)
    write_checkpoint(tmp_path, a_checkpoint(1))
    with pytest.raises(UserError, match="no checkpoint of round 2"):
        read_checkpoint(tmp_path, 2)


def damage(file, how):
    content = file.read_bytes()
    changed = {"cut": content[:-1], "changed": content[:-1] + bytes([content[-1] ^ 1]), "empty": b"", "list": b"[]"}
    file.write_bytes(changed[how]) if how in changed else file.unlink()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *[("round_0002.safetensors", how) for how in ("cut", "changed", "empty", "missing")],
        *[("round_0002.json", how) for how in ("cut", "empty", "list")],
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(tmp_path, name, how):
    for round in (1, 2):
        write_checkpoint(tmp_path, a_checkpoint(round))
    damage(tmp_path / name, how)
    with pytest.warns(UserWarning, match=rf"{name}: (damaged|missing).*; resumes from round 1 instead"):
        read = read_checkpoint(tmp_path)
    assert read.state.round == 1
    same(read.state.weights, a_checkpoint(1).state.weights)


def test_where_all_checkpoints_are_damaged_none_is_taken(tmp_path):
    for round in (1, 2):
        write_checkpoint(tmp_path, a_checkpoint(round))
        damage(tmp_path / f"round_000{round}.safetensors", "cut")
    with pytest.raises(UserError, match=r"round_0002\.safetensors: damaged, and so are all before it; train from the"):
        read_checkpoint(tmp_path)


def test_a_round_that_was_named_is_not_replaced_by_another(tmp_path):
    for round in (1, 2):
        write_checkpoint(tmp_path, a_checkpoint(round))
    damage(tmp_path / "round_0002.safetensors", "cut")
    with pytest.raises(UserError, match=r"round_0002\.safetensors: damaged; resume from another round: 1"):
        read_checkpoint(tmp_path, 2)


def test_any_changed_byte_of_what_a_checkpoint_remembers_is_seen(tmp_path):
    path = write_checkpoint(tmp_path, a_checkpoint(1))
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match="damaged"):
            read_checkpoint(tmp_path)
    path.write_bytes(content)
    assert read_checkpoint(tmp_path).history == a_checkpoint(1).history


def test_a_checkpoint_of_an_older_version_can_be_read(tmp_path):
    """It has no digest of its JSON, and none in its tensors."""
    path = write_checkpoint(tmp_path, a_checkpoint(1))
    file = path.with_suffix(".safetensors")
    save_file(load_file(file), file)
    content = json.loads(path.read_text())
    del content[DIGEST]
    path.write_text(json.dumps({**content, "sha256": sha256(file)}))
    same(read_checkpoint(tmp_path).state.weights, a_checkpoint(1).state.weights)


def test_what_a_killed_process_left_is_not_taken_for_a_checkpoint_and_goes(tmp_path):
    write_checkpoint(tmp_path, a_checkpoint(1))
    (tmp_path / ".fedbcs-abc.part").mkdir()
    (tmp_path / ".fedbcs-abc.part" / "round_0002.json").write_text("{}")
    (tmp_path / "round_0002.safetensors").write_bytes(b"tensors without their JSON")
    assert (newest_round(tmp_path), read_checkpoint(tmp_path).state.round) == (1, 1)
    drop_checkpoints_after(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == files_of(1)


@pytest.mark.parametrize("failing", ["write_tensors", "insert_digest"])
def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path, monkeypatch, failing):
    write_checkpoint(tmp_path, a_checkpoint(1), keep=1)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, failing, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, a_checkpoint(2), keep=1)
    same(read_checkpoint(tmp_path).state.weights, a_checkpoint(1).state.weights)

"""Checkpoints: back bit for bit, or refused; what was whole before a failure still is."""

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated import checkpoint as module
from fedbcs_monai.federated.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fedbcs_monai.messages import State


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


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_can_be_read(tmp_path, damage):
    for round in (1, 2):
        write_checkpoint(tmp_path, a_checkpoint(round))
    file = tmp_path / "round_0002.safetensors"
    content = file.read_bytes()
    changed = {"cut": content[:-1], "changed": content[:-1] + bytes([content[-1] ^ 1])}
    file.write_bytes(changed[damage]) if damage in changed else file.unlink()
    with pytest.raises(UserError, match=r"damaged or missing; remove round_0002\.json"):
        read_checkpoint(tmp_path)
    (tmp_path / "round_0002.json").unlink()
    assert read_checkpoint(tmp_path).state.round == 1


@pytest.mark.parametrize("content", ["", '{"round": 2', "[]", '{"round": 2}'])
def test_a_checkpoint_whose_json_is_damaged_is_refused(tmp_path, content):
    for round in (1, 2):
        write_checkpoint(tmp_path, a_checkpoint(round))
    (tmp_path / "round_0002.json").write_text(content)
    with pytest.raises(UserError, match=r"round_0002\.json: damaged; remove it to go on from the round before"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("failing", ["write_tensors", "write_atomically"])
def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path, monkeypatch, failing):
    write_checkpoint(tmp_path, a_checkpoint(1), keep=1)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, failing, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, a_checkpoint(2), keep=1)
    same(read_checkpoint(tmp_path).state.weights, a_checkpoint(1).state.weights)

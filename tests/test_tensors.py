"""Maths on named tensors: the mean of the published code, and files that are whole or not there."""

import os
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fedbcs_monai.tensors import Stored, combine, detached, joined, mean, prefixed, read_tensors, under, write_tensors

VECTORS = np.load(Path(__file__).parent / "vectors" / "fedavg.npz")
CLIENTS = [{name: torch.from_numpy(VECTORS[f"in_{name}"][k]) for name in "wb"} for k in range(3)]


@pytest.mark.parametrize(("weights", "suffix"), [(VECTORS["in_n"].tolist(), ""), ([1, 1, 1], "_equal")])
def test_the_mean_is_that_of_the_published_code(weights, suffix):
    averaged = mean(zip(CLIENTS, weights, strict=True))
    for name in "wb":
        wanted = torch.from_numpy(VECTORS[f"out_{name}{suffix}"])
        assert averaged[name].dtype == torch.float32
        assert (averaged[name] - wanted).abs().max() <= 1e-6 * wanted.abs().max()


def test_only_the_ratio_of_the_weights_counts():
    parts = [({"w": torch.tensor([value])}, weight) for value, weight in ((1.0, 1), (5.0, 3))]
    assert mean(parts)["w"].item() == 4
    assert mean((tensors, weight / 8) for tensors, weight in parts)["w"].item() == 4


def test_the_mean_of_one_part_is_that_part_bit_for_bit():
    assert all(torch.equal(mean([(CLIENTS[0], 8)])[name], CLIENTS[0][name]) for name in "wb")


def test_sums_are_kept_in_double_precision():
    values = (2.0**24, 1.0, -(2.0**24), 2.0)  # in single precision the 1 is lost
    assert mean(({"w": torch.tensor([value])}, 1) for value in values)["w"].item() == 0.75


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_mean_keeps_the_kind_of_number(dtype):
    averaged = mean([({"w": torch.tensor([1.0], dtype=dtype)}, 1), ({"w": torch.tensor([2.0], dtype=dtype)}, 1)])
    assert averaged["w"].dtype == dtype
    assert averaged["w"].item() == 1.5


def test_counters_are_copied_from_the_largest_part_and_the_first_of_equals():
    parts = [({"n": torch.tensor(count)}, weight) for count, weight in ((5, 1), (7, 3), (9, 3))]
    assert mean(parts)["n"].item() == 7
    assert mean(parts[::-1])["n"].item() == 9
    assert mean(parts)["n"].dtype == torch.int64


def test_the_mean_of_stored_parts_has_the_same_bits():
    weights = VECTORS["in_n"].tolist()
    stored = [Stored({name: partial(torch.clone, client[name]) for name in client}) for client in CLIENTS]
    found, wanted = mean(zip(stored, weights, strict=True)), mean(zip(CLIENTS, weights, strict=True))
    assert all(torch.equal(found[name], wanted[name]) for name in "wb")
    with pytest.raises(ValueError, match="names or shapes differ: b"):
        mean([(stored[0], 1), (Stored({"w": lambda: CLIENTS[0]["w"]}), 1)])


def test_stored_parts_are_added_up_piece_by_piece(monkeypatch):
    parts = [{"w": torch.rand(7, 3), "n": torch.tensor(k)} for k in range(3)]
    wanted = mean(zip(parts, (1, 5, 2), strict=True))
    monkeypatch.setattr("fedbcs_monai.tensors.PIECE", 8)
    stored = [Stored({name: partial(torch.clone, part[name]) for name in part}) for part in parts]
    found = mean(zip(stored, (1, 5, 2), strict=True))
    assert all(torch.equal(found[name], wanted[name]) for name in "wn")
    with pytest.raises(ValueError, match="names or shapes differ: w"):
        mean([(stored[0], 1), (Stored({"w": lambda: torch.rand(3, 7), "n": lambda: torch.tensor(1)}), 1)])


def test_parts_are_left_as_they_were():
    parts = [({"w": torch.ones(2), "n": torch.tensor(1)}, 1), ({"w": torch.zeros(2), "n": torch.tensor(2)}, 2)]
    averaged = mean(parts)
    averaged["w"].add_(1), averaged["n"].add_(1)
    assert parts[0][0]["w"].tolist() == [1, 1]
    assert [tensors["n"].item() for tensors, _ in parts] == [1, 2]


def test_parts_are_taken_in_the_order_given_and_let_go_one_by_one():
    alive, taken = [], []

    def parts():
        for k in range(4):
            tensor = torch.full((10,), float(k))
            alive.append(weakref.ref(tensor))
            taken.append(sum(ref() is not None for ref in alive))
            yield {"w": tensor}, 1
            del tensor

    assert mean(parts())["w"][0].item() == 1.5
    assert max(taken) <= 2  # the new one, and the last one that was added


def test_another_order_gives_the_same_mean_but_for_the_last_bits():
    one, other = mean((c, 1) for c in CLIENTS), mean((c, 1) for c in CLIENTS[::-1])
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_must_be_positive_and_finite(weight):
    with pytest.raises(ValueError, match="must be positive and finite"):
        mean([({"w": torch.ones(1)}, 1), ({"w": torch.ones(1)}, weight)])


@pytest.mark.parametrize(
    ("other", "named"),
    [({"v": torch.ones(2)}, "v, w"), ({}, "w"), ({"w": torch.ones(3)}, "w"), ({"w": torch.ones(2, 1)}, "w")],
)
def test_parts_that_do_not_fit_are_named(other, named):
    with pytest.raises(ValueError, match=f"names or shapes differ: {named}$"):
        mean([({"w": torch.ones(2)}, 1), (other, 1)])


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="no update was given"):
        mean([])


def test_what_is_filed_under_a_prefix_comes_back():
    tensors = {"1": torch.ones(1), "a/2": torch.zeros(1)}
    filed = {**prefixed("encoder", tensors), **prefixed("encoder2", {"1": torch.ones(2)})}
    assert list(filed) == ["encoder/1", "encoder/a/2", "encoder2/1"]
    assert under("encoder", filed) == tensors


def test_rows_are_joined_part_after_part():
    found = joined([{"b": torch.zeros(2), "a": torch.ones(1, 2)}, {}, {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}])
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [[1, 1]], "b": [[0, 0], [1, 2], [3, 4]]}
    assert list(found) == ["a", "b"]
    assert joined([]) == {}


def test_combine_goes_name_by_name():
    difference = combine(
        torch.sub, {"a": torch.tensor(3), "b": torch.tensor(1)}, {"b": torch.tensor(5), "a": torch.tensor(1)}
    )
    assert {name: value.item() for name, value in difference.items()} == {"a": 2, "b": -4}


def test_detached_copies_do_not_follow_their_original():
    weight = torch.nn.Parameter(torch.ones(2))
    copy = detached({"w": weight})["w"]
    with torch.no_grad():
        weight.add_(1)
    assert not copy.requires_grad
    assert copy.tolist() == [1, 1]


def test_tensors_are_read_back_bit_for_bit(tmp_path):
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)
    tensors = {f"{kind}": torch.randn(2, 3).to(kind) for kind in kinds}
    tensors |= {
        "a/scalar": torch.tensor(0.1),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "none": torch.zeros(0, 4),
    }
    write_tensors(tmp_path / "new" / "file.safetensors", tensors)
    back = read_tensors(tmp_path / "new" / "file.safetensors")
    assert list(back) == sorted(tensors)
    assert all(back[name].dtype == t.dtype and torch.equal(back[name], t) for name, t in tensors.items())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"w": torch.ones(1)})

    def no_space(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_tensors(path, {"w": torch.zeros(1)})
    assert read_tensors(path)["w"].item() == 1


def test_what_leaves_a_site_is_plain_whatever_monai_has_made_of_it():
    image = MetaTensor(torch.ones(2), meta={"filename_or_obj": "somebody.nii.gz"})
    assert type(detached({"mean": image})["mean"]) is torch.Tensor

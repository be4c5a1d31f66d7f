"""Thousands of mutated updates: none ends a round, changes a state that it was refused for, or spoils one."""

import json
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedbcs_monai import methods
from fedbcs_monai.backends.nvflare.wire import decode_update, update_of, write_message
from fedbcs_monai.federated.messages import Broadcast, State, Update, read_or_refuse
from fedbcs_monai.federated.server import aggregator_of
from fedbcs_monai.federated.validation import NUMBERS
from fedbcs_monai.networks import build_segmenter
from fedbcs_monai.ood.distance import QUESTIONS, style_answer
from fedbcs_monai.tensors import detached

SITES = ("Alder", "Birch", "Cedar", "Dogwood")
METHODS = ("FedAvg", "SCAFFOLD", "FedBCS", "FedPLVM", "FedHPro")
MUTANT = "Dogwood"

# From the name of a kind to a function of a source of random numbers and an update.
KINDS = {}


def kind(name):
    def add(function):
        KINDS[name] = function
        return function

    return add


def table(prefix, part, values):
    """A kind for each value that stands in the place of one part."""
    for name, value in values.items():
        KINDS[f"{prefix}: {name}"] = lambda draw, update, value=value: replace(
            update, **{part: value(draw, update) if callable(value) else value}
        )


NAMES = {
    **{repr(name): name for name in ("", ".", "..", "../evil", "a/b", "a\\b", "a\nb", " a", "a.", "=1+1", "\ud800")},
    **{"long": "a" * 101, "None": None, "bytes": b"Dogwood", "number": 7, "null": "a\0b", "another's": "Alder"},
}
COUNTS = {"0": 0, "-1": -1, "1e9": 10**9, "huge": 10**400, "nan": math.nan, "inf": math.inf, "True": True, "5.0": 5.0}
table("name", "site", NAMES)
table("cases", "cases", {**COUNTS, "None": None, "text": "5", "tensor": torch.tensor(5)})
VALUES = {"nan": math.nan, "inf": math.inf, "huge": 10**400, "text": "1", "None": None, "True": True, "list": [1.0]}
for metric in ("loss", "train_cases", "test_cases", "val_dice", "cases", "usual_variance"):
    for said, value in {**VALUES, "-3": -3, "2.5": 2.5}.items():
        KINDS[f"{metric}: {said}"] = lambda draw, update, metric=metric, value=value: replace(
            update, metrics={**update.metrics, metric: value}
        )
table(
    "numbers",
    "metrics",
    {
        **{"list": [1.0], "None": None, "number as name": {3: 1.0}, "line as name": {"a\nb": 1.0}},
        **{"many": {f"m{n}": 1.0 for n in range(2000)}, "long name": {"m" * 500: 1.0}},
    },
)


def of_one_tensor(name, change):
    """A kind for the weights and one for what is shared."""
    for part in ("weights", "shared"):

        def mutate(draw, update, part=part):
            tensors = dict(getattr(update, part))
            if tensors:
                which = draw.choice(sorted(tensors))
                tensors[which] = change(draw, tensors[which])
            return replace(update, **{part: tensors})

        KINDS[f"{part}: {name}"] = mutate


def with_one(draw, tensor, value):
    """One number of a tensor is another."""
    changed = tensor.clone().float() if tensor.is_floating_point() else tensor.clone()
    if changed.numel():
        changed.view(-1)[draw.randrange(changed.numel())] = value
    return changed


for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int32, torch.bool):
    of_one_tensor(str(dtype), lambda draw, tensor, dtype=dtype: tensor.to(dtype))
of_one_tensor("complex", lambda draw, tensor: tensor.to(torch.complex64))
of_one_tensor("1e300 in float64", lambda draw, tensor: tensor.double() * 1e300)
for value in (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e13, 1e-45):
    of_one_tensor(
        f"one {value}",
        lambda draw, tensor, value=value: with_one(draw, tensor, value if tensor.is_floating_point() else 7**9),
    )
for factor in (1e3, -1e3, 1e6, 1e20, 0.0):
    of_one_tensor(f"one times {factor}", lambda draw, tensor, factor=factor: (tensor * factor).to(tensor.dtype))
of_one_tensor("longer", lambda draw, tensor: torch.cat([tensor.flatten(), torch.ones(1)]))
of_one_tensor("another axis", lambda draw, tensor: tensor[None])
of_one_tensor("empty", lambda draw, tensor: tensor.flatten()[:0])
of_one_tensor("scalar", lambda draw, tensor: torch.tensor(1.0))
of_one_tensor("list", lambda draw, tensor: tensor.tolist())
of_one_tensor("None", lambda draw, tensor: None)
of_one_tensor("sparse", lambda draw, tensor: tensor.to_sparse())
of_one_tensor("without memory", lambda draw, tensor: tensor.to("meta"))
of_one_tensor("to be differentiated", lambda draw, tensor: nn.Parameter(tensor.float()))
of_one_tensor("expanded", lambda draw, tensor: tensor.flatten()[0].expand(tensor.shape))
of_one_tensor("endless", lambda draw, tensor: torch.ones(1).expand(2**21))
of_one_tensor("transposed", lambda draw, tensor: tensor.transpose(0, -1) if tensor.ndim > 1 else tensor)
of_one_tensor("negative", lambda draw, tensor: -tensor.abs() - 1 if tensor.dtype != torch.bool else tensor)

for part in ("weights", "shared"):
    for name, change in {
        "times 1000": lambda tensor: tensor * 1000,
        "times -1000": lambda tensor: tensor * -1000,
        "3e38": lambda tensor: torch.full_like(tensor, 3e38),
        "random": lambda tensor: 100 * torch.rand_like(tensor),
        "zero": torch.zeros_like,
    }.items():
        KINDS[f"{part}: all {name}"] = lambda draw, update, part=part, change=change: replace(
            update,
            **{part: {n: change(t) if t.is_floating_point() else t for n, t in getattr(update, part).items()}},
        )
    table(
        part,
        part,
        {
            "None": None,
            "list": lambda draw, update: list(update.weights.items()),
            "none of them": {},
            "one missing": lambda draw, update, part=part: dict(sorted(getattr(update, part).items())[1:]),
            "one more": lambda draw, update, part=part: {**getattr(update, part), "more": torch.ones(1)},
            "a name that is none": lambda draw, update, part=part: {**getattr(update, part), 7: torch.ones(1)},
            "many": lambda draw, update, part=part: {
                **getattr(update, part),
                **{f"more{n}": torch.ones(1) for n in range(2000)},
            },
        },
    )


@kind("shared: many rows")
def many_rows(draw, update):
    rows = {name: tensor.reshape(-1)[: tensor.shape[-1]] for name, tensor in update.shared.items()}
    return replace(update, shared={name: row.expand(5000, len(row)).clone() for name, row in rows.items()})


@kind("no update")
def no_update(draw, update):
    return draw.choice([None, 7, "update", {}, update.weights])


@kind("twice the same")
def untouched(draw, update):
    return update


# What honest sites answer.


class Honest:
    """A federation of one method whose sites take random steps."""

    def __init__(self, name):
        torch.manual_seed(0)
        layers = {"context": {"width": 4}, "harmonize": {}, "norm": "batch"}
        self.network = build_segmenter("BasicUNet", 2, 1, 2, [4] * 5, **layers)
        self.method = getattr(methods, name)()
        self.payload = self.method.payload(self.network)
        self.start = State(0, detached(self.network.state_dict()), {})
        self.states = [self.start]
        for _ in range(2):
            *_, state = self.server().rounds(self.ask, len(self.states))
            self.states.append(state)

    def server(self, round=None):
        server = aggregator_of(self.method, self.network, self.states[-1])
        if len(self.states) > 1 or round:
            server.history.restore(self.history)
        if round is not None:
            server.state = self.states[round]
            if not round:
                server.history = type(server.history)()
        self.history = server.history.plain() if round is None else self.history
        return server

    def update(self, site, broadcast):
        seed = torch.Generator().manual_seed(SITES.index(site) + 10 * broadcast.round)
        if broadcast.task in NUMBERS:
            return self.numbers(site, broadcast, seed)
        weights = {
            name: tensor + 0.01 * torch.rand(tensor.shape, generator=seed) if tensor.is_floating_point() else tensor + 2
            for name, tensor in broadcast.weights.items()
        }
        shapes = {name: [3 if n < 0 else n for n in spec.shape] for name, spec in self.payload.items()}
        shared = {name: 0.5 + torch.rand(shape, generator=seed) for name, shape in shapes.items()}
        return Update(site, 5, weights, shared, {"loss": 0.5, "seconds": 1.0})

    def numbers(self, site, broadcast, seed):
        counts = {"train_cases": 6.0, "val_cases": 2.0, "test_cases": 3.0}
        if broadcast.task in QUESTIONS:
            answer = style_answer(broadcast.task, torch.rand(6, 4, generator=seed), broadcast.shared)
            return Update(site, 5, {}, dict(answer.tensors), dict(answer.numbers))
        shared = {"dice": torch.rand(3, generator=seed).double()} if broadcast.task == "test" else {}
        return Update(site, 5, {}, shared, {"val_dice": 0.5} if broadcast.task == "evaluate" else counts)

    def ask(self, broadcast):
        return [self.update(site, broadcast) for site in SITES[:3]]


@pytest.fixture(scope="module")
def federations():
    return {name: Honest(name) for name in METHODS}


# On the wire.


def by_file(draw, folder, update, damaged):
    """Through the file that carries messages between the processes of a site."""
    path = folder / "message.safetensors"
    write_message(path, update)
    path.write_bytes(damage(draw, path.read_bytes()) if damaged else path.read_bytes())
    return decode_update(path)


def by_nvflare(draw, folder, update, damaged):
    """Through NVFlare's serialisation."""
    from nvflare.app_common.utils.fl_model_utils import FLModelUtils
    from nvflare.app_opt.pt.decomposers import TensorDecomposer
    from nvflare.fuel.utils import fobs

    from fedbcs_monai.backends.nvflare.messages import model_of, update_in

    fobs.register(TensorDecomposer)
    content = fobs.dumps(FLModelUtils.to_shareable(model_of(update)))
    model = FLModelUtils.from_shareable(fobs.loads(damage(draw, content) if damaged else content))
    return update_in(model)


def damage(draw, content):
    """Some bytes are others, or the end is missing."""
    changed = bytearray(content)
    if draw.random() < 0.3:
        return bytes(changed[: draw.randrange(len(changed))])
    header = draw.random() < 0.5
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(min(len(changed), 2000) if header else len(changed))] = draw.randrange(256)
    return bytes(changed)


def carried(draw, way, folder, update):
    """A mutant as it comes out; what cannot be sent has no other way than in one process."""
    if way is None:
        return update
    return read_or_refuse(MUTANT, lambda: way(draw, folder, update, damaged=draw.random() < 0.3))


# What must hold.


def outcome(federation, round, mutant, last):
    """The state after a round with a mutant among honest sites, and whether it was refused."""
    refused = []
    server = federation.server(round)
    server.refused = lambda broadcast, site, reason: refused.append(reason)

    def ask(broadcast):
        honest = [federation.update(site, broadcast) for site in SITES[:3]]
        at = 3 if last else 1
        return [*honest[:at], mutant(broadcast), *honest[at:]]

    (state,) = server.rounds(ask, round + 1)
    return state, refused


def largest(tensors):
    return max((float(t.double().abs().max()) for t in tensors.values() if t.is_floating_point()), default=0.0)


def spoilt(state, honest):
    """What is absurd in a state beside that of honest sites alone."""
    for part in ("weights", "shared"):
        found, wanted = getattr(state, part), getattr(honest, part)
        assert found.keys() == wanted.keys()
        if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
            return f"{part} are not finite"
        if largest(found) > 20 * largest(wanted):
            return f"{part} are as large as {largest(found):.3g}, not {largest(wanted):.3g}"
        if any(tensor.dtype != wanted[name].dtype for name, tensor in found.items()):
            return f"{part} have other types"
    if any(name.endswith("running_var") and bool((t < 0).any()) for name, t in state.weights.items()):
        return "a variance is below 0"
    return None


def same(first, second):
    pairs = ((first.weights, second.weights), (first.shared, second.shared))
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


def drill(federations, way, count, folder):
    """So many mutants; from what happened to how often, with those that did harm named."""
    draw, happened = random.Random(count), Counter()
    kinds = sorted(KINDS)
    for n in range(count):
        name, method = kinds[n % len(kinds)], METHODS[(n // len(kinds) + n) % len(METHODS)]
        federation, round, seed = federations[method], draw.randrange(2), draw.random()

        def mutant(broadcast, federation=federation, name=name, seed=seed):
            again = random.Random(seed)  # a round that is asked for again has the same answers
            mutated = KINDS[name](again, federation.update(MUTANT, broadcast))
            return carried(again, way if isinstance(mutated, Update) else None, folder, mutated)

        state, refused = outcome(federation, round, mutant, last="another" in name)
        honest = federation.states[round + 1]
        if refused and not same(state, honest):
            happened[f"changed: {name}, {method}"] += 1
        elif not refused and (harm := spoilt(state, honest)):
            happened[f"spoilt: {name}, {method}: {harm}"] += 1
        happened["refused" if refused else "accepted"] += 1
    return happened


def test_there_are_enough_kinds():
    assert len(KINDS) >= 55


WAYS = {"objects": None, "files": by_file, "NVFlare": by_nvflare}


@pytest.mark.parametrize("count", [130, pytest.param(3340, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
def test_no_mutant_ends_a_round_or_does_harm(way, count, federations, tmp_path):
    if way == "NVFlare":
        pytest.importorskip("nvflare")
    happened = drill(federations, WAYS[way], count, tmp_path)
    assert {what: times for what, times in happened.items() if what not in ("refused", "accepted")} == {}
    assert happened["refused"] > count / 2


@pytest.mark.parametrize("task", NUMBERS)
def test_no_mutated_numbers_are_accepted_that_cannot_be_counted_with(task, federations):
    """Whatever is accepted is finite, counts are whole, and JSON can hold it."""
    federation, draw = federations["FedAvg"], random.Random(0)
    for name in sorted(KINDS):
        server = federation.server(1)
        sent = {"covariance": torch.eye(4), "freedom": torch.tensor(10.0)} if task == "distances" else {}
        broadcast = Broadcast(1, server.state.weights, sent, task)

        def ask(broadcast, name=name):
            yield federation.update("Alder", broadcast)
            yield KINDS[name](draw, federation.update(MUTANT, broadcast))

        accepted = server.numbers(ask, broadcast)
        assert accepted[0].site == "Alder"
        for update in accepted:
            json.dumps(dict(update.metrics), allow_nan=False)
            assert all(float(v).is_integer() for n, v in update.metrics.items() if n.endswith("cases")), name
            assert all(bool(tensor.isfinite().all()) for tensor in update.shared.values()), name


def test_a_head_may_hold_anything():
    """What a damaged head says is no update, and no error."""
    for header in ({}, {"site": "Alder"}, {"site": "Alder", "cases": 5}, []):
        found = read_or_refuse("Alder", lambda header=header: update_of(header, {}))
        assert "cannot be read" in found.reason

"""Prototypes that a run keeps: those of a class alone, by the names of the messages."""

import pytest
import torch

from fedbcs_monai.files import DamagedError
from fedbcs_monai.runs.prototypes import read_kept_prototypes, write_prototypes
from fedbcs_monai.runs.schema import PROTOTYPES


def test_what_is_written_is_read_and_what_describes_no_class_is_left_out(tmp_path):
    server = {"decoder/1": torch.ones(2, 3), "control": torch.ones(4)}
    write_prototypes(tmp_path, server, {"St. Ash, north": {"decoder/1": torch.zeros(3)}})
    kept = read_kept_prototypes(tmp_path)
    assert kept is not None
    assert list(kept.server) == ["decoder/1"]
    assert torch.equal(kept.server["decoder/1"], torch.ones(2, 3))
    assert {site: list(sent) for site, sent in kept.sites.items()} == {"St. Ash, north": ["decoder/1"]}


def test_the_same_tensor_at_site_and_server_is_written_twice(tmp_path):
    relayed = torch.ones(3)
    write_prototypes(tmp_path, {"Ash/1": relayed}, {"Ash": {"1": relayed}})
    kept = read_kept_prototypes(tmp_path)
    assert kept is not None
    assert torch.equal(kept.server["Ash/1"], kept.sites["Ash"]["1"])


def test_a_method_without_prototypes_leaves_no_file(tmp_path):
    write_prototypes(tmp_path, {"control": torch.ones(4)}, {"Ash": {}})
    assert list(tmp_path.iterdir()) == []
    assert read_kept_prototypes(tmp_path) is None


def test_a_damaged_file_is_refused(tmp_path):
    write_prototypes(tmp_path, {"1": torch.ones(3)}, {})
    path = tmp_path / PROTOTYPES
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DamagedError):
        read_kept_prototypes(tmp_path)

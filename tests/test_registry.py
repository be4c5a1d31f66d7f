"""Registry: what an installed package registers is permitted, and nothing is imported because a file names it."""

import sys

import pytest

from fedbcs_monai.components import build
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.trust import load_job
from fedbcs_monai.methods import FedAvg
from fedbcs_monai.registry import method_names, method_target, network_layers, own_methods
from fedbcs_monai.runs.setup import build_network, compute_of, method_of

CODE = '''
from dataclasses import dataclass
from typing import ClassVar

from fedbcs_monai.methods import FedAvg
from fedbcs_monai.networks import build_segmenter


@dataclass(frozen=True)
class FedMine(FedAvg):
    """Ours, with instance norm."""

    mu: float = 1.0
    network_layers: ClassVar = {"norm": "instance"}


def narrow(width: int = 8):
    return build_segmenter(features=[width] * 5)
'''
POINTS = """
[fedbcs_monai.methods]
FedMine = minelab.code:FedMine

[fedbcs_monai.networks]
narrow = minelab.code:narrow
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip leaves it: its code, and metadata that registers a method and a network."""
    (tmp_path / "minelab").mkdir()
    (tmp_path / "minelab" / "__init__.py").touch()
    (tmp_path / "minelab" / "code.py").write_text(CODE)
    info = tmp_path / "minelab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: minelab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("minelab", "minelab.code"):
        sys.modules.pop(name, None)


def test_an_installed_method_is_named_as_ours_are(package):
    assert "FedMine" in method_names()
    settings = load_config("nuclei", {"method": "fedmine", "method::mu": 0.5})
    assert settings.method == {"_target_": "minelab.code.FedMine", "mu": 0.5}
    assert settings.network_def["norm"] == "instance"
    assert method_of(settings).mu == 0.5


def test_an_installed_network_is_built_by_its_name(package):
    settings = load_config("nuclei", {"network_def": {"_target_": "narrow", "width": 16}, "device": "cpu"})
    assert build_network(settings, compute_of(settings)).encoder_levels[0].channels == 16


def test_a_job_may_name_what_the_site_has_installed(package):
    (package / "experiment.json").write_text('{"method": {"_target_": "minelab.code.FedMine", "mu": 2}}')
    assert build(load_job(package / "experiment.json", {}), "method").mu == 2


def test_another_name_of_that_package_is_not_permitted_and_not_imported(package):
    with pytest.raises(UserError, match="not permitted"):
        load_config("nuclei", {"method": {"_target_": "minelab.code.Other"}})
    assert "minelab" not in sys.modules


def test_an_argument_of_an_installed_method_is_words_and_numbers(package):
    with pytest.raises(UserError, match=r"method::mu: .* is an expression"):
        load_config("nuclei", {"method": {"_target_": "minelab.code.FedMine", "mu": "$print(1)"}})


def test_a_package_that_cannot_be_imported_is_named(package):
    (package / "minelab" / "code.py").write_text("import nowhere_to_be_found")
    with pytest.raises(UserError, match=r"minelab\.code\.FedMine: the installed package that registers it fails"):
        load_config("nuclei", {"method": "FedMine"})


def test_no_package_can_take_the_name_of_a_method_of_ours(package):
    (package / "minelab-1.0.dist-info" / "entry_points.txt").write_text(
        "[fedbcs_monai.methods]\nFedAvg = minelab.code:FedMine\n"
    )
    assert method_target("FedAvg") == "fedbcs_monai.methods.FedAvg"


def test_a_method_may_be_named_by_its_module_and_is_then_to_be_trusted(package):
    (package / "minelab-1.0.dist-info" / "entry_points.txt").write_text("")
    with pytest.raises(UserError, match=r"--trust minelab\.code\.FedMine"):
        load_config("nuclei", {"method": "minelab.code.FedMine"})
    assert "minelab" not in sys.modules
    settings = load_config("nuclei", {"method": "minelab.code.FedMine"}, trust=["minelab.code.FedMine"])
    assert settings.network_def["norm"] == "instance"


def test_the_layers_of_a_class_win_over_those_of_its_bases():
    class Base(FedAvg):
        network_layers = {"style": {"gate": "scalar"}}  # noqa: RUF012

    class Derived(Base):
        network_layers = {"norm": "batch"}  # noqa: RUF012

    assert network_layers(FedAvg) == {"norm": "group"}
    assert network_layers(Derived) == {"norm": "batch", "style": {"gate": "scalar"}}
    assert list(own_methods())[:3] == ["FedAvg", "FedAvgM", "FedBCS"]

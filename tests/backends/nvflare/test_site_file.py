"""The site file: what it says is taken, what it does not know is refused with the file's name."""

from pathlib import Path

import pytest

from fedbcs_monai.backends.nvflare.site_file import TEXT, checked_run_id, read_site_file
from fedbcs_monai.errors import UserError


@pytest.fixture
def kit(tmp_path):
    (tmp_path / "local").mkdir()
    return tmp_path


def site_file(kit, text):
    (kit / "local" / "fedbcs.yaml").write_text(text)
    return read_site_file(kit)


def test_without_a_file_the_kit_holds_the_states_and_nothing_is_allowed(kit):
    found = read_site_file(kit)
    assert (found.folder, found.overrides, found.allow, found.case_scores) == (kit / "fedbcs", {}, (), False)


def test_paths_are_relative_to_the_file(kit):
    found = site_file(kit, "sites: ../data/sites.json\nfolder: ../states\nname: Alder\ndevice: cuda:1\n")
    assert Path(found.overrides["sites"]).resolve() == kit / "data" / "sites.json"
    assert found.folder.resolve() == kit / "states"
    assert (found.name, found.overrides["device"]) == ("Alder", "cuda:1")


def test_the_file_that_provisioning_writes_can_be_read_and_with_every_line_in_use(kit):
    assert site_file(kit, TEXT).case_scores is False
    lines = [line.removeprefix("# ") for line in TEXT.splitlines()[1:]]
    found = site_file(kit, "\n".join(lines))
    assert (found.name, found.python) == ("Alder", "/opt/fedbcs/bin/python")
    assert found.overrides.keys() == {"sites", "device", "threads", "workers", "cache", "ood"}


def test_a_name_stays_text(kit):
    assert site_file(kit, "name: NO\n").name == "NO"
    assert site_file(kit, "name: 001\n").name == "001"


def test_another_file_may_be_named(kit, monkeypatch):
    (kit / "other.yaml").write_text("name: Birch\n")
    monkeypatch.setenv("FEDBCS_SITE_FILE", str(kit / "other.yaml"))
    assert read_site_file(kit).name == "Birch"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rounds: 3\n", "unknown rounds; it may have allow, "),
        ("- sites\n", "must be lines of the form"),
        ("sites: [\n", "cannot be read"),
    ],
)
def test_what_is_not_understood_is_refused(kit, text, said):
    with pytest.raises(UserError, match=said) as refusal:
        site_file(kit, text)
    assert "local/fedbcs.yaml" in str(refusal.value)


@pytest.mark.parametrize("run_id", ["../../etc", "a/b", "", ".hidden", "x" * 65])
def test_a_run_cannot_lead_out_of_its_folder(run_id):
    with pytest.raises(UserError, match="is not a valid run id"):
        checked_run_id(run_id)

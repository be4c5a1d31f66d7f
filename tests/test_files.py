"""Files: whole or not at all, and no damage goes unseen."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fedbcs_monai.errors import UserError
from fedbcs_monai.files import (
    DamagedError,
    check_case,
    check_file_can_be,
    check_folder_can_be,
    check_sum,
    replace_folder,
    sha256,
    sweep,
    together,
    whole,
    write_sum,
    write_whole,
)
from fedbcs_monai.tensors import read_tensors, write_tensors

TENSORS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7), "half": torch.ones(3).bfloat16()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A file of tensors, and its content."""
    path = tmp_path_factory.mktemp("stored") / "model.safetensors"
    write_tensors(path, TENSORS)
    return path, path.read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Damage.


@pytest.mark.parametrize("bit", [1, 2, 32, 255])
def test_any_changed_byte_of_a_file_of_tensors_is_seen(stored, tmp_path, bit):
    _, content = stored
    path = tmp_path / "model.safetensors"
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        with pytest.raises(DamagedError, match=r"model\.safetensors: damaged"):
            read_tensors(path)


@given(st.data())
def test_any_part_that_is_lost_added_or_replaced_is_seen(stored, data):
    path, content = stored
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    other = content[:start] + data.draw(st.binary(max_size=64)) + content[end:]
    damaged = path.with_name("damaged.safetensors")
    damaged.write_bytes(other)
    if other != content:
        with pytest.raises(DamagedError):
            read_tensors(damaged)


def test_the_digest_is_in_the_file_itself_and_other_programs_read_it(stored, tmp_path):
    path, content = stored
    (tmp_path / "elsewhere.safetensors").write_bytes(content)
    assert read_tensors(tmp_path / "elsewhere.safetensors").keys() == TENSORS.keys()
    assert torch.equal(load_file(path)["conv.weight"], TENSORS["conv.weight"])
    with safe_open(path, framework="pt") as file:
        digest = file.metadata()["fedbcs_digest"].removeprefix("sha256:")
    (tmp_path / "blank").write_bytes(content.replace(digest.encode(), b"0" * 64))
    assert sha256(tmp_path / "blank") == digest


def test_the_same_tensors_are_the_same_bytes(stored, tmp_path):
    write_tensors(tmp_path / "again.safetensors", dict(reversed(TENSORS.items())))
    assert (tmp_path / "again.safetensors").read_bytes() == stored[1]


def test_a_file_of_an_older_version_is_taken_with_a_warning(tmp_path):
    save_file(TENSORS, tmp_path / "old.safetensors")
    with pytest.warns(UserWarning, match=r"old\.safetensors: holds no SHA-256 of itself"):
        assert read_tensors(tmp_path / "old.safetensors").keys() == TENSORS.keys()


def test_a_file_is_held_against_the_sum_beside_it(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    check_sum(path, b"anything")  # there is none yet
    write_sum(path)
    check_sum(path, b"weights")
    assert subprocess.run(["sha256sum", "-c", "model.pt.sha256"], cwd=tmp_path, capture_output=True).returncode == 0
    for content, damage in ((b"weightz", b""), (b"weights", b"0")):
        beside = tmp_path / "model.pt.sha256"
        beside.write_bytes(damage + beside.read_bytes())
        with pytest.raises(DamagedError, match=r"model\.pt: is not the file whose SHA-256 is in model\.pt\.sha256"):
            check_sum(path, content)


def test_a_case_is_held_against_its_list_and_again_when_it_changes(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"label")
    item = {"image": "nowhere", "label": str(path), "case": "0123abcd", "sha256": {"label": sha256(path)}}
    check_case(item)
    path.write_bytes(b"other")
    os.utime(path, (1, 1))
    with pytest.raises(
        UserError, match=r"case 0123abcd: label .*a\.png has changed since it was listed; .*fedbcs sites"
    ):
        check_case(item)
    check_case(item, "image")  # not listed with a SHA-256
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        check_case(item)


# Whole or not at all.


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole(path) as part:
        part.write_text("a")
        assert not path.exists()
    assert (path.read_text(), names(path.parent)) == ("a", ["a.txt"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), whole(tmp_path / "a") as part:
        part.write_text("new")
        raise error
    assert ((tmp_path / "a").read_text(), names(tmp_path)) == ("old", ["a"])


def test_no_file_appears_where_a_folder_is_in_the_way_of_one(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError), together(tmp_path) as part:
        for name in ("a", "b"):
            part(tmp_path / name).write_text(name)
    assert names(tmp_path) == ["b"]


def test_files_are_as_open_to_others_as_any(tmp_path):
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "a", b"")
    write_tensors(tmp_path / "b", {})
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize(
    "write", ["write_tensors(path, {'w': torch.zeros(100_000)})", "write_whole(path, bytes(10**6))"]
)
def test_a_killed_process_leaves_the_old_file_and_what_can_be_swept(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old")
    kill = "import os, signal, torch\nfrom pathlib import Path\nfrom fedbcs_monai import files\n"
    kill += "from fedbcs_monai.files import write_whole\nfrom fedbcs_monai.tensors import write_tensors\n"
    kill += "files._to_disk = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
    kill += f"path = Path({str(path)!r})\n{write}"
    assert subprocess.run([sys.executable, "-c", kill]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    sweep(tmp_path)
    assert names(tmp_path) == ["file"]


@pytest.fixture
def small_files():
    """A process that may write no file above 4 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[0][1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
    signal.signal(signal.SIGXFSZ, before[1])


@pytest.mark.parametrize(
    "write",
    [lambda path: write_tensors(path, {"w": torch.zeros(10_000)}), lambda path: write_whole(path, bytes(10_000))],
    ids=["tensors", "bytes"],
)
def test_a_file_too_large_for_the_system_is_an_error_that_names_it(tmp_path, small_files, write):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="File too large") as refused:
        write(path)
    assert refused.value.filename == str(path)
    assert (path.read_text(), names(tmp_path)) == ("old", ["file"])


def test_a_folder_comes_back_when_it_cannot_be_replaced(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "old", tmp_path / "nowhere")
    assert names(tmp_path / "old") == ["a"]
    (tmp_path / "made").mkdir()
    replace_folder(tmp_path / "old", tmp_path / "made")
    assert (names(tmp_path), names(tmp_path / "old")) == (["old"], [])


@pytest.mark.parametrize("path", ["file", "file/below", "file/far/below", f"{'n' * 300}", "/proc/nothing/here"])
def test_what_cannot_be_a_folder_is_refused_and_nothing_is_made(tmp_path, path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be a folder of outputs"):
        check_folder_can_be(tmp_path / path)
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file"], "mine")


def test_what_can_be_a_folder_is_not_made(tmp_path):
    check_folder_can_be(tmp_path / "new" / "folder")
    check_file_can_be(tmp_path / "new" / "file.csv")
    assert names(tmp_path) == []
    with pytest.raises(UserError, match="is a folder; name a file"):
        check_file_can_be(Path(tmp_path))

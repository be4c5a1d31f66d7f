"""What the system refuses is one line with the file's name and exit code two, and changes nothing that was there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from fedbcs_monai.backends.local import train
from fedbcs_monai.cli import main

TINY = [
    *("--rounds", "2", "--evaluate_every", "1", "--examples", "1", "--device", "cpu", "--batch_size", "2"),
    *("--network_def::features", "[8, 8, 16, 16, 16]", "--augmentation::transforms::0::roi_size", "[32, 32]"),
]


@pytest.fixture(scope="module")
def run(tiny):
    return train(tiny(rounds=1))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def the_line(capsys) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("fedbcs ")
    return line


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMANDS = {
    "demo": ["demo", "-o", "{file}"],
    "train": ["train", "nuclei", "--sites", "{sites}", "-o", "{file}", *TINY],
    "train below": ["train", "nuclei", "--sites", "{sites}", "-o", "{file}/run", *TINY],
    "train resumed": ["train", "nuclei", "--sites", "{sites}", "-o", "{file}", "--resume", *TINY],
    "train anew": ["train", "nuclei", "--sites", "{sites}", "-o", "{file}", "--overwrite", *TINY],
    "benchmark": ["benchmark", "{suite}", "-o", "{file}"],
    "benchmark below": ["benchmark", "{suite}", "-o", "{file}/suite"],
    "predict": ["predict", "{run}", "-i", "{image}", "-o", "{file}"],
    "predict below": ["predict", "{run}", "-i", "{image}", "-o", "{file}/masks"],
    "predict anew": ["predict", "{run}", "-i", "{image}", "-o", "{file}", "--overwrite"],
    "bundle": ["bundle", "{run}", "-q", "-o", "{file}"],
    "bundle below": ["bundle", "{run}", "-q", "-o", "{file}/bundle"],
    "bundle anew": ["bundle", "{run}", "-q", "-o", "{file}", "--overwrite"],
    "evaluate below": ["evaluate", "{run}", "-o", "{file}/scores.csv"],
    "evaluate anew": ["evaluate", "{run}", "-o", "{folder}", "--overwrite"],
    "sites below": ["sites", "{data}", "-o", "{file}/sites.json"],
    "sites anew": ["sites", "{data}", "-o", "{folder}", "--overwrite"],
    "report": ["report", "{run}", "-o", "{folder}"],
    "report below": ["report", "{run}", "-o", "{file}/page.html"],
    "flare simulate": ["flare", "simulate", "nuclei", "--sites", "{sites}", "-o", "{file}"],
    "flare export": ["flare", "export", "nuclei", "-o", "{file}"],
    "flare export below": ["flare", "export", "nuclei", "-o", "{file}/job"],
    "flare project": ["flare", "project", "-o", "{folder}", "--overwrite"],
    "flare project below": ["flare", "project", "-o", "{file}/project.yml"],
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    command, run, tiny_suite, nuclei_sites, tmp_path, capsys, monkeypatch
):
    if command.startswith("flare"):
        pytest.importorskip("nvflare")
    for work in ("data.check.check_pair", "metrics.cases.CaseScorer.scores", "data.samples.Samples.__init__"):
        monkeypatch.setattr(f"fedbcs_monai.{work}", lambda *_, **__: pytest.fail("works before it refuses"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    names = {"file": tmp_path / "file", "folder": tmp_path / "folder", "sites": nuclei_sites, "run": run}
    names |= {"data": nuclei_sites.parent, "image": next(nuclei_sites.parent.glob("Elm/images/*"))}
    names |= {"suite": tiny_suite(seeds=[0])}
    assert main([word.format(**names) for word in COMMANDS[command]]) == 2
    line = the_line(capsys)
    assert str(tmp_path) in line
    assert ";" in line or "Name" in line
    assert contents(tmp_path) == {"file": b"mine", "folder/mine.txt": b"mine"}


def test_a_full_disk_is_one_line_and_leaves_the_last_whole_round(small_disk, run, nuclei_sites):
    """There is room for one round, and not for two."""
    folder, rest = small_disk / "run", small_disk / "rest"
    model = (run / "model.safetensors").stat().st_size  # without momentum a checkpoint is as large
    rest.write_bytes(bytes(shutil.disk_usage(small_disk).free - 3 * model))
    arguments = ["train", "nuclei", "--sites", str(nuclei_sites), "-o", str(folder), *TINY]
    arguments += ["--keep_checkpoints", "0", "-q"]
    done = fedbcs(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"fedbcs train: {folder}/")
    assert "No space left on device; make room there" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    rest.unlink()
    assert fedbcs(*arguments, "--resume").returncode == 0
    assert not [*folder.rglob("*.part")]


def test_a_full_disk_leaves_an_older_file(small_disk, run, nuclei_sites, capsys):
    scores, page = small_disk / "scores.csv", small_disk / "page.html"
    for path in (scores, page):
        path.write_text("old")
    with (small_disk / "rest").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    assert main(["evaluate", str(run), "-o", str(scores), "--overwrite", "-q"]) == 2
    assert str(scores) in the_line(capsys)
    assert main(["report", str(run), "-o", str(page), "-q"]) == 2
    assert str(page) in the_line(capsys)
    assert [path.read_text() for path in (scores, page)] == ["old", "old"]


@pytest.mark.parametrize("where", ["/proc/nothing", "n" * 300])
def test_a_place_where_nothing_can_be_written_is_one_line(where, nuclei_sites, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "nuclei", "--sites", str(nuclei_sites), "-o", where, *TINY]) == 2
    assert where in the_line(capsys)
    assert list(tmp_path.iterdir()) == []


def fedbcs(*arguments: str, **streams) -> subprocess.CompletedProcess[str]:
    code = "import sys, fedbcs_monai.cli; sys.exit(fedbcs_monai.cli.main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *arguments], **{"stderr": -1, "text": True, **streams})


@pytest.mark.parametrize("voice", [[], ["--json"]], ids=["lines", "json"])
def test_output_that_nobody_takes_is_one_line(voice, run):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed, Path("/dev/full").open("wb") as full:  # noqa: PTH123
        for stream, said in ((closed, "Broken pipe"), (full, "No space left on device")):
            done = fedbcs("evaluate", str(run), *voice, stdout=stream)
            assert done.returncode == 2
            assert f"fedbcs evaluate: standard output: {said}; " in done.stderr
            assert "Traceback" not in done.stderr


# Damage.


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.ood.safetensors"])
def test_a_changed_byte_in_a_run_is_one_line_and_no_mask(name, run, nuclei_sites, tmp_path, capsys):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    content = bytearray((copy / name).read_bytes())
    at = content.index(b'"seed": 0') + 8 if name == "config.json" else len(content) // 2
    content[at] ^= 1
    (copy / name).write_bytes(content)
    image = next(nuclei_sites.parent.glob("Elm/images/*"))
    assert main(["predict", str(copy), "-i", str(image), "-o", str(tmp_path / "masks")]) == 2
    assert f"{copy / name}: " in the_line(capsys)
    assert not (tmp_path / "masks").exists()


def test_a_label_that_was_replaced_is_not_trained_or_scored_with(run, nuclei_sites, tmp_path, capsys):
    data = Path(shutil.copytree(nuclei_sites.parent, tmp_path / "data"))
    listed = json.loads((data / "sites.json").read_text())
    for split, command in (
        ("train", ["train", "nuclei", "--sites", "{}", "-o", str(tmp_path / "run"), *TINY, "-q"]),
        ("test", ["evaluate", str(run), "--sites", "{}", "-q"]),
    ):
        first = next(case for case in listed["sites"][0]["cases"] if case["split"] == split)
        other = next(case for case in listed["sites"][1]["cases"] if case["split"] == split)
        before = (data / first["label"]).read_bytes()
        shutil.copyfile(data / other["label"], data / first["label"])
        assert main([word.format(data / "sites.json") for word in command]) == 2
        line = the_line(capsys)
        assert f"case {first['sha256']['image'][:8]}: label {data / first['label']} has changed since it was" in line
        assert "`fedbcs sites`" in line
        (data / first["label"]).write_bytes(before)
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tiny, capsys):
    config = tiny(rounds=3, keep_checkpoints=0, examples=0)
    folder = train(config)
    last = (folder / "last.safetensors").read_bytes()
    file = folder / "checkpoints" / "round_0003.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"round_0003\.safetensors: damaged; resumes from round 2 instead"):
        train(config, resume=True)
    assert (folder / "last.safetensors").read_bytes() == last


@pytest.mark.parametrize("left", [[], ["config.json", "config.json.sha256", "rounds.csv", "environment.json", ".lock"]])
def test_a_run_that_was_killed_before_its_first_checkpoint_is_resumed_from_the_beginning(left, tiny, tmp_path):
    config = tiny(rounds=1, examples=0)
    folder, killed = train(config), tmp_path / "killed"
    for name in left:
        killed.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, killed / name)
    (tmp_path / ".fedbcs-x.part").mkdir()
    train(replace(config, output=str(killed)), resume=True)
    assert (killed / "last.safetensors").read_bytes() == (folder / "last.safetensors").read_bytes()


def test_a_finished_run_without_checkpoints_is_not_begun_anew(run, tiny, nuclei_sites, tmp_path, capsys):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "checkpoints")
    before = contents(copy)
    config = json.loads((copy / "config.json").read_text())
    (tmp_path / "again.json").write_text(json.dumps(config))
    assert main(["train", str(tmp_path / "again.json"), "-o", str(copy), "--resume", "-q"]) == 2
    assert "no checkpoint; train from the start" in the_line(capsys)
    assert contents(copy) == before

"""``fedbcs ood`` on a run that has no site styles, and what ``fedbcs predict`` reports afterwards."""

import json
from pathlib import Path

from fedbcs_monai.backends.local import train
from fedbcs_monai.cli.main import main


def test_a_run_that_learns_it_says_how_far_an_image_is(tiny, tmp_path, capsys):
    config = tiny(rounds=1, examples=0, ood=False)
    folder, image = train(config), next(Path(config.sites).parent.glob("Elm/images/*.png"))

    def predicted(output: Path) -> tuple[dict, str]:
        assert main(["predict", str(folder), "-i", str(image), "-o", str(output), "--device", "cpu", "-q"]) == 0
        statistics = json.loads(next(output.glob("*_statistics.json")).read_text())
        return statistics, (output / "report.html").read_text(encoding="utf-8")

    before, page = predicted(tmp_path / "before")
    assert "ood" not in before
    assert "Nearest training site" not in page
    command = ["ood", str(folder), "--device", "cpu"]
    assert main(command) == 0
    assert f"ood: {folder / 'model.ood.safetensors'}" in capsys.readouterr().out
    after, page = predicted(tmp_path / "after")
    assert after["ood"]["nearest"] in ("Alder", "Birch", "Cedar")
    assert f"Nearest training site: {after['ood']['nearest']}, distance" in page
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_earlier_name_of_the_command_is_refused_with_its_new_name(capsys):
    assert main(["familiarity", "run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "fedbcs ood" in said

"""``fedbcs familiarity`` on a run that was trained without, and what ``fedbcs predict`` says then."""

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
    assert "familiarity" not in before
    assert "Nearest training site" not in page
    command = ["familiarity", str(folder), "--device", "cpu"]
    assert main(command) == 0
    assert f"familiarity: {folder / 'model.familiarity.safetensors'}" in capsys.readouterr().out
    after, page = predicted(tmp_path / "after")
    assert after["familiarity"]["nearest"] in ("Alder", "Birch", "Cedar")
    assert f"Nearest training site: {after['familiarity']['nearest']}, distance" in page
    assert main(command) == 2
    assert "make it anew with --overwrite" in capsys.readouterr().err

"""Training: in Python as with the command, a run folder with its report, and progress that can be turned off."""

import fedbcs_monai


def test_a_training_shows_progress_and_writes_the_report(tiny, capsys):
    folder = fedbcs_monai.train(tiny(rounds=2, examples=0))
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert said.out == ""
    assert "rounds 1 to 2" in said.err
    assert [line.split(":")[0] for line in said.err.splitlines() if ": loss " in line] == ["round 1", "round 2"]


def test_progress_can_be_turned_off(tiny, capsys):
    folder = fedbcs_monai.train(tiny(rounds=1, examples=0), progress=False)
    assert (folder / "report.html").is_file()
    assert capsys.readouterr() == ("", "")

"""The page: whole, alone and true to the runs."""

import json
import re
from html.parser import HTMLParser

import pytest

from fedbcs_monai.errors import UserError
from fedbcs_monai.report import write_report

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Balance(HTMLParser):
    """Collects the open elements; an end tag must close the last of them."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(make_run, tmp_path):
    runs = [make_run("avg"), make_run("bcs", "FedBCS", lift=0.03, tau=0.1)]
    commands = [("Use the weights", 'fedbcs predict "a b.png" && echo <done>')]
    return write_report(
        runs, tmp_path / "out" / "report.html", commands=commands, notes=["Made-up images."]
    ).read_text()


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.search(r"https?://", page)
    assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:href|src)="([^"]*)"', page))


def test_the_page_is_small_and_well_formed(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(page) < 3_000_000


def test_every_reference_in_the_page_has_its_target_once(page):
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)


@pytest.mark.parametrize(
    "said",
    [
        "FedBCS is ahead of FedAvg",
        "Made-up images.",
        "method.tau",
        "12 min 34 s",
        "fedbcs predict &#34;a b.png&#34; &amp;&amp; echo &lt;done&gt;",
        'alt="Dice of every test case, by site"',
        'alt="Dice difference to FedAvg, by site"',
        "case 00000001",
    ],
)
def test_the_page_says(page, said):
    assert said in page


def test_the_page_is_the_same_whenever_it_is_written(make_run, tmp_path):
    run = make_run("a")
    first = write_report([run], tmp_path / "1.html").read_bytes()
    assert write_report([run], tmp_path / "2.html").read_bytes() == first


def test_an_unfinished_run_has_a_page_of_curves(make_run, tmp_path):
    page = write_report([make_run("a", finished=False)], tmp_path / "report.html").read_text()
    assert "Not finished: FedAvg has done 4 of 10 rounds." in page
    assert "Scores on the test cases" not in page


def test_a_run_before_its_first_round_has_a_page(make_run, tmp_path):
    folder = make_run("a", finished=False)
    (folder / "rounds.csv").unlink()
    assert "No round has been completed." in write_report([folder], tmp_path / "report.html").read_text()


def test_an_unfinished_run_beside_a_finished_one_is_named(make_run, tmp_path):
    runs = [make_run("half", "MOON", finished=False), make_run("whole")]
    assert "half is not finished (4 of 10 rounds)" in write_report(runs, tmp_path / "report.html").read_text()


def test_refused_sites_are_named_with_the_reason_and_the_rounds(make_run, tmp_path):
    folder = make_run("a")
    summary = json.loads((folder / "summary.json").read_text())
    refused = {"Alder": {"a filter of the site (ExcludeVars) removed 1 of its 9 tensors: <w>": [2, 3, 4]}}
    (folder / "summary.json").write_text(json.dumps({**summary, "refused": refused}))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "Alder was refused in rounds 2 to 4: a filter of the site (ExcludeVars) removed 1 of its 9" in page
    assert "tensors: &lt;w&gt;." in page


def test_repeats_are_shown_with_their_spread(make_run, tmp_path):
    page = write_report([make_run("a"), make_run("b", seed=1)], tmp_path / "report.html").read_text()
    assert re.search(r"<td>\d\d\.\d ± \d\.\d</td>", page)


def test_a_run_without_pictures_still_has_a_page(make_run, tmp_path):
    folder = make_run("a")
    for path in [*(folder / "looks").iterdir(), *(folder / "examples").iterdir()]:
        path.unlink()
    assert 'id="examples"' not in write_report([folder], tmp_path / "report.html").read_text()


def test_many_methods_show_fewer_examples_each(make_run, tmp_path):
    runs = [make_run(f"r{mu}", "FedProx", mu=mu) for mu in range(7)]
    assert write_report(runs, tmp_path / "report.html").read_text().count("<image ") == 5


def test_site_names_are_escaped(make_run, tmp_path):
    folder = make_run("a")
    for file in ("rounds.csv", "scores.csv", "summary.json"):
        (folder / file).write_text((folder / file).read_text().replace("Birch", "<script>"))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert page.count("<script>") == 1


def test_a_damaged_run_leaves_an_earlier_page_alone(make_run, tmp_path):
    output = tmp_path / "report.html"
    output.write_text("earlier")
    folder = make_run("a")
    (folder / "looks" / "Ash.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"Ash\.png is not a picture"):
        write_report([folder], output)
    assert output.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "report.html"]


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(UserError, match="name at least one run"):
        write_report([], tmp_path / "report.html")


def test_the_same_run_twice_is_refused(make_run, tmp_path):
    folder = make_run("a")
    with pytest.raises(UserError, match="named more than once"):
        write_report([folder, folder], tmp_path / "report.html")


def test_an_output_below_a_file_is_refused_with_a_remedy(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* Name another place"):
        write_report([make_run("a")], tmp_path / "file" / "report.html")


def test_an_output_that_is_a_folder_is_refused_and_leaves_nothing(make_run, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_report([make_run("a")], tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "report.html"]


def test_best_on_test_may_be_unknown(make_run, tmp_path):
    folder = make_run("a")
    summary = json.loads((folder / "summary.json").read_text()) | {"best_on_test": None}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "<td>–</td>" in write_report([folder], tmp_path / "report.html").read_text()


def test_who_did_not_take_part_is_named_also_who_never_did(make_run, tmp_path):
    folder = make_run("a")
    summary = json.loads((folder / "summary.json").read_text())
    absent = {"Ash": [2, 5, 6], "Dogwood": list(range(1, 11))}
    (folder / "summary.json").write_text(json.dumps({**summary, "absent": absent}))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "FedAvg: Ash did not take part in rounds 2, 5 to 6." in page
    assert "FedAvg: Dogwood took part in no round." in page


def test_a_site_that_tells_only_a_mean_counts_all_its_cases(make_run, tmp_path):
    folder = make_run("a")
    lines = (folder / "scores.csv").read_text().splitlines()
    kept = [line for line in lines if ",Ash," not in line]
    (folder / "scores.csv").write_text("\n".join([*kept, "selected,Ash,test,mean of 12,0.8,,"]) + "\n")
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "From 60 test cases at 5 sites" in page
    assert "Test cases: Ash 12, Birch 16, Cedar 6, Maple 14, Elm 12." in page

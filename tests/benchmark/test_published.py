"""The published figures agree with themselves."""

import pytest

from fedbcs_monai.benchmark.published import published


@pytest.mark.parametrize("table", ["comparison", "ablation"])
@pytest.mark.parametrize(("task", "sites"), [("nuclei", 4), ("prostate", 6)])
def test_every_average_is_the_mean_of_its_sites_as_far_as_it_was_printed(table, task, sites):
    found = published(table, task)
    for *of_sites, average in found.rows.values():
        assert len(of_sites) == len(found.sites) == sites
        assert average == pytest.approx(sum(of_sites) / sites, abs=0.051)


def test_the_tables_of_the_paper_agree_where_they_overlap():
    for task in ("nuclei", "prostate"):
        methods, parts = published("comparison", task).rows, published("ablation", task).rows
        assert methods["FedAvg"] == parts["neither"]
        assert methods["FedBCS"] == parts["CDPA and FSR"]
    sent = published("prototypes", "prostate").rows
    assert {name: row[-1] for name, row in sent.items()} == {
        name: published("comparison", "prostate").average(name) for name in sent
    }


def test_the_paper_has_no_table_3_of_nuclei_and_no_other_task():
    assert published("prototypes", "nuclei") is None
    assert published("comparison", "hearts") is None

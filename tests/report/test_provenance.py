"""Provenance: settings that differ are shown apart from those that runs share."""

from fedbcs_monai.report.provenance import Settings, settings


def test_settings_are_split_by_whether_they_differ():
    found = settings([{"rounds": 4, "method": {"mu": 1}}, {"rounds": 4, "method": {"tau": 0.5}}])
    assert found == Settings({"method.mu": ["1", "–"], "method.tau": ["–", "0.5"]}, {"rounds": "4"})


def test_one_run_shares_everything_with_itself():
    assert settings([{"rounds": 4, "sites": ["Ash"]}]) == Settings({}, {"rounds": "4", "sites": '["Ash"]'})

"""Logging: -v shows what happens, -vv in detail, -q nothing; warnings are records in JSON."""

import json
import logging

import pytest

from fedbcs_monai.cli.console import open_console
from fedbcs_monai.cli.main import _restoring


@pytest.fixture(autouse=True)
def as_before():
    with _restoring():
        yield


LOG = logging.getLogger("fedbcs_monai.predict.studies_to_masks")


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ({}, ["warning: three"]),
        ({"verbose": 1}, ["info fedbcs_monai.predict.studies_to_masks: two", "warning: three"]),
        (
            {"verbose": 2},
            [
                "debug fedbcs_monai.predict.studies_to_masks: one",
                "info fedbcs_monai.predict.studies_to_masks: two",
                "warning: three",
            ],
        ),
        ({"quiet": True}, []),
    ],
)
def test_records_are_shown_by_their_level(how, shown, capsys):
    open_console(**how)
    LOG.debug("one")
    LOG.info("two")
    LOG.warning("three")
    said = capsys.readouterr()
    assert said.err.splitlines() == shown
    assert said.out == ""


def test_a_warning_is_a_record_in_json(capsys):
    open_console(json=True)
    LOG.warning("three")
    assert json.loads(capsys.readouterr().out) == {"event": "warning", "text": "three"}

"""What the controller makes of names and scores that sites send."""

import math

import pytest
import torch

from fedbcs_monai.federated.messages import Update

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_client_speaks_for_one_site_and_for_no_others():
    from fedbcs_monai.backends.nvflare.controller import objection_to_name

    known = {"site-1": "Alder", "site-2": "Birch"}
    assert objection_to_name(known, "site-1", "Alder") is None
    assert objection_to_name(known, "site-3", "Cedar") is None
    assert objection_to_name(known, "site-3", "Alder") == "site-3 claims to be Alder, as site-1 does"
    assert objection_to_name(known, "site-3", "site-4", {"site-4"}) == (
        "site-3 claims to be site-4, which is the certificate name of another client"
    )
    assert objection_to_name(known, "site-3", "../evil") == "site-3 claims the name '../evil'"
    assert objection_to_name(known, "site-2", "Cedar") == "site-2 was Birch and now claims to be Cedar"


def test_means_are_one_row_that_says_of_how_many_cases():
    from fedbcs_monai.backends.nvflare.controller import scores_in

    update = Update("Alder", 3, {}, {}, {"dice": 0.5, "slice_dice": 0.25, "test_cases": 2.0})
    (row,) = scores_in(update)
    assert (row.case, row.dice, row.slice_dice) == ("mean of 2", 0.5, 0.25)
    assert math.isnan(row.hd95_mm)
    assert scores_in(Update("Alder", 3, {}, {}, {"test_cases": 0.0})) == []


def test_single_cases_have_numbers_for_names():
    from fedbcs_monai.backends.nvflare.controller import scores_in

    shared = {"dice": torch.tensor([0.5, 0.75]), "hd95_mm": torch.tensor([3.0, 4.0])}
    rows = scores_in(Update("Alder", 3, {}, shared, {"test_cases": 2.0}))
    assert [(row.case, row.dice, row.hd95_mm) for row in rows] == [("1", 0.5, 3.0), ("2", 0.75, 4.0)]
    assert all(math.isnan(row.assd_mm) for row in rows)

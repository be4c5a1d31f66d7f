"""Out-of-distribution distances worked by hand, and what may not change them."""

import pytest
import torch

from fedbcs_monai.ood.distance import (
    DISTANCES,
    MIN_CASES,
    SHRINKAGE,
    STYLES,
    StyleAnswer,
    complete,
    deviation,
    distances,
    pooled,
    site_styles,
    style_answer,
    within,
)

THREE = torch.tensor([[0.0], [3.0], [6.0]])
"""Of mean 3 and variance 9."""


def cases(seed: int, count: int = 8, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + shift


def learnt(sites: dict[str, torch.Tensor], alone: bool = False):
    """Both questions put to sites with these cases."""
    first = {site: style_answer(STYLES, styles, {}) for site, styles in sites.items()}
    sent = {} if alone else within(first)
    return site_styles(first, {site: style_answer(DISTANCES, styles, sent) for site, styles in sites.items()}, alone)


def test_without_correlation_a_deviation_is_a_root_mean_square():
    found = deviation(torch.tensor([2.0, 3.0]), torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])))
    assert found == pytest.approx(((1 + 9) / 2) ** 0.5, rel=1e-5)


def test_against_the_correlation_a_case_lies_farther_than_along_it():
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    along, against = (deviation(torch.tensor(x), torch.zeros(2), covariance) for x in ([1.0, 1.0], [1.0, -1.0]))
    # The shrunk correlation is r, and the squared distances of (1, 1) and (1, -1) are 2 / (1 + r) and 2 / (1 - r).
    r = 0.8 * (1 - SHRINKAGE)
    assert (along, against) == pytest.approx(((1 / (1 + r)) ** 0.5, (1 / (1 - r)) ** 0.5), rel=1e-5)


def test_the_usual_deviation_is_each_case_from_all_others():
    # From the others' means 4.5, 3, 1.5 by 4.5, 0, 4.5; their variances 4.5, 18, 4.5 have one degree of freedom.
    numbers = style_answer(DISTANCES, THREE, {}).numbers
    usual = [(4.5**2 / 4.5) ** 0.5, 0, (4.5**2 / 4.5) ** 0.5]
    assert numbers["usual"] == pytest.approx(sum(usual) / 3, rel=1e-4)
    assert numbers["usual_variance"] == pytest.approx(4.5 / 3, rel=1e-4)  # 4.5 in each of two, and their mean squared


def test_the_case_held_against_the_others_is_in_neither_their_mean_nor_the_covariance():
    alder, birch = cases(0), cases(1, shift=2.0)

    def covariance(of_alder: torch.Tensor) -> torch.Tensor:
        return within({"Alder": style_answer(STYLES, of_alder, {}), "Birch": style_answer(STYLES, birch, {})})[
            "covariance"
        ]

    usual = []
    for n, case in enumerate(alder):
        others = torch.cat([alder[:n], alder[n + 1 :]])
        usual.append(deviation(case, others.mean(0), covariance(others)))
    sent = {"covariance": covariance(alder), "freedom": torch.tensor(14.0)}
    assert style_answer(DISTANCES, alder, sent).numbers["usual"] == pytest.approx(sum(usual) / len(usual), rel=1e-4)


def test_variances_are_weighted_by_their_degrees_of_freedom():
    answers = {"Alder": StyleAnswer({}, {"cases": 4}), "Birch": StyleAnswer({}, {"cases": 3})}
    found = pooled({"Alder": torch.tensor([1.0]), "Birch": torch.tensor([6.0])}, answers)
    assert found.item() == pytest.approx((3 * 1 + 2 * 6) / 5)


def test_a_distance_counts_the_spread_from_the_usual_deviation():
    (site,) = learnt({"Alder": THREE}).values()
    wanted = (3 / 3 - 2 / 3 * 4.5**0.5) / (4.5 / 3) ** 0.5  # 9 is one root of the variance from 6
    assert site.distance_sd(torch.tensor([6.0])) == pytest.approx(wanted, rel=1e-3)


def test_nothing_lies_nearer_to_a_site_than_its_own_mean():
    sites = learnt({"Alder": cases(0), "Birch": cases(1, shift=3.0)})
    alder = sites["Alder"]
    assert alder.distance_sd(alder.mean) == pytest.approx(-alder.usual / alder.spread)
    assert all(alder.distance_sd(style) > alder.distance_sd(alder.mean) for style in cases(2))
    assert next(iter(distances(sites, alder.mean))) == "Alder"


def test_the_order_of_sites_and_of_their_cases_changes_nothing():
    alder, birch = cases(0), cases(1, shift=1.0)
    first = distances(learnt({"Alder": alder, "Birch": birch}), cases(3)[0])
    other = distances(learnt({"Birch": birch.flip(0), "Alder": alder.flip(0)}), cases(3)[0])
    assert first == pytest.approx(other, rel=1e-4)


def test_the_unit_a_shift_and_the_order_of_channels_change_nothing():
    alder, birch, new = cases(0), cases(1, shift=1.0), cases(3)[0]
    moved = [(part * 7 + 5).flip(-1) for part in (alder, birch, new)]
    found = distances(learnt({"Alder": alder, "Birch": birch}), new)
    assert distances(learnt({"Alder": moved[0], "Birch": moved[1]}), moved[2]) == pytest.approx(found, rel=1e-4)


def test_the_farther_a_case_the_greater_its_distance_and_beyond_all_sites_it_is_far():
    sites = learnt({"Alder": cases(0), "Birch": cases(1, shift=1.0)})
    nearest = [next(iter(distances(sites, cases(3)[0] + shift).values())) for shift in (3, 6, 12)]
    assert nearest == sorted(nearest)
    assert nearest[-1] > 3


def test_alone_a_site_is_what_it_is_without_the_others():
    together = learnt({"Alder": cases(0), "Birch": 5 * cases(1)}, alone=True)["Alder"]
    by_itself = learnt({"Alder": cases(0)})["Alder"]
    torch.testing.assert_close(together.covariance, by_itself.covariance)
    assert (together.usual, together.spread) == pytest.approx((by_itself.usual, by_itself.spread))


@pytest.mark.parametrize("question", [STYLES, DISTANCES])
def test_a_site_with_few_cases_tells_nothing(question):
    assert style_answer(question, cases(0, count=MIN_CASES - 1), {}) == StyleAnswer({}, {})
    assert style_answer(question, cases(0, count=MIN_CASES), {}).numbers["cases"] == MIN_CASES


def test_cases_that_are_all_alike_give_a_number():
    (site,) = learnt({"Alder": torch.ones(3, 4)}).values()
    assert site.distance_sd(torch.ones(4)) == 0
    assert site.distance_sd(2 * torch.ones(4)) > 3


def test_an_answer_that_lacks_something_or_is_of_another_network_is_left_out():
    good, longer = style_answer(STYLES, cases(0), {}), style_answer(STYLES, torch.cat([cases(0), cases(1)], dim=1), {})
    few, lacking = StyleAnswer(good.tensors, {"cases": 2}), StyleAnswer({"mean": good.tensors["mean"]}, {"cases": 6})
    answers = {"Alder": good, "Birch": longer, "Cedar": few, "Dogwood": lacking, "Elm": StyleAnswer({}, {})}
    assert complete(STYLES, answers).keys() == {"Alder"}
    bad = StyleAnswer({}, {"cases": 6, "usual": float("nan"), "usual_variance": 1.0})
    assert complete(DISTANCES, {"Alder": bad, "Birch": style_answer(DISTANCES, cases(0), {})}).keys() == {"Birch"}

"""Summary: the result of a comparison in a few sentences, computed from the scores."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fedbcs_monai.metrics.plateau import still_rises
from fedbcs_monai.metrics.tables import (
    Difference,
    Score,
    mean_interval,
    mean_sd,
    paired_bootstrap,
    signed,
    text,
    worst_site,
)
from fedbcs_monai.report.groups import MethodGroup, baseline

FEW_CASES = 10
ONE_SEED = "One seed: the spread over seeds is not known."


class Comparison(NamedTuple):
    """The arms, the sites they ran on in order, and which of those no arm was trained on."""

    groups: Sequence[MethodGroup]
    sites: Sequence[str]
    unseen: Sequence[str]

    @property
    def scored(self) -> list[MethodGroup]:
        """The arms with test scores."""
        return [group for group in self.groups if group.scored]

    @property
    def tested(self) -> list[str]:
        """The sites with test scores."""
        found = {score.site for group in self.scored for score in group.cases("dice")}
        return [site for site in self.sites if site in found]

    @property
    def cases(self) -> dict[str, int]:
        """How many test cases each tested site has, those of all folds together."""
        found = {}
        for site in self.tested:
            of_fold: dict[int, int] = {}
            for run in (run for group in self.scored for run in group.scored):
                fold = 0 if site in self.unseen else run.repeat[1]  # an unseen site is the same in every fold
                of_fold[fold] = max(of_fold.get(fold, 0), run.scored_cases.get(site, 0))
            found[site] = sum(of_fold.values())
        return found

    @property
    def trained(self) -> list[str]:
        """The tested sites that took part in training."""
        return [site for site in self.tested if site not in self.unseen]


class Headline(NamedTuple):
    """What was found, and how far it carries."""

    finding: str
    caveat: str


def headline(compared: Comparison) -> Headline:
    """Say who is ahead, by how much and where not; of one method, how good it is and where it is weakest."""
    groups = [group for group in compared.scored if math.isfinite(_avg(group, compared))]
    if not groups and compared.scored:
        return Headline(_undefined(compared), _caveat(compared.scored, compared))
    if not groups:
        return Headline(
            _progress(compared), "Test scores are written when a run ends; the curves below are validation."
        )
    if len(groups) == 1:
        return Headline(_alone(groups[0], compared), _caveat(groups, compared))
    return Headline(_ahead(groups, compared), _caveat(groups, compared))


def gain(
    group: MethodGroup, reference: MethodGroup, compared: Comparison, metric: str = "dice", scale: float = 100
) -> Difference:
    """How much a group's AVG exceeds the reference's, in points: its spread over runs, its 95% interval over cases.

    Taken over the seeds and folds that both have, so that the luck of a seed is on both sides; over all where they
    have none in common, and then without a spread.
    """
    both = group.repeats & reference.repeats
    found = paired_bootstrap(group.cases(metric, only=both), reference.cases(metric, only=both), unseen=compared.unseen)
    over_runs = mean_sd(gains(group, reference, compared, metric, scale))
    value, low, high = (scale * number for number in found)
    return Difference(value, over_runs.sd, over_runs.repeats, low, high)


def gains(
    group: MethodGroup, reference: MethodGroup, compared: Comparison, metric: str = "dice", scale: float = 100
) -> list[float]:
    """The same of each run alone, in the order of seed and fold, of those that both have."""
    each = (
        paired_bootstrap(
            group.cases(metric, only={repeat}), reference.cases(metric, only={repeat}), 1, unseen=compared.unseen
        ).value
        for repeat in sorted(group.repeats & reference.repeats)
    )
    return [scale * value for value in each if math.isfinite(value)]


def seeds_said(groups: Sequence[MethodGroup]) -> str:
    """What is known of the spread over seeds."""
    counts = [len({seed for seed, _ in group.repeats}) for group in groups if group.scored]
    least, most = min(counts, default=0), max(counts, default=0)
    if most < 2:
        folds = any(len(group.repeats) > 1 for group in groups)
        return ONE_SEED + (" ± is the standard deviation over folds." if folds else "")
    counted = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    return f"± is the standard deviation over runs, of {counted} a method."


def _avg(group: MethodGroup, compared: Comparison) -> float:
    return 100 * group.average("dice", compared.tested, compared.unseen).mean


def _means(group: MethodGroup, compared: Comparison) -> dict[str, float]:
    return {site: 100 * spread.mean for site, spread in group.means("dice", compared.tested).items()}


def _progress(compared: Comparison) -> str:
    parts = []
    for group in compared.groups:
        for run in group.runs:
            total = run.config.get("rounds", "an unknown number of")
            parts.append(f"{group.label} has done {run.rounds_done} of {total} rounds")
    return f"Not finished: {_listed(parts)}."


def _undefined(compared: Comparison) -> str:
    means = [_means(group, compared) for group in compared.scored]
    lacking = [site for site in compared.trained if not all(math.isfinite(of[site]) for of in means)]
    return f"No mean Dice over all sites: it is not defined at {_listed(lacking or ['any site that trained'])}."


def _alone(group: MethodGroup, compared: Comparison) -> str:
    means = _means(group, compared)
    worst = worst_site(means, compared.unseen)
    sentence = (
        f"{group.label} reaches a mean Dice of {text(_avg(group, compared))}% over {_sites(len(compared.trained))}"
    )
    if worst and len(compared.trained) > 1:
        sentence += f"; it is weakest at {worst}, with {text(means[worst])}%"
    return sentence + "." + _at_unseen([group], compared)


def _ahead(groups: Sequence[MethodGroup], compared: Comparison) -> str:
    reference = baseline(groups)

    def lead(group: MethodGroup) -> float:
        own, others = _paired(group, reference)
        return _avg(own, compared) - _avg(others, compared)

    ranked = sorted(_ranked(groups), key=lead, reverse=True)
    leader = ranked[0]
    other = ranked[1] if leader is reference else reference
    difference = gain(leader, other, compared)
    if not math.isfinite(difference.value):
        # Other test cases on each side, as between folds: the averages are known, their paired difference is not.
        value = _avg(leader, compared) - _avg(other, compared)
        difference = difference._replace(value=value)
    runner = None if other is ranked[1] else _paired(ranked[1], reference)[0]
    leader, other = _paired(leader, other)
    sentence = _lead_sentence(leader, other, difference, gains(leader, other, compared), compared)
    if runner:
        sentence += f" Next is {runner.label}, with {text(_avg(runner, compared))}%."
    return sentence + _where_not(leader, other, compared) + _at_unseen([leader, other], compared)


def _ranked(groups: Sequence[MethodGroup]) -> Sequence[MethodGroup]:
    """The groups with the most runs, since one lucky seed must not lead; all groups if only one has as many."""
    most = max(len(group.repeats) for group in groups)
    whole = [group for group in groups if len(group.repeats) == most]
    return whole if len(whole) > 1 else groups


def _paired(group: MethodGroup, other: MethodGroup) -> tuple[MethodGroup, MethodGroup]:
    """Both with the runs of seeds and folds that both have, or with all where they have none in common."""
    both = group.repeats & other.repeats
    if not both:
        return group, other
    one, two = (replace(each, runs=tuple(run for run in each.runs if run.repeat in both)) for each in (group, other))
    return one, two


def _lead_sentence(
    leader: MethodGroup, other: MethodGroup, difference: Difference, by_run: Sequence[float], compared: Comparison
) -> str:
    score = f"{text(_avg(leader, compared))}% mean Dice over {_sites(len(compared.trained))}"
    points = text(abs(difference.value))
    if round(difference.value, 1) <= 0:
        return f"{leader.label} and {other.label} are level: {score}."
    over_runs = mean_interval(by_run)
    carries = f"95% interval over test cases alone {text(difference.low)} to {text(difference.high)}"
    if not math.isfinite(difference.low):
        carries = f"no interval over test cases: {_why_none(leader, other, compared)}"
    if len(by_run) > 1:
        said = f"run by run {_listed([signed(value) for value in by_run])}"
        carries = f"{said}, 95% interval over runs {text(over_runs.low)} to {text(over_runs.high)}; {carries}"
    doubts = ["the choice of seeds and folds"] if over_runs.low <= 0 else []
    doubts += ["the choice of test cases"] if difference.low <= 0 else []
    if doubts:
        return (
            f"{leader.label} scores highest, {score}, but its {points} points over {other.label} "
            f"are no more than {_listed(doubts)} can explain ({carries})."
        )
    if len(by_run) < 2 and not math.isfinite(difference.low):
        return f"{leader.label} is {points} points above {other.label} ({carries}): {score}."
    return f"{leader.label} is ahead of {other.label} by {points} points ({carries}): {score}."


def _why_none(leader: MethodGroup, other: MethodGroup, compared: Comparison) -> str:
    """Why there is no interval over test cases."""
    own, others = ({(score.site, score.case) for score in group.cases("dice")} for group in (leader, other))
    if any(not any(at == site for at, _ in own & others) for site in compared.trained):
        return "no test case is known to be in both"
    return "a site has one test case, or reports only a mean"


def _where_not(leader: MethodGroup, other: MethodGroup, compared: Comparison) -> str:
    own, others = _means(leader, compared), _means(other, compared)
    lower = {site: own[site] - others[site] for site in compared.trained if round(own[site] - others[site], 1) < 0}
    if not lower:
        return f" It is not behind {other.label} at any site it was trained on."
    return f" It is behind at {_listed([f'{site} ({signed(change)})' for site, change in lower.items()])}."


def _at_unseen(groups: Sequence[MethodGroup], compared: Comparison) -> str:
    sentence = ""
    for site in (site for site in compared.tested if site in compared.unseen):
        scores = " against ".join(f"{text(_means(group, compared)[site])}%" for group in groups)
        sentence += f" At {site}, which no method was trained on: {scores}."
    return sentence


def _caveat(groups: Sequence[MethodGroup], compared: Comparison) -> str:
    cases = compared.cases
    runs, most = min(len(group.scored) for group in groups), max(len(group.scored) for group in groups)
    counted = "one run" if most == 1 else f"{most} runs" if runs == most else f"{runs} to {most} runs"
    sentence = f"From {sum(cases.values())} test cases at {_sites(len(compared.tested))} and {counted} a method. "
    rising = [group for group in groups if still_rises(group.late_gain)]
    if rising:
        gains = _listed([f"{group.label} by {text(group.late_gain)}" for group in rising])
        sentence += (
            f"Not at the plateau: over the last fifth of the rounds validation Dice still rose, {gains} points. "
        )
    if len(_ranked(groups)) < len(groups):
        sentence += f"Methods with fewer than {most} runs are not ranked. "
    few = [site for site in compared.tested if cases[site] < FEW_CASES]
    if few:
        sentence += f"Fewer than {FEW_CASES} test cases at {_listed(few)}. "
    undefined = sum(score.cases for score in _all_cases(groups) if not math.isfinite(score.value))
    if undefined:
        sentence += f"{undefined} undefined {'score is' if undefined == 1 else 'scores are'} left out. "
    if len(groups) > 1:
        sentence += "An interval over test cases alone says nothing of another training. "
    return sentence + seeds_said(_ranked(groups)) + _rising(groups)


def _rising(groups: Sequence[MethodGroup]) -> str:
    """Which methods were not trained to their plateau; empty if all were, or nothing is known of it."""
    rising = [f"{group.label} by {text(group.late_gain)}" for group in groups if still_rises(group.late_gain)]
    if not rising:
        return ""
    return f" Not at the plateau: over the last fifth of the rounds validation Dice rose for {_listed(rising)} points."


def _all_cases(groups: Sequence[MethodGroup]) -> list[Score]:
    return [score for group in groups for score in group.cases("dice")]


def _sites(count: int) -> str:
    return f"{count} site" if count == 1 else f"{count} sites"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

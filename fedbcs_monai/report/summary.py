"""Verdict: the result of a comparison in a few plain sentences, computed from the numbers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

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
from fedbcs_monai.report.groups import Arm, baseline

FEW_CASES = 10
ONE_SEED = "One seed: the spread over seeds is not known."


class Comparison(NamedTuple):
    """The arms, the sites they ran on in order, and which of those no arm was trained on."""

    arms: Sequence[Arm]
    sites: Sequence[str]
    unseen: Sequence[str]

    @property
    def scored(self) -> list[Arm]:
        """The arms with test scores."""
        return [arm for arm in self.arms if arm.scored]

    @property
    def tested(self) -> list[str]:
        """The sites with test scores."""
        found = {score.site for arm in self.scored for score in arm.cases("dice")}
        return [site for site in self.sites if site in found]

    @property
    def cases(self) -> dict[str, int]:
        """How many test cases each tested site has, those of all folds together."""
        found = {}
        for site in self.tested:
            of_fold: dict[int, int] = {}
            for run in (run for arm in self.scored for run in arm.scored):
                fold = 0 if site in self.unseen else run.repeat[1]  # an unseen site is the same in every fold
                of_fold[fold] = max(of_fold.get(fold, 0), run.scored_cases.get(site, 0))
            found[site] = sum(of_fold.values())
        return found

    @property
    def trained(self) -> list[str]:
        """The tested sites that took part in training."""
        return [site for site in self.tested if site not in self.unseen]


class Verdict(NamedTuple):
    """What was found, and how far it carries."""

    finding: str
    caveat: str


def verdict(compared: Comparison) -> Verdict:
    """Say who is ahead, by how much and where not; of one method, how good it is and where it is weakest."""
    arms = [arm for arm in compared.scored if math.isfinite(_avg(arm, compared))]
    if not arms and compared.scored:
        return Verdict(_undefined(compared), _caveat(compared.scored, compared))
    if not arms:
        return Verdict(_progress(compared), "Test scores are written when a run ends; the curves below are validation.")
    if len(arms) == 1:
        return Verdict(_alone(arms[0], compared), _caveat(arms, compared))
    return Verdict(_ahead(arms, compared), _caveat(arms, compared))


def gain(arm: Arm, reference: Arm, compared: Comparison, metric: str = "dice", scale: float = 100) -> Difference:
    """How far an arm's AVG lies above the reference's, in points: its spread over runs, its 95% interval over cases.

    Taken over the seeds and folds that both have, so that the luck of a seed is on both sides; over all where they
    have none in common, and then without a spread.
    """
    both = arm.repeats & reference.repeats
    found = paired_bootstrap(arm.cases(metric, only=both), reference.cases(metric, only=both), unseen=compared.unseen)
    over_runs = mean_sd(gains(arm, reference, compared, metric, scale))
    value, low, high = (scale * number for number in found)
    return Difference(value, over_runs.sd, over_runs.repeats, low, high)


def gains(arm: Arm, reference: Arm, compared: Comparison, metric: str = "dice", scale: float = 100) -> list[float]:
    """The same of each run alone, in the order of seed and fold, of those that both have."""
    each = (
        paired_bootstrap(
            arm.cases(metric, only={repeat}), reference.cases(metric, only={repeat}), 1, unseen=compared.unseen
        ).value
        for repeat in sorted(arm.repeats & reference.repeats)
    )
    return [scale * value for value in each if math.isfinite(value)]


def seeds_said(arms: Sequence[Arm]) -> str:
    """What is known of the spread over seeds."""
    counts = [len({seed for seed, _ in arm.repeats}) for arm in arms if arm.scored]
    least, most = min(counts, default=0), max(counts, default=0)
    if most < 2:
        folds = any(len(arm.repeats) > 1 for arm in arms)
        return ONE_SEED + (" ± is the standard deviation over folds." if folds else "")
    counted = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    return f"± is the standard deviation over runs, of {counted} a method."


def _avg(arm: Arm, compared: Comparison) -> float:
    return 100 * arm.average("dice", compared.tested, compared.unseen).mean


def _means(arm: Arm, compared: Comparison) -> dict[str, float]:
    return {site: 100 * spread.mean for site, spread in arm.means("dice", compared.tested).items()}


def _progress(compared: Comparison) -> str:
    parts = []
    for arm in compared.arms:
        for run in arm.runs:
            total = run.config.get("rounds", "an unknown number of")
            parts.append(f"{arm.label} has done {run.rounds_done} of {total} rounds")
    return f"Not finished: {_listed(parts)}."


def _undefined(compared: Comparison) -> str:
    means = [_means(arm, compared) for arm in compared.scored]
    lacking = [site for site in compared.trained if not all(math.isfinite(of[site]) for of in means)]
    return f"No mean Dice over all sites: it is not defined at {_listed(lacking or ['any site that trained'])}."


def _alone(arm: Arm, compared: Comparison) -> str:
    means = _means(arm, compared)
    worst = worst_site(means, compared.unseen)
    sentence = f"{arm.label} reaches a mean Dice of {text(_avg(arm, compared))}% over {_sites(len(compared.trained))}"
    if worst and len(compared.trained) > 1:
        sentence += f"; it is weakest at {worst}, with {text(means[worst])}%"
    return sentence + "." + _at_unseen([arm], compared)


def _ahead(arms: Sequence[Arm], compared: Comparison) -> str:
    reference = baseline(arms)

    def lead(arm: Arm) -> float:
        own, others = _paired(arm, reference)
        return _avg(own, compared) - _avg(others, compared)

    ranked = sorted(_ranked(arms), key=lead, reverse=True)
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


def _ranked(arms: Sequence[Arm]) -> Sequence[Arm]:
    """Those with as many runs as any, for a lucky seed alone leads nothing; all, if one alone has so many."""
    most = max(len(arm.repeats) for arm in arms)
    whole = [arm for arm in arms if len(arm.repeats) == most]
    return whole if len(whole) > 1 else arms


def _paired(arm: Arm, other: Arm) -> tuple[Arm, Arm]:
    """Both with the runs of seeds and folds that both have, or with all where they have none in common."""
    both = arm.repeats & other.repeats
    if not both:
        return arm, other
    one, two = (replace(each, runs=tuple(run for run in each.runs if run.repeat in both)) for each in (arm, other))
    return one, two


def _lead_sentence(
    leader: Arm, other: Arm, difference: Difference, by_run: Sequence[float], compared: Comparison
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


def _why_none(leader: Arm, other: Arm, compared: Comparison) -> str:
    """Why there is no interval over test cases."""
    own, others = ({(score.site, score.case) for score in arm.cases("dice")} for arm in (leader, other))
    if any(not any(at == site for at, _ in own & others) for site in compared.trained):
        return "no test case is known to be in both"
    return "a site has one test case, or tells only a mean"


def _where_not(leader: Arm, other: Arm, compared: Comparison) -> str:
    own, others = _means(leader, compared), _means(other, compared)
    lower = {site: own[site] - others[site] for site in compared.trained if round(own[site] - others[site], 1) < 0}
    if not lower:
        return f" It is not behind {other.label} at any site it was trained on."
    return f" It is behind at {_listed([f'{site} ({signed(change)})' for site, change in lower.items()])}."


def _at_unseen(arms: Sequence[Arm], compared: Comparison) -> str:
    sentence = ""
    for site in (site for site in compared.tested if site in compared.unseen):
        scores = " against ".join(f"{text(_means(arm, compared)[site])}%" for arm in arms)
        sentence += f" At {site}, which no method was trained on: {scores}."
    return sentence


def _caveat(arms: Sequence[Arm], compared: Comparison) -> str:
    cases = compared.cases
    runs, most = min(len(arm.scored) for arm in arms), max(len(arm.scored) for arm in arms)
    counted = "one run" if most == 1 else f"{most} runs" if runs == most else f"{runs} to {most} runs"
    sentence = f"From {sum(cases.values())} test cases at {_sites(len(compared.tested))} and {counted} a method. "
    if len(_ranked(arms)) < len(arms):
        sentence += f"Methods with fewer than {most} runs are not ranked. "
    few = [site for site in compared.tested if cases[site] < FEW_CASES]
    if few:
        sentence += f"Fewer than {FEW_CASES} test cases at {_listed(few)}. "
    undefined = sum(score.cases for score in _all_cases(arms) if not math.isfinite(score.value))
    if undefined:
        sentence += f"{undefined} undefined {'score is' if undefined == 1 else 'scores are'} left out. "
    if len(arms) > 1:
        sentence += "An interval over test cases alone says nothing of another training. "
    return sentence + seeds_said(_ranked(arms))


def _all_cases(arms: Sequence[Arm]) -> list[Score]:
    return [score for arm in arms for score in arm.cases("dice")]


def _sites(count: int) -> str:
    return f"{count} site" if count == 1 else f"{count} sites"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

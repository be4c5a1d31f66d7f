"""Comparability: check which runs may be compared in one report."""

from collections.abc import Sequence

from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.reader import Run


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs of other sites, held-out sites, test cases or tasks: their averages are not the same quantity."""
    finished = [run for run in runs if run.summary]
    for run in finished[1:]:
        _same("the sites", finished[0], sorted(finished[0].sites), run, sorted(run.sites))
        _same("the unseen sites", finished[0], sorted(finished[0].unseen), run, sorted(run.unseen))
        _same("the task", finished[0], _task(finished[0]), run, _task(run))
    tested: dict[tuple[str, int], tuple[Run, set[str]]] = {}
    for run in finished:
        for site, cases in run.tested.items():
            first, known_cases = tested.setdefault((site, run.repeat[1]), (run, cases))
            less, more = sorted(known_cases - cases)[:3], sorted(cases - known_cases)[:3]
            _same(f"the test cases of {site}", first, less, run, more)
    known = set((finished or runs)[0].sites)
    for run in runs:
        if not run.summary and known and run.sites and not set(run.sites) <= known:
            _same("the sites", (finished or runs)[0], sorted(known), run, sorted(run.sites))


def _task(run: Run) -> list[str]:
    return [run.summary.task] if run.summary else []


def _same(what: str, first: Run, expected: list[str], run: Run, found: list[str]) -> None:
    if expected != found:
        raise UserError(
            f"{run.folder} cannot stand beside {first.folder}: {what} differ "
            f"({', '.join(found) or 'none'} against {', '.join(expected) or 'none'}). Report them separately."
        )

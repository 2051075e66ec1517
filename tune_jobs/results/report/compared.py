"""Several runs held against each other, a line each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from tune_jobs.results.report import timing
from tune_jobs.results.report.findings import points
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.statistics import LEVEL, Summary


@dataclass(frozen=True)
class Line:
    """One run beside the first."""

    name: str
    trials: int
    complete: int
    accuracy: float
    """Of its best config: the mean over fresh seeds where it is confirmed, else the search's score; NaN for none."""
    low: float
    high: float
    """95 % t interval over the seeds; NaN where it is not confirmed."""
    test_accuracy: float
    """Of the same config: a mean over the same trainings."""
    train_time_s: float
    """Of all its trials."""
    verdict: str
    """How it stands to the first run, in words."""


def lines(runs: Sequence[tuple[str, Loaded]]) -> list[Line]:
    """One for each run, in their order."""
    first = runs[0][1]
    return [
        _line(name, loaded, "" if index == 0 else _verdict(loaded, first)) for index, (name, loaded) in enumerate(runs)
    ]


def times(runs: Sequence[Loaded]) -> str:
    """One sentence on whether the training times of all their trials compare; empty where they do."""
    return timing.sentence([row for run in runs for row in run.rows], any(run.side_by_side for run in runs))


def _line(name: str, loaded: Loaded, verdict: str) -> Line:
    summary, choice = _summary(loaded), loaded.choice
    return Line(
        name=name,
        trials=len(loaded.rows),
        complete=sum(row.state == "COMPLETE" for row in loaded.rows),
        accuracy=summary.mean if summary else choice.candidate.accuracy if choice else math.nan,
        low=summary.low if summary else math.nan,
        high=summary.high if summary else math.nan,
        test_accuracy=_test_accuracy(loaded),
        train_time_s=sum(row.train_time_s for row in loaded.rows if not math.isnan(row.train_time_s)),
        verdict=verdict,
    )


def _summary(loaded: Loaded) -> Summary | None:
    return loaded.confirmation.configs[0].val if loaded.confirmation else None


def _test_accuracy(loaded: Loaded) -> float:
    """Of the config whose validation accuracy stands beside it."""
    if loaded.confirmation:
        return loaded.confirmation.test.mean
    return statistics.fmean(row.test_accuracy for row in loaded.choice.candidate.rows) if loaded.choice else math.nan


def _verdict(loaded: Loaded, first: Loaded) -> str:
    """Welch's t-test where both are confirmed: their seeds are not shared, so nothing is paired."""
    if loaded.environment["data_sha256"] != first.environment["data_sha256"]:
        return "other images or another split: the accuracies do not compare"
    one, other = _summary(loaded), _summary(first)
    if loaded.choice is None or first.choice is None:
        return "nothing to compare"
    if one is None or other is None:
        own, firsts = loaded.choice.candidate, first.choice.candidate
        gap = points(own.accuracy - firsts.accuracy, sign=True)
        scores = f"{own.accuracy:.2%} beside {firsts.accuracy:.2%}"
        return f"{gap} points to the first run, by the searches' own scores ({scores}): confirm both to know"
    gap = points(one.mean - other.mean, sign=True)
    if not (one.std > 0 or other.std > 0):
        return f"{gap} points to the first run; neither has a spread over seeds"
    p = stats.ttest_ind_from_stats(one.mean, one.std, one.n, other.mean, other.std, other.n, equal_var=False).pvalue
    told = "really apart" if p < 1 - LEVEL else "not distinguishable"
    return f"{gap} points to the first run, {told} (Welch's t-test over seeds, p = {p:.3f})"

"""Several runs held against each other, a line each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tune_jobs.results.confirmation import Confirmed
from tune_jobs.results.report import timing
from tune_jobs.results.report.finding import points
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.statistics import LEVEL, holm, p_in_words, p_of_means, p_of_shares, p_value


@dataclass(frozen=True)
class Line:
    """One run beside the first."""

    name: str
    trials: int
    complete: int
    accuracy: float
    """Of the config that it names: the mean over fresh seeds where that is confirmed, else the search's score; NaN for
    none."""
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
    verdicts = ["", *_verdicts(runs[0][1], [loaded for _, loaded in runs[1:]])]
    return [_line(name, loaded, verdict) for (name, loaded), verdict in zip(runs, verdicts, strict=True)]


def times(runs: Sequence[Loaded]) -> str:
    """One sentence on whether the training times of all their trials compare; empty where they do."""
    return timing.sentence([row for run in runs for row in run.rows], any(run.side_by_side for run in runs))


def _line(name: str, loaded: Loaded, verdict: str) -> Line:
    candidate = loaded.choice.candidate if loaded.choice else None
    accuracy, test_accuracy = (candidate.accuracy, candidate.test_accuracy) if candidate else (math.nan, math.nan)
    low = high = math.nan
    if loaded.confirmation is not None and (confirmed := _confirmed(loaded)) is not None:
        accuracy, low, high = confirmed.val.mean, confirmed.val.low, confirmed.val.high
        test = loaded.confirmation.test_accuracy(confirmed)
        test_accuracy = math.nan if test is None else test.mean
    return Line(
        name=name,
        trials=len(loaded.rows),
        complete=sum(row.state == "COMPLETE" for row in loaded.rows),
        accuracy=accuracy,
        low=low,
        high=high,
        test_accuracy=test_accuracy,
        train_time_s=timing.spent(loaded.rows),
        verdict=verdict,
    )


def _confirmed(loaded: Loaded) -> Confirmed | None:
    """What the confirmation found of the config that the run names; None where it is of others."""
    return loaded.confirmation.of(loaded.choice.row) if loaded.confirmation and loaded.choice else None


@dataclass(frozen=True)
class _Tested:
    """The named configs of two runs under fresh seeds."""

    difference: float
    """Of the means, to the first run's."""
    p: float
    by: str
    """The test that it is of."""
    doubt: str
    """In words, what the images leave to chance though the test does not; empty where that is nothing, or each seed had
    images of its own."""


def _verdicts(first: Loaded, others: Sequence[Loaded]) -> list[str]:
    """How each stands to the first; Holm's correction for all that could be tested."""
    found = [_tested(other, first) for other in others]
    corrected = holm([one.p if isinstance(one, _Tested) else math.nan for one in found])
    several = sum(not math.isnan(p) for p in corrected) > 1
    holms = " after Holm's correction" if several else ""
    verdicts = []
    for one, p in zip(found, corrected, strict=True):
        if isinstance(one, str):
            verdicts.append(one)
            continue
        told = "really apart"
        if not p < 1 - LEVEL:
            told = "not distinguishable"
        elif one.doubt:
            told = one.doubt
        by = f"{one.by}, {p_in_words(p)}{holms}"
        verdicts.append(f"{points(one.difference, sign=True)} points to the first run, {told} ({by})")
    return verdicts


def _tested(loaded: Loaded, first: Loaded) -> _Tested | str:
    """In words where there is nothing to test by."""
    if loaded.environment["data_sha256"] != first.environment["data_sha256"]:
        return "other images or another split: the accuracies do not compare"
    if loaded.choice is None or first.choice is None:
        return "nothing to compare"
    one, other = _confirmed(loaded), _confirmed(first)
    if one is None or other is None:
        own, firsts = loaded.choice.candidate, first.choice.candidate
        gap = points(own.accuracy - firsts.accuracy, sign=True)
        scores = f"{own.accuracy:.2%} beside {firsts.accuracy:.2%}"
        return f"{gap} points to the first run, by the searches' own scores ({scores}): confirm both to know"
    assert loaded.confirmation is not None
    assert first.confirmation is not None
    difference, splits = one.val.mean - other.val.mean, loaded.confirmation.splits
    same = loaded.confirmation.seeds == first.confirmation.seeds and len(one.scores) == len(other.scores) > 0
    if splits != first.confirmation.splits or (splits and not same):
        gap = points(difference, sign=True)
        return f"{gap} points to the first run, over other splits: confirm both with as many seeds and splits to know"
    images = loaded.confirmation.images
    if not (splits or one.reads_seed or other.reads_seed):
        p, by = p_of_shares(one.val.mean, other.val.mean, images), "test of two shares of the images"
    elif same:
        overlap = images / loaded.environment["images"]["train"] if splits else 0.0
        differences = [a - b for a, b in zip(one.scores, other.scores, strict=True)]
        p, by = p_value(differences, images, overlap), "t-test paired over seeds"
    else:
        p, by = p_of_means(one.val, other.val, images), "Welch's t-test over seeds"
    return _Tested(difference, p, by, "" if splits else _doubt(loaded, first, one, other))


def _doubt(loaded: Loaded, first: Loaded, one: Confirmed, other: Confirmed) -> str:
    """Each was chosen among others on these validation images, which is in the gap; by the test images nothing was.

    Those of an earlier version, whose test accuracies are not known, are judged by the validation images alone.
    """
    assert loaded.confirmation is not None
    assert first.confirmation is not None
    images, tested = loaded.confirmation.images, int(loaded.environment["images"]["test"])
    if p_of_shares(one.val.mean, other.val.mean, images) >= 1 - LEVEL:
        return f"apart on these {images:,} images, which alone leave such a gap to chance"
    test, firsts = loaded.confirmation.test_accuracy(one), first.confirmation.test_accuracy(other)
    if test is None or firsts is None or math.isnan(test.mean - firsts.mean):
        return ""
    if (test.mean - firsts.mean) * (one.val.mean - other.val.mean) < 0:
        return f"apart by validation, but the other way round on the {tested:,} test images"
    if p_of_shares(test.mean, firsts.mean, tested) >= 1 - LEVEL:
        return f"apart by validation, but the {tested:,} test images leave such a gap to chance"
    return ""

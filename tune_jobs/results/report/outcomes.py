"""What fields are compared by: a score for each config, and the configs that have none because they FAILed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_jobs.results.ledger import TrialRecord, by_number, number_of
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.wording import is_number, label, levels


@dataclass(frozen=True)
class Score:
    """What one config reached; the mean over its repeats."""

    config: Mapping[str, Any]
    accuracy: float


@dataclass(frozen=True)
class Outcomes:
    """What is compared, and on what footing."""

    scores: list[Score]
    basis: str
    """Empty where it is the best epoch's accuracy of complete configs."""
    failed: list[Mapping[str, Any]]
    """Configs without a score of which a trial FAILed."""


@dataclass(frozen=True)
class LeftOut:
    """The configs with one value of a field, or within one part of its range, that no comparison has: they FAILed."""

    label: str
    failed: int
    configs: int
    """That have the value, scored or FAILed."""


def outcomes(loaded: Loaded) -> Outcomes:
    """The scores that fields are compared by.

    Where a scheduler stopped trials, the complete ones alone would be the survivors of a choice by accuracy: all are
    then compared by their best accuracy up to the last epoch that every one of them reached.
    """
    if not any(row.state == "PRUNED" for row in loaded.rows):
        scored = {number_of(c.rows[0].id) for c in loaded.candidates}
        return Outcomes([Score(c.rows[0].config, c.accuracy) for c in loaded.candidates], "", _failed(loaded, scored))
    usable = [trial for trial in loaded.trials if trial.state in ("COMPLETE", "PRUNED") and trial.epochs]
    longest = [len(trial.epochs) for trial in usable if trial.config.get("epochs", 1) > 1]
    shared = min(longest, default=1)
    scores = {}
    for number, group in by_number(usable).items():
        reached = [_best_up_to(trial, shared) for trial in group]
        if all(math.isfinite(value) for value in reached):
            scores[number] = Score(group[0].config, statistics.fmean(reached))
    pruned = sum(trial.state == "PRUNED" for trial in usable)
    epochs = "epoch 1" if shared == 1 else f"{shared} epochs"
    basis = f"by the accuracy after {epochs}, which also the {pruned} stopped trials reached"
    return Outcomes(list(scores.values()), basis, _failed(loaded, scores.keys()))


def _best_up_to(trial: TrialRecord, epochs: int) -> float:
    return max(math.nan if e["val_accuracy"] is None else e["val_accuracy"] for e in trial.epochs[:epochs])


def _failed(loaded: Loaded, scored: Collection[int]) -> list[Mapping[str, Any]]:
    return [
        rows[0].config
        for number, rows in by_number(loaded.rows).items()
        if number not in scored and any(row.state == "FAIL" for row in rows)
    ]


def in_parts(values: Sequence[Any]) -> bool:
    """Whether a field has so many values that parts of its range are compared, where no cells are matched."""
    return len(values) > 5 and all(is_number(value) for value in values)


def left_out(found: Outcomes, name: str, matched: bool) -> tuple[LeftOut, ...]:
    """By value of a field; of one that is compared by parts of its range, all between the least and the greatest value
    that FAILed as one.  Empty where none FAILed."""
    failed = [config[name] for config in found.failed if name in config]
    having = failed + [score.config[name] for score in found.scores if name in score.config]
    if failed and not matched and in_parts(levels(having)):
        low, high = min(failed), max(failed)
        ends = label(low) if low == high else f"{label(low)} to {label(high)}"
        return (LeftOut(ends, len(failed), sum(low <= value <= high for value in having)),)
    counts, of = Counter(map(repr, failed)), Counter(map(repr, having))
    return tuple(LeftOut(label(value), counts[repr(value)], of[repr(value)]) for value in levels(failed))


def left_out_in_words(parts: Sequence[LeftOut]) -> str:
    """A sentence for those of which some have a score, one for each of which none has; empty where there are none."""
    some = [part for part in parts if part.failed < part.configs]
    none = [part for part in parts if part.failed == part.configs]
    sentences = []
    if some:
        each = ", ".join(
            f"{part.label} {'FAILed ' * (n == 0)}in {part.failed} of {part.configs}{' configs' * (n == 0)}"
            for n, part in enumerate(some)
        )
        sentences.append(f"{each}, which are left out.")
    for part in none:
        all_ = f"all {part.configs} configs" if part.configs > 1 else "the one config"
        sentences.append(f"{part.label} FAILed in {all_} that had it, and is not compared.")
    return " ".join(sentences)

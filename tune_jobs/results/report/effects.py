"""What each field of the config did to the validation accuracy: effect sizes, their n, their spread, and a test.

Of a grid, cells that agree in all other varied fields are paired: the difference is the field's alone (Fisher's
blocking), tested by the paired t-test for two values and by Tukey's test of the largest gap for more.  Points that a
sampler chose have no such partners: there a field's values, or thirds of its range, are compared by the Kruskal-Wallis
test, after each model's median is taken out; it is of any difference among them.  Holm's correction is over all fields.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from tune_jobs.results.report.loaded import REPEATS, Loaded
from tune_jobs.results.report.outcomes import LeftOut, Outcomes, Score, in_parts, left_out
from tune_jobs.results.report.wording import label, levels
from tune_jobs.results.statistics import LEVEL, holm, largest_gap, p_value, summarise

FEWEST = 5
"""Of the configs a value must have before sampled ones are compared."""


@dataclass(frozen=True)
class Group:
    """The configs with one value, or within one part of the range, of a field."""

    label: str
    n: int
    accuracy: float
    """Mean over matched cells; median of sampled configs."""


@dataclass(frozen=True)
class Split:
    """The difference within the cells that have one value of another field."""

    label: str
    difference: float
    n: int


@dataclass(frozen=True)
class Effect:
    """One field, its best value held against its worst."""

    field: str
    matched: bool
    groups: list[Group]
    """Best first."""
    difference: float
    """Of the accuracies, 0 to 1, best group less worst."""
    low: float
    high: float
    """95 % interval: Student's t over the pairs of two values, Tukey's of the largest gap among more; NaN for sampled
    configs."""
    n: int
    """Pairs, or configs."""
    wins: int
    """Pairs in which the best value was ahead."""
    p: float
    """Holm-corrected; of the difference in matched cells, of any difference among all groups of sampled configs.  NaN
    where there is nothing to test."""
    noise: float
    """What chance alone does to the difference, 0 to 1: one standard error."""
    share: float
    """Of the variance between the scores (or of their ranks) that goes with the field, 0 to 1."""
    by: str = ""
    """Another field on which the difference depends most; empty where on none by more than the noise."""
    splits: tuple[Split, ...] = ()
    """The difference for each of its values."""
    left_out: tuple[LeftOut, ...] = ()
    """What FAILed, by the field's values: where it did not, they are compared."""

    @property
    def apart(self) -> bool:
        """Whether it is told from chance: by the test, and larger than the noise."""
        return self.p < 1 - LEVEL and abs(self.difference) > self.noise


def effects(loaded: Loaded, found: Outcomes) -> list[Effect]:
    """One for each varied field that can be compared; what is told apart first, then by size."""
    fields = [name for name in loaded.fields if name not in REPEATS]
    results = []
    for name in fields:
        effect = _matched(loaded, found.scores, name, fields)
        effect = effect or _sampled(loaded, found.scores, name)
        if effect is not None:
            results.append(replace(effect, left_out=left_out(found, name, effect.matched)))
    corrected = holm([effect.p for effect in results])
    results = [replace(effect, p=p) for effect, p in zip(results, corrected, strict=True)]
    return sorted(results, key=lambda effect: (not effect.apart, -abs(effect.difference)))


def _matched(loaded: Loaded, scores: Sequence[Score], name: str, fields: Sequence[str]) -> Effect | None:
    """None unless two cells or more have all the field's values, with all other varied fields alike."""
    values = levels([score.config[name] for score in scores if name in score.config])
    others = [other for other in fields if other != name]
    cells: dict[Hashable, dict[str, Score]] = {}
    for score in scores:
        if name in score.config:
            key = tuple(repr(score.config.get(other)) for other in (*others, *REPEATS))
            cells.setdefault(key, {})[repr(score.config[name])] = score
    blocks = [cell for cell in cells.values() if len(cell) == len(values)]
    if len(values) < 2 or len(blocks) < 2:
        return None
    table = np.array([[block[repr(value)].accuracy for value in values] for block in blocks])
    means = table.mean(axis=0)
    order = [int(index) for index in np.argsort(-means, kind="stable")]
    top, bottom = order[0], order[-1]
    differences = [float(row[top] - row[bottom]) for row in table]
    mean, low, high, p = _tested(table, differences, loaded.val_images)
    by, splits = _interaction(loaded, blocks, differences, others)
    total = float(((table - table.mean()) ** 2).sum())
    return Effect(
        field=name,
        matched=True,
        groups=[Group(label(values[index]), len(blocks), float(means[index])) for index in order],
        difference=mean,
        low=low,
        high=high,
        n=len(blocks),
        wins=sum(difference > 0 for difference in differences),
        p=p,
        noise=loaded.noise.of_difference(len(blocks)),
        share=len(blocks) * float(((means - means.mean()) ** 2).sum()) / total if total else 0.0,
        by=by,
        splits=splits,
    )


def _tested(table: np.ndarray[Any, Any], differences: list[float], images: int) -> tuple[float, float, float, float]:
    """The mean difference, its interval and p: by Student's t for two values, by Tukey's range for more, of which the
    best and the worst by their means were picked by looking at these."""
    summary = summarise(differences, -1.0)
    if table.shape[1] == 2:
        return summary.mean, summary.low, summary.high, p_value(differences, images)
    p, half = largest_gap(table, images)
    return summary.mean, max(summary.mean - half, -1.0), min(summary.mean + half, 1.0), p


def _interaction(
    loaded: Loaded, blocks: Sequence[Mapping[str, Score]], differences: Sequence[float], others: Sequence[str]
) -> tuple[str, tuple[Split, ...]]:
    """The other field by whose values the difference varies most, if by more than three standard errors of the noise
    (several fields and values are looked through)."""
    best: tuple[float, str, tuple[Split, ...]] = (0.0, "", ())
    for other in others:
        groups: dict[str, list[float]] = {}
        for block, difference in zip(blocks, differences, strict=True):
            value = next(iter(block.values())).config.get(other)
            groups.setdefault(label(value), []).append(difference)
        if len(groups) < 2:
            continue
        splits = tuple(Split(name, statistics.fmean(found), len(found)) for name, found in groups.items())
        ends = [split.difference for split in splits]
        limit = 3 * math.sqrt(2) * loaded.noise.of_difference(min(split.n for split in splits))
        if max(ends) - min(ends) > max(limit, best[0]):
            best = (max(ends) - min(ends), other, tuple(sorted(splits, key=lambda split: -split.difference)))
    return best[1], best[2]


def _sampled(loaded: Loaded, scores: Sequence[Score], name: str) -> Effect | None:
    """None where fewer than two values, or parts of the range, have enough configs."""
    having = [score for score in scores if name in score.config]
    groups = _groups(having, name)
    groups = {key: members for key, members in groups.items() if len(members) >= FEWEST}
    if len(groups) < 2:
        return None
    centre = _medians_by_model(having) if name != "model" else {}
    centred = {
        key: [score.accuracy - centre.get(score.config["model"], 0.0) for score in members]
        for key, members in groups.items()
    }
    flat = [value for members in centred.values() for value in members]
    if min(flat) == max(flat):
        return None
    statistic, p = stats.kruskal(*centred.values())
    medians = {key: statistics.median(members) for key, members in centred.items()}
    order = sorted(medians, key=lambda key: -medians[key])
    n = len(flat)
    return Effect(
        field=name,
        matched=False,
        groups=[
            Group(key, len(groups[key]), statistics.median(score.accuracy for score in groups[key])) for key in order
        ],
        difference=medians[order[0]] - medians[order[-1]],
        low=math.nan,
        high=math.nan,
        n=n,
        wins=0,
        p=float(p),
        # The median's standard error is 1.25 times the mean's where scores are normal.
        noise=1.25 * loaded.noise.of_difference(min(len(groups[order[0]]), len(groups[order[-1]]))),
        # Eta squared (Tomczak and Tomczak 2014).
        share=max(0.0, float(statistic - len(groups) + 1) / (n - len(groups))),
    )


def _groups(scores: Sequence[Score], name: str) -> dict[str, list[Score]]:
    """By value; a number with more than five values by thirds of what was sampled, in equal counts."""
    values = levels([score.config[name] for score in scores])
    groups: dict[str, list[Score]] = {}
    if in_parts(values):
        ordered = sorted(scores, key=lambda score: score.config[name])
        for part in np.array_split(np.arange(len(ordered)), 3 if len(ordered) >= 3 * FEWEST else 2):
            members = [ordered[index] for index in part]
            ends = label(members[0].config[name]), label(members[-1].config[name])
            groups.setdefault(f"{ends[0]} to {ends[1]}", []).extend(members)
        return groups
    for score in scores:
        groups.setdefault(label(score.config[name]), []).append(score)
    return groups


def _medians_by_model(scores: Sequence[Score]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(score.config["model"], []).append(score.accuracy)
    return {model: statistics.median(values) for model, values in found.items()}

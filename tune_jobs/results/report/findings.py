"""What the rows say, in plain words: every sentence is made from numbers, and says how many they are of."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator

from scipy import stats

from models import TrainConfig, is_network
from tune_jobs.results import selection
from tune_jobs.results.report.effects import Effect, effects
from tune_jobs.results.report.finding import Finding, points, wilson
from tune_jobs.results.report.loaded import REPEATS, Loaded
from tune_jobs.results.report.outcomes import Outcomes, left_out, left_out_in_words, outcomes
from tune_jobs.results.report.standing import standing
from tune_jobs.results.report.wording import is_number, label
from tune_jobs.results.statistics import LEVEL, p_in_words
from tune_jobs.results.words import duration
from tune_jobs.space.axis import RANGES, Axis

LEARNING = ("tpe", "gp", "nsga2")
"""Samplers that choose by what they have seen."""

TO_ZERO = ("cosine", "onecycle")
"""Schedules of the learning rate that end at zero, or next to it."""


def findings(loaded: Loaded) -> list[Finding]:
    """The most useful first: the winner's standing, what each field did, then what to do next."""
    compared = outcomes(loaded)
    found = effects(loaded, compared)
    return [
        *standing(loaded),
        *map(_field, found),
        *_not_compared(loaded, compared, found),
        *_footing(loaded, found, compared.basis),
        *_cheaper(loaded),
        *_more_epochs(loaded),
        *_edges(loaded, found),
        *_progress(loaded),
        *_failures(loaded),
    ]


def _field(effect: Effect) -> Finding:
    best, worst = effect.groups[0], effect.groups[-1]
    gap = points(effect.difference)
    tested = "" if math.isnan(effect.p) else f"{p_in_words(effect.p)} after Holm's correction"
    if tested and len(effect.groups) > 2:
        if effect.matched:
            tested += f" (Tukey's test of the largest gap among {len(effect.groups)} values)"
        else:
            tested = f"any difference among the {len(effect.groups)}: {tested}"
    tested = tested and f"; {tested}"
    if effect.matched:
        spread = "" if math.isnan(effect.low) else f", 95 % interval {points(effect.low)} to {points(effect.high)}"
        text = (
            f"{best.label} lies {gap} points above {worst.label} on average over {effect.n} matched pairs, ahead in "
            f"{effect.wins} of them{spread}{tested}."
        )
    else:
        each = ", ".join(f"{group.label}: {group.accuracy:.2%} (n = {group.n})" for group in effect.groups)
        within = "" if effect.field == "model" else ", each model's own median taken out,"
        text = f"Medians: {each}. From best to worst{within} that is {gap} points{tested}."
    if effect.by:
        parts = " and ".join(f"{points(s.difference, sign=True)} with {s.label} (n = {s.n})" for s in effect.splits)
        text += f" It depends on {effect.by}: {parts}."
    if lost := left_out_in_words(effect.left_out):
        text += f" {lost}"
    if effect.apart:
        return Finding("clear", f"{effect.field} matters", text)
    why = f" Chance alone makes about {points(effect.noise)} points." if abs(effect.difference) <= effect.noise else ""
    where = f" where {'both' if len(effect.groups) == 2 else 'all'} trained" if lost else ""
    return Finding("unclear", f"{effect.field}: not distinguishable{where}", text + why)


def _not_compared(loaded: Loaded, compared: Outcomes, found: list[Effect]) -> Iterator[Finding]:
    left = [name for name in loaded.fields if name not in {effect.field for effect in found}]
    varied = len({repr(row.config.get(name)) for row in loaded.rows for name in left}) > 1
    if left and varied and loaded.candidates:
        text = f"Too few usable configs differ in {'it' if len(left) == 1 else 'them'} to say what a value does."
        for name in left:
            wholly = [part for part in left_out(compared, name, matched=False) if part.failed == part.configs]
            if lost := left_out_in_words(wholly):
                text += f" {lost}" if len(left) == 1 else f" Of {name}, {lost}"
        yield Finding("unclear", ", ".join(left), text)


def _footing(loaded: Loaded, found: list[Effect], basis: str) -> Iterator[Finding]:
    if found and basis:
        text = f"What a field does is judged {basis}: the survivors alone would be a choice by accuracy."
        yield Finding("note", "Stopped trials count too", text)
    sampler = loaded.experiment.search.sampler
    if loaded.experiment.search.method == "optuna" and sampler in LEARNING and any(not e.matched for e in found):
        text = (
            f"The tests take configs as drawn independently; {sampler} chose later ones by earlier scores, and more of "
            "them where it found good ones. Read their p as a guide."
        )
        yield Finding("note", "A sampler chose the configs", text)
    if found:
        noise = loaded.noise
        text = (
            f"One standard deviation of a single score is {points(noise.images)} points by the choice of "
            f"{loaded.val_images:,} validation images (binomial)"
        )
        if noise.seeds is not None:
            text += f", and {points(noise.seeds)} over seeds, by {noise.source}"
        yield Finding("note", "What counts as noise", f"{text}.")


def _cheaper(loaded: Loaded) -> Iterator[Finding]:
    """The least training time among those that cannot be told from the best, and that no confirmation found worse."""
    if loaded.choice is None:
        return
    best = loaded.choice.candidate
    half = best.accuracy - wilson(loaded, best.accuracy)[0]
    near = [c for c in loaded.candidates if c.accuracy >= best.accuracy - half and not math.isnan(c.train_time_s)]
    if (confirmed := loaded.confirmation) is not None:
        near = [c for c in near if not confirmed.refutes(c.rows[0])]
    least = min(near, key=lambda c: c.train_time_s, default=best)
    if least is best or least.train_time_s <= 0 or best.train_time_s / least.train_time_s < 1.25:
        return
    beside = loaded.times([row for candidate in near for row in candidate.rows])
    lost = best.accuracy - least.accuracy
    within = f"within the interval of {loaded.val_images:,} images"
    text = (
        f"Trial {least.rows[0].id} ({_in_words(loaded, least)}) trained in {duration(least.train_time_s)}, "
        f"{best.train_time_s / least.train_time_s:.1f} times faster than "
        f"{f'trial {loaded.choice.row.id}' if loaded.choice.by_id else 'the best'}, "
        + (f"for {points(lost)} points of accuracy, {within}." if lost >= 0 else f"with {points(-lost)} points more.")
    )
    yield Finding("note", "A cheaper one", f"{text} {beside}".strip())


def _in_words(loaded: Loaded, candidate: selection.Candidate) -> str:
    config = candidate.rows[0].config
    return ", ".join(f"{name} {label(config[name])}" for name in loaded.fields if name in config)


def _more_epochs(loaded: Loaded) -> Iterator[Finding]:
    """Where most networks were best in their last epoch, and more than by chance: each of n epochs is the best of those
    that no longer change but by chance in one of n.

    A schedule that ends at a rate of zero makes the last epoch the best of any training, however long.
    """
    networks = [row for row in loaded.rows if row.state == "COMPLETE" and is_network(row.config["model"])]
    several = [row for row in networks if row.epochs > 1 and row.config.get("lr_schedule") not in TO_ZERO]
    last = sum(row.best_epoch == row.epochs for row in several)
    if last <= len(several) / 2:
        return
    by_chance = statistics.fmean(1 / row.epochs for row in several)
    if stats.binomtest(last, len(several), by_chance, alternative="greater").pvalue < 1 - LEVEL:
        text = (
            f"{last} of {len(several)} complete networks were best in their last epoch: they may still have been "
            "improving when training ended, and their order may change with more epochs."
        )
        yield Finding("note", "More epochs may help", text)


def _edges(loaded: Loaded, found: list[Effect]) -> Iterator[Finding]:
    if loaded.choice is None:
        return
    unclear = {effect.field for effect in found if not effect.apart}
    config = loaded.choice.row.config
    for axis in loaded.axes.values():
        numbers = [v for v in axis.values if is_number(v)]
        if axis.field in REPEATS or axis.field not in config or len(numbers) != len(axis.values) or len(numbers) < 2:
            continue
        if end := _end(axis, config[axis.field]):
            way = "lower" if end == "lowest" else "higher"
            text = (
                f"The best has {label(config[axis.field])}, at the {end} end of what was searched "
                f"({label(min(numbers))} to {label(max(numbers))}); a {way} one was not tried."
            )
            if axis.field in unclear:
                text += " What the field does is not distinguishable, so that may be chance."
            yield Finding("note", f"{axis.field} is at the edge", text)


def _end(axis: Axis, value: float) -> str:
    """Which end of what was searched it lies at: of a list the end itself, of a range within a twentieth of it.

    Empty where it lies at none, where the field allows nothing beyond, or where it is none of the axis, which a
    condition kept out of the trial.
    """
    if not axis.holds(value):
        return ""
    low, high = min(axis.values), max(axis.values)
    ends = (low, high, value)
    if axis.kind.startswith("log"):
        ends = (math.log(low), math.log(high), math.log(value))
    place = (ends[2] - ends[0]) / (ends[1] - ends[0])
    margin = 0.05 if axis.kind in RANGES else 0.0
    bounds = TrainConfig.model_fields[axis.field].metadata
    if place <= margin:
        return "" if any(getattr(bound, "ge", None) == low for bound in bounds) else "lowest"
    if place >= 1 - margin:
        return "" if any(getattr(bound, "le", None) == high for bound in bounds) else "highest"
    return ""


def _progress(loaded: Loaded) -> Iterator[Finding]:
    if loaded.experiment.search.method == "grid" or len(loaded.candidates) < 5:
        return
    first = loaded.candidates[0].rows[0]
    ids = [row.id for row in loaded.rows]
    after = len(ids) - 1 - ids.index(first.id)
    then = f"none of the {after} after it was better" if after else "the last one: more trials may find better ones"
    text = f"Trial {first.id} was number {ids.index(first.id) + 1} of {len(ids)}; {then}."
    yield Finding("note", "When the best was found", text)


def _failures(loaded: Loaded) -> Iterator[Finding]:
    failed = [row for row in loaded.rows if row.state == "FAIL"]
    if not failed:
        return
    classes = Counter(row.failure or "error" for row in failed)
    counts = ", ".join(f"{count} {name}" for name, count in classes.most_common())
    text = f"{len(failed)} of {len(loaded.rows)} trials FAILed ({counts}); the table has their reasons."
    diverged = [row.config["lr"] for row in failed if row.failure == "diverged" and "lr" in row.config]
    fine = [c.rows[0].config["lr"] for c in loaded.candidates if "lr" in c.rows[0].config]
    if diverged and fine and statistics.median(diverged) > statistics.median(fine):
        text += f" Those that diverged had lr {label(min(diverged))} or more; the median of the others is "
        text += f"{label(statistics.median(fine))}."
    yield Finding("note", "Failures", text)

"""What the rows say, in plain words: every sentence is made from numbers, and says how many they are of."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from statsmodels.stats.proportion import proportion_confint

from models import is_network
from tune_jobs.results import selection
from tune_jobs.results.confirmation import Confirmation, Confirmed
from tune_jobs.results.report.effects import Effect, effects, label, outcomes
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.statistics import LEVEL, half_interval, p_of_shares

LEARNING = ("tpe", "gp", "nsga2")
"""Samplers that choose by what they have seen."""


@dataclass(frozen=True)
class Finding:
    """One thing to know."""

    kind: Literal["clear", "unclear", "note"]
    """clear: told from chance.  unclear: not distinguishable, or too little to say.  note: a fact or a hint."""
    lead: str
    text: str


def findings(loaded: Loaded) -> list[Finding]:
    """The most useful first: the winner's standing, what each field did, then what to do next."""
    compared = outcomes(loaded)
    found = effects(loaded, compared)
    return [
        *_standing(loaded),
        *map(_field, found),
        *_not_compared(loaded, found),
        *_footing(loaded, found, compared.basis),
        *_cheaper(loaded),
        *_more_epochs(loaded),
        *_edges(loaded, found),
        *_progress(loaded),
        *_failures(loaded),
    ]


def points(difference: float, sign: bool = False) -> str:
    """A difference of accuracies, in percentage points."""
    return f"{100 * difference:{'+' if sign else ''}.2f}".replace("-", "−")


def wilson(loaded: Loaded, accuracy: float) -> tuple[float, float]:
    """95 % interval of a share of the validation images (Wilson 1927)."""
    images = loaded.val_images
    low, high = proportion_confint(round(accuracy * images), images, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def _standing(loaded: Loaded) -> Iterator[Finding]:
    choice = loaded.choice
    if choice is None:
        return
    if loaded.confirmation is not None:
        yield from _confirmed(loaded)
        return
    first, *others = loaded.candidates
    if not others or any(len(candidate.rows) > 1 for candidate in loaded.candidates):
        return
    images = loaded.val_images
    near = [other for other in others if p_of_shares(first.accuracy, other.accuracy, images) >= 1 - LEVEL]
    if near:
        text = (
            f"{len(near)} of the {len(others)} other complete configs are not distinguishable from the best one on "
            f"{images:,} validation images (two-sided test of two shares, 5 %; the lowest of them has "
            f"{near[-1].accuracy:.2%}). One training each says nothing of the spread over seeds."
        )
        yield Finding("unclear", "The best may not be the best", text)
    else:
        gap = points(first.accuracy - others[0].accuracy)
        text = (
            f"It lies {gap} points above the next of {len(others)} other complete configs, more than {images:,} "
            "validation images leave to chance. The spread over seeds is not known yet."
        )
        yield Finding("clear", "The best stands apart", text)


def _confirmed(loaded: Loaded) -> Iterator[Finding]:
    found = loaded.confirmation
    assert found is not None
    first = found.configs[0]
    over = f"{len(found.seeds)} fresh seeds" + (" and splits" if found.splits else " on the same images")
    if found.left_out:
        text = "; ".join(f"trial {trial}: {ended}" for trial, ended in found.left_out.items())
        yield Finding("unclear", "Not all could be trained again", f"Under the fresh seeds, and not compared: {text}.")
    if tied := found.are("tied"):
        names = " and ".join(config.trial for config in tied)
        text = (
            f"Over {over}, trial{'s' * (len(tied) > 1)} {names} cannot be told from trial {first.trial}, "
            f"mean {first.val.mean:.2%} ({found.test_of(tied)}, Holm's correction)."
        )
        yield Finding("unclear", "Tied at the top", text)
    if worse := _gaps(found.are("worse")):
        text = f"Over {over}, trial {first.trial} is ahead of {worse} points (p below 0.05 after Holm's correction)."
        yield Finding("clear", "Really apart", text)
    if here := _gaps(found.are("worse on these images")):
        text = (
            f"Over {over}, trial {first.trial} is ahead of {here} points (p below 0.05 after Holm's correction). "
            f"{found.images:,} images alone leave such a gap to chance: on others it may be gone."
        )
        yield Finding("unclear", "Apart on these images", text)
    yield from _optimism(found, over)


def _gaps(configs: Sequence[Confirmed]) -> str:
    return ", ".join(f"{c.trial} by {points(-c.versus_first.difference)}" for c in configs if c.versus_first)


def _optimism(found: Confirmation, over: str) -> Iterator[Finding]:
    """How much better the single score by which the winner was chosen is than its mean."""
    winner = next((config for config in found.configs if config.trial == found.winner), None)
    if winner is None:
        return
    text = f"Trial {winner.trial} was chosen by {winner.search_val_accuracy:.2%} in the search; over {over} it has "
    if not winner.reads_seed and not found.splits:
        text += "the same, as it depends on no seed: that says nothing of what the choosing added."
        yield Finding("note", "The winner's score", text)
        return
    text += (
        f"{winner.val.mean:.2%} on average: the search's score is {points(abs(found.optimism))} points "
        f"{'too high' if found.optimism > 0 else 'too low'}"
    )
    half = half_interval(winner.val, found.images)
    on_them = ""
    if not found.splits:
        on_them = " The images are those that it was chosen on: what it owes to them is in both figures."
    if math.isnan(half):
        yield Finding("note", "The winner's score", f"{text}.{on_them}")
    elif abs(found.optimism) <= half:
        text += f", which the mean's own interval covers (±{points(half)}, 95 %).{on_them}"
        yield Finding("note", "The winner's score", text)
    else:
        text += f", more than the mean's own interval leaves open (±{points(half)}, 95 %).{on_them}"
        flattered = "flattered" if found.optimism > 0 else "undersold"
        yield Finding("clear", f"The search {flattered} its winner", text)


def _field(effect: Effect) -> Finding:
    best, worst = effect.groups[0], effect.groups[-1]
    gap = points(effect.difference)
    tested = "" if math.isnan(effect.p) else f"; {_p(effect.p)} after Holm's correction"
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
    if effect.apart:
        return Finding("clear", f"{effect.field} matters", text)
    why = f" Chance alone makes about {points(effect.noise)} points." if abs(effect.difference) <= effect.noise else ""
    return Finding("unclear", f"{effect.field}: not distinguishable", text + why)


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _not_compared(loaded: Loaded, found: list[Effect]) -> Iterator[Finding]:
    left = [name for name in loaded.fields if name not in {effect.field for effect in found}]
    varied = len({repr(row.config.get(name)) for row in loaded.rows for name in left}) > 1
    if left and varied and loaded.candidates:
        text = f"Too few usable configs differ in {'it' if len(left) == 1 else 'them'} to say what a value does."
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
        text = (
            f"One standard deviation of a single score is {points(loaded.noise.sd)} points, by {loaded.noise.source}."
        )
        yield Finding("note", "What counts as noise", text)


def _cheaper(loaded: Loaded) -> Iterator[Finding]:
    """The least training time among those that cannot be told from the best."""
    if loaded.choice is None:
        return
    best = loaded.choice.candidate
    half = best.accuracy - wilson(loaded, best.accuracy)[0]
    near = [c for c in loaded.candidates if c.accuracy >= best.accuracy - half and not math.isnan(c.train_time_s)]
    least = min(near, key=lambda c: c.train_time_s, default=best)
    if least is best or least.train_time_s <= 0 or best.train_time_s / least.train_time_s < 1.25:
        return
    beside = loaded.times([row for candidate in near for row in candidate.rows])
    text = (
        f"Trial {least.rows[0].id} ({_in_words(loaded, least)}) trained in {least.train_time_s:.2g} s, "
        f"{best.train_time_s / least.train_time_s:.1f} times faster than the best, for "
        f"{points(best.accuracy - least.accuracy)} points of accuracy, within the interval of {loaded.val_images:,} "
        "images."
    )
    yield Finding("note", "A cheaper one", f"{text} {beside}".strip())


def _in_words(loaded: Loaded, candidate: selection.Candidate) -> str:
    config = candidate.rows[0].config
    return ", ".join(f"{name} {label(config[name])}" for name in loaded.fields if name in config)


def _more_epochs(loaded: Loaded) -> Iterator[Finding]:
    networks = [row for row in loaded.rows if row.state == "COMPLETE" and is_network(row.config["model"])]
    several = [row for row in networks if row.epochs > 1]
    last = sum(row.best_epoch == row.epochs for row in several)
    if several and last > len(several) / 2:
        text = (
            f"{last} of {len(several)} complete networks were best in their last epoch: they were still improving when "
            "training ended, and their order may change with more epochs."
        )
        yield Finding("note", "More epochs may help", text)


def _edges(loaded: Loaded, found: list[Effect]) -> Iterator[Finding]:
    if loaded.choice is None:
        return
    unclear = {effect.field for effect in found if not effect.apart}
    config = loaded.choice.row.config
    for axis in loaded.axes.values():
        numbers = [v for v in axis.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if axis.field not in config or len(numbers) != len(axis.values) or len(numbers) < 2:
            continue
        place = _place(config[axis.field], min(numbers), max(numbers), axis.kind.startswith("log"))
        if place <= 0.05 or place >= 0.95:
            end, way = ("lowest", "lower") if place <= 0.05 else ("highest", "higher")
            text = (
                f"The best has {label(config[axis.field])}, at the {end} end of what was searched "
                f"({label(min(numbers))} to {label(max(numbers))}); a {way} one was not tried."
            )
            if axis.field in unclear:
                text += " What the field does is not distinguishable, so that may be chance."
            yield Finding("note", f"{axis.field} is at the edge", text)


def _place(value: float, low: float, high: float, log: bool) -> float:
    """Where it lies between the ends, 0 to 1."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


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

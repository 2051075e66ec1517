"""How sure it is that the named config is the best one: by its repeats, its confirmation, or the images alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tune_jobs.results import selection
from tune_jobs.results.confirmation import Confirmation, Confirmed, interval
from tune_jobs.results.report.finding import Finding, points
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.statistics import LEVEL, half_prediction, p_of_shares, summarise
from tune_jobs.results.table import Row, without_seed
from tune_jobs.typed import typed

TOP = 3
"""Configs that `confirm` trains again where nobody says how many."""


def standing(loaded: Loaded) -> Iterator[Finding]:
    """What is known of the named config's place; nothing without a usable trial."""
    choice = loaded.choice
    if choice is None:
        return
    if loaded.confirmation is not None:
        yield from _not_covered(loaded, choice.row, loaded.confirmation)
        yield from _confirmed(loaded)
        return
    if any(len(candidate.rows) > 1 for candidate in loaded.candidates):
        yield from _repeated(loaded, choice.candidate)
        return
    first, *others = loaded.candidates
    if not others:
        return
    if choice.candidate.accuracy < first.accuracy:
        gap = points(first.accuracy - choice.candidate.accuracy)
        text = (
            f"Trial {first.rows[0].id} has the highest validation accuracy, {gap} points above trial {choice.row.id}, "
            "which the run names."
        )
        yield Finding("note", "The named config is not the highest", text)
    images = loaded.val_images
    near = [other for other in others if p_of_shares(first.accuracy, other.accuracy, images) >= 1 - LEVEL]
    if near:
        text = (
            f"{len(near)} of the {len(others)} other complete configs are not distinguishable from trial "
            f"{first.rows[0].id} on {images:,} validation images (two-sided test of two shares, 5 %; the lowest of "
            f"them has {near[-1].accuracy:.2%}). One training each says nothing of the spread over seeds."
        )
        yield Finding("unclear", "The best may not be the best", text)
    else:
        gap = points(first.accuracy - others[0].accuracy)
        text = (
            f"Trial {first.rows[0].id} lies {gap} points above the next of {len(others)} other complete configs, more "
            f"than {images:,} validation images leave to chance. The spread over seeds is not known yet."
        )
        yield Finding("clear", "The best stands apart", text)


def confirm_again(loaded: Loaded) -> str:
    """The command whose confirmation has the named config among its own."""
    ranked = [without_seed(candidate.rows[0].config) for candidate in selection.distinct(loaded.candidates)]
    place = ranked.index(without_seed(loaded.choice.row.config)) + 1 if loaded.choice else 1
    return typed("confirm", str(loaded.run), *(["--top", str(place)] if place > TOP else []))


def _not_covered(loaded: Loaded, row: Row, found: Confirmation) -> Iterator[Finding]:
    """The confirmation may be of an earlier choice, or of one by another rule."""
    if found.of(row) is None and row.id not in found.left_out:
        names = ", ".join(config.trial for config in found.configs)
        text = (
            f"Trial {row.id}, which the run names now, is not among those trained again ({names}): its score is the "
            f"search's alone. {confirm_again(loaded)} has it among them."
        )
        yield Finding("unclear", "The best is not confirmed", text)


def _repeated(loaded: Loaded, candidate: selection.Candidate) -> Iterator[Finding]:
    """Its interval over the repeats of the search."""
    if len(candidate.rows) < 2 or "seed" not in candidate.rows[0].config:
        return
    summary = summarise([row.val_accuracy for row in candidate.rows])
    spread = f"{interval(summary)} %, 95 % interval" if summary.std > 0 else "no spread"
    text = f"Over the {summary.n} seeds of its repeats it has {summary.mean:.2%} on average ({spread})."
    if len(loaded.candidates) > 1:
        text += f" It was chosen by the same scores among {len(loaded.candidates)} configs: they are likely too high."
    yield Finding("note", "The best over its repeats", text)


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
    # Repeats of the search share one split: over splits, their mean is taken to vary as one score does.
    repeats = 1 if found.splits else winner.search_repeats
    half = half_prediction(winner.val, found.images, repeats)
    one = "one score" if repeats == 1 else f"a mean of {repeats} scores"
    on_them = ""
    if not found.splits:
        on_them = " The images are those that it was chosen on: what it owes to them is in both figures."
    if math.isnan(half):
        yield Finding("note", "The winner's score", f"{text}.{on_them}")
    elif abs(found.optimism) <= half:
        text += f", no more than {one} varies by (±{points(half)}, 95 %).{on_them}"
        yield Finding("note", "The winner's score", text)
    else:
        text += f", more than {one} varies by (±{points(half)}, 95 %).{on_them}"
        flattered = "flattered" if found.optimism > 0 else "undersold"
        yield Finding("clear", f"The search {flattered} its winner", text)

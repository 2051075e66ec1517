"""The best configs of a run trained again, over seeds that the search did not use."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import DatasetConfig, Splits, load, load_splits
from datasets.splits import split
from tune_jobs import experiment as experiments
from tune_jobs.errors import NoUsableTrialError
from tune_jobs.experiment import Experiment, Scheduler, Search
from tune_jobs.results import confirmation, damage, table
from tune_jobs.results.confirmation import Confirmation
from tune_jobs.results.rundir import RunDir, write_text
from tune_jobs.results.selection import Candidate, candidates, distinct
from tune_jobs.running.listener import Listener
from tune_jobs.running.run import Run
from tune_jobs.search import Outcome, run_space
from tune_jobs.space.points import Points
from tune_jobs.storage import StoreError


def confirm(
    run_dir: RunDir,
    top: int,
    seeds: int,
    new_splits: bool,
    together: bool,
    data_dir: Path | None,
    listener: Listener,
    wait_for_nodes: bool = False,
) -> tuple[Outcome, Confirmation | None]:
    """Train the `top` best configs under `seeds` fresh seeds each, in a run directory within the run's.

    One trial at a time, so that their times compare, or as many as there is room for (`together`).

    Called again the same way, it is taken up.  The confirmation is None while trials are left, where no config has all
    its trials COMPLETE, or where the run's object store did not take it.  Raises NoUsableTrialError where there is
    nothing to confirm.
    """
    experiment = run_dir.read_experiment()
    rows = table.rows(damage.read_whole(run_dir.ledger).values())
    ranked = distinct(candidates(rows))[:top]
    if not ranked:
        raise NoUsableTrialError(f"run {run_dir.name}: no complete config to confirm")
    if len(ranked) < top:
        listener.say(
            f"note: {len(ranked)} complete configs that differ in more than the seed, fewer than the {top} asked for"
        )
    fresh = _fresh_seeds(rows, seeds)
    points = tuple(_point(candidate, fresh[0]) for candidate in ranked)
    which = hashlib.sha256(repr(points).encode()).hexdigest()[:8]  # a run that was extended may have other best configs
    where = run_dir.within(f"confirm-top{top}-seeds{seeds}{'-splits' if new_splits else ''}-{which}")
    splits = (
        _new_splits(experiment.dataset, seeds, data_dir) if new_splits else [load_splits(experiment.dataset, data_dir)]
    )

    again = _asked(experiment, seeds, together)
    outcome = run_space(Run(again, Points((), {}, points), where, splits, listener, wait_for_nodes))
    if outcome.ended != "done" or not candidates(outcome.rows):
        return outcome, None
    parts = splits[0]
    images = {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)}
    found = confirmation.conclude(ranked, outcome.rows, fresh, new_splits, images)
    for place in (where, run_dir):
        write_text(place.confirmation, confirmation.dump(found))
    try:
        for place in (where, run_dir):
            place.publish(place.confirmation)
    except StoreError as error:
        return replace(outcome, ended="store", detail=str(error)), None
    return outcome, found


def _asked(experiment: Experiment, seeds: int, together: bool) -> Experiment:
    """The search's own, but for its space, which is a list of points, and what stops trials."""
    return experiment.model_copy(
        update={
            "name": experiments.named(experiment.name, "-confirm"),
            "space": {},
            "train": {},
            "search": Search(max_concurrent=None if together else 1),
            "scheduler": Scheduler(),
            "repeats": seeds,
            "min_usable": 1,
            "budget": experiment.budget.model_copy(update={"minutes": None}),  # that was the search's
        }
    )


def _new_splits(config: DatasetConfig, folds: int, data_dir: Path | None) -> list[Splits]:
    """Of the same images, by the seeds that follow the config's own; read once."""
    whole = {"limit": None, "split": DatasetConfig.model_fields["split"].default}  # each fold uses others of them
    dataset = load(config.model_copy(update=whole), data_dir)
    seeds = range(config.split_seed + 1, config.split_seed + 1 + folds)
    return [split(dataset, config.model_copy(update={"split_seed": seed})) for seed in seeds]


def _fresh_seeds(rows: Sequence[table.Row], seeds: int) -> list[int]:
    """Seeds in a row that no trial of the search had."""
    used = {row.seed for row in rows if row.seed is not None}
    first = 1000 + max(used, default=0)
    if first + seeds > 2**63:  # beyond what a seed may be: the lowest that are free
        first = next(n for n in itertools.count() if used.isdisjoint(range(n, n + seeds)))
    return list(range(first, first + seeds))


def _point(candidate: Candidate, seed: int) -> dict[str, object]:
    config = candidate.rows[0].config
    return config | {"seed": seed} if "seed" in config else dict(config)

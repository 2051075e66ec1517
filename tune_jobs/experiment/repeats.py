"""A config's repeats: how many trials an experiment has, and with which seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from models.config import SEED_BELOW
from tune_jobs import space as spaces
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.space import Point, Space
from tune_jobs.space.axis import RANGES, key


def configs(experiment: Experiment, space: Space) -> int:
    """How many configs are to be tried: all of a grid, or `search.trials` of a sampled space, which may have fewer."""
    if experiment.search.trials is None:
        return len(space.grid())
    return int(min(experiment.search.trials, space.size()))


def total(experiment: Experiment, space: Space) -> int:
    """How many trials the experiment asks for, repeats included."""
    return configs(experiment, space) * experiment.repeats


def asked(experiment: Experiment) -> int:
    """As `total`, of a sampled search, whose trials come one by one; 0 of a grid, whose are all there at once."""
    if experiment.search.trials is None:
        return 0
    try:
        return total(experiment, spaces.of(experiment))
    except UsageError:  # of an earlier version, which took what is refused now
        return experiment.search.trials * experiment.repeats


def repeated(point: Point, repeats: int) -> list[Point]:
    """The point under `repeats` seeds that count up from its own, where it has one that is set."""
    if point.get("seed") is None:
        return [point] * repeats
    return [point | {"seed": point["seed"] + fold} for fold in range(repeats)]


def missing(have: Mapping[int, Point], repeats: int) -> dict[int, Point]:
    """Number of each repeat that is missing -> its config.  `have` are those that are there, one at least."""
    fold, first = min(have.items())
    base = first if first.get("seed") is None else first | {"seed": first["seed"] - fold}
    return {other: config for other, config in enumerate(repeated(base, repeats)) if other not in have}


def check_seeds(experiment: Experiment, space: Space) -> None:
    """Raise UsageError where a repeat's seed would be larger than a seed may be, or where two configs that differ in
    the seed alone would have a repeat in common.

    The latter of a sampled space without a range of real numbers by its seeds alone, which some of its configs may not
    read.
    """
    count = experiment.repeats
    if count > 1:
        _check_largest(space, count)
    seeds = next((axis for axis in space.axes if axis.field == "seed" and axis.kind != "value"), None)
    if count == 1 or seeds is None:
        return
    shared: tuple[int, int] | None = None
    if seeds.kind == "grid":
        first: dict[str, int] = {}
        for point in space.grid():
            for own in repeated(point, count if point.get("seed") is not None else 0):
                other = first.setdefault(key(own), point["seed"])
                if other != point["seed"]:
                    shared = other, point["seed"]
    elif not any(math.isinf(axis.count) for axis in space.axes):
        known = sorted(seed for seed in seeds.candidates([]) if seed is not None)
        pairs = [(low, low + 1) for low in known] if seeds.kind in RANGES else list(itertools.pairwise(known))
        shared = next((pair for pair in pairs if pair[1] - pair[0] < count), None)
    if shared is not None:
        raise UsageError(
            f"repeats: {count} trains a config under its seed and the {count - 1} after it, and seeds "
            f"{min(shared)} and {max(shared)} of space.seed would share some; leave one of the two out, or give seeds "
            f"that lie {count} or more apart"
        )


def _check_largest(space: Space, count: int) -> None:
    largest = SEED_BELOW - count
    own = max((point["seed"] for point in space.meeting("seed") if point.get("seed") is not None), default=0)
    if own > largest:
        raise UsageError(
            f"seed: {own}: with repeats: {count} a config is trained under its seed and the {count - 1} after it; give "
            f"at most {largest}"
        )

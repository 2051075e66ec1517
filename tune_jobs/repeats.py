"""A config's repeats: how many trials an experiment has, and with which seeds."""

from __future__ import annotations

from tune_jobs.experiment import Experiment
from tune_jobs.space import Point, Space


def total(experiment: Experiment, space: Space) -> int:
    """How many trials the experiment asks for, repeats included."""
    numbers = len(space.grid()) if experiment.search.trials is None else experiment.search.trials
    return numbers * experiment.repeats


def repeated(point: Point, repeats: int) -> list[Point]:
    """The point under `repeats` seeds that count up from its own, where it has one that is set."""
    if point.get("seed") is None:
        return [point] * repeats
    return [point | {"seed": point["seed"] + fold} for fold in range(repeats)]

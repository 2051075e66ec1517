"""What an earlier run found, for a search to begin with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.results import damage, rundir, selection, table
from tune_jobs.space import Point, Space
from tune_jobs.storage import Store


@dataclass(frozen=True)
class Known:
    """A config that an earlier run completed."""

    point: Point
    values: tuple[float, ...]
    """The objectives, in their order; means over its repeats."""
    source: str
    """`<run>/<id of its first trial>`."""


def read(experiment: Experiment, space: Space, storage: Path | Store, data_sha256: str) -> tuple[list[Known], str]:
    """The complete configs of the run that `search.warm_start` names which are points of this space, in their order,
    and a line that says how many those are of how many.

    A config counts where its choices and ranges lie in this space and all else but the seed is as here: what it
    reached is then what a trial of this search could have reached.

    Raises UsageError where there is no such run, it saw other images, or none of its configs counts.
    """
    run = experiment.search.warm_start
    assert run is not None
    where = f"search.warm_start: {run}"
    try:
        earlier = rundir.find(run, storage)
    except UsageError as error:
        raise UsageError(f"search.warm_start: {error}") from error
    if earlier.read_environment()["data_sha256"] != data_sha256:
        raise UsageError(f"{where}: it saw other images or another split, and its accuracies do not compare with these")
    complete = selection.candidates(table.rows(damage.read_whole(earlier.ledger).values()))
    complete.sort(key=lambda candidate: candidate.rows[0].id)
    names = list(experiment.search.objectives)
    found = [
        Known(candidate.rows[0].config, values, f"{earlier.name}/{candidate.rows[0].id}")
        for candidate in complete
        if space.contains(candidate.rows[0].config)
        and all(map(math.isfinite, values := tuple(candidate.value(name) for name in names)))
    ]
    if not found:
        raise UsageError(f"{where}: none of its {len(complete)} complete configs is a point of this space")
    return (
        found,
        f"warm start: {len(found)} of {len(complete)} complete configs of run {earlier.name} are in this space",
    )

"""All that a report reads of a run, read once."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tune_jobs import space as spaces
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.results import best, confirmation, damage, selection, table
from tune_jobs.results.confirmation import Confirmation
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.report import timeline, timing
from tune_jobs.results.report.timeline import Attempt
from tune_jobs.results.rundir import RunDir
from tune_jobs.results.selection import Candidate
from tune_jobs.results.table import Row
from tune_jobs.space.axis import Axis

REPEATS = {"seed"}
"""Fields that name a repeat of a config, and are no choice."""


@dataclass(frozen=True)
class Choice:
    """The config that the run names."""

    candidate: Candidate
    row: Row
    """Of its rows the one that is named: of repeats the first, unless another was asked for."""
    reason: str
    exported: bool
    """Whether best.yaml holds it."""
    by_id: bool = False
    """Whether it was asked for by its id, whatever its score."""


@dataclass(frozen=True)
class Noise:
    """How far two scores of one config lie apart by chance."""

    images: float
    """Binomial standard error of one share of the validation images, 0 to 1."""
    seeds: float | None = None
    """Standard deviation of one score over seeds, on the same images, 0 to 1; None where it was not measured."""
    degrees: int = 0
    """Of freedom that `seeds` is of."""
    source: str = ""
    """What `seeds` is of, in words."""

    def of_difference(self, n: int) -> float:
        """One standard error of a mean difference over n pairs.

        The images are the same in all pairs, so their error does not shrink, and a known spread over seeds says nothing
        of it.  One share's whole error stands for the difference's: it is already about twice as large, since models
        that see the same images mostly err on the same ones.
        """
        return math.hypot(self.images, (self.seeds or 0.0) * math.sqrt(2 / n))


@dataclass(frozen=True)
class Loaded:
    """A run's files, in the forms that the report's parts share."""

    run: RunDir
    experiment: Experiment
    environment: dict[str, Any]
    trials: list[TrialRecord]
    rows: list[Row]
    attempts: list[Attempt]
    confirmation: Confirmation | None

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Best first."""
        return selection.candidates(self.rows)

    @cached_property
    def fields(self) -> list[str]:
        """Config fields in which trials differ; `model` where none does."""
        found = [name for name in table.varied([row.config for row in self.rows]) if name not in REPEATS]
        return found or ["model"]

    @cached_property
    def space(self) -> spaces.Space:
        """The space of the experiment."""
        return spaces.of(self.experiment)

    @property
    def axes(self) -> dict[str, Axis]:
        """Of the space, by their fields."""
        return {axis.field: axis for axis in self.space.axes}

    @cached_property
    def models(self) -> list[str]:
        """Those of the rows, in their order: what a model looks like is the same in all figures of a run."""
        return list(dict.fromkeys(row.config["model"] for row in self.rows if "model" in row.config))

    @property
    def val_images(self) -> int:
        return int(self.environment["images"]["val"])

    @cached_property
    def side_by_side(self) -> bool:
        """Whether trials ran at once on one node, so that their times are of a shared machine."""
        return timeline.overlap(self.attempts)

    def times(self, rows: Sequence[Row]) -> str:
        """One sentence on whether the rows' training times compare; empty where each ran alone and on the same."""
        return timing.sentence(rows, self.side_by_side)

    @cached_property
    def choice(self) -> Choice | None:
        """What best.yaml names; before there is one, what it would; None without a usable trial."""
        if not self.candidates:
            return None
        by_trial = {row.id: (candidate, row) for candidate in self.candidates for row in candidate.rows}
        if self.run.best.exists():
            written = best.load(self.run.best)
            if written.trial in by_trial:
                by_id = written.rule == "trial"
                return Choice(*by_trial[written.trial], written.reason or "", exported=True, by_id=by_id)
        row, reason = best.choose(self.rows, "best")
        return Choice(*by_trial[row.id], reason, exported=False)

    @cached_property
    def noise(self) -> Noise:
        """What the validation images leave open, and the spread over seeds: from repeats where there are any, else from
        the confirmation, unless that has splits, whose images are in its spread too.

        Of configs that read a seed: an svm's scores have no spread, which is none of the others'.
        """
        accuracy = self.choice.candidate.accuracy if self.choice else 0.5
        # A share of 0 or 1 has a standard error of 0 in the formula and not in life: half an image is kept from it.
        share = min(max(accuracy, 0.5 / self.val_images), 1 - 0.5 / self.val_images)
        images = math.sqrt(share * (1 - share) / self.val_images)
        repeated = [c.rows for c in self.candidates if len(c.rows) > 1 and "seed" in c.rows[0].config]
        groups = [(len(rows), statistics.variance(row.val_accuracy for row in rows)) for rows in repeated]
        source = "the spread over the repeats of {} configs"
        if not any(variance for _, variance in groups) and self.confirmation is not None:
            confirmed = [] if self.confirmation.splits else self.confirmation.configs
            groups = [(c.val.n, c.val.std**2) for c in confirmed if c.reads_seed and c.val.n > 1]
            source = "the spread over fresh seeds of {} confirmed configs"
        degrees = sum(n - 1 for n, _ in groups)
        squares = sum((n - 1) * variance for n, variance in groups)
        if not squares:
            return Noise(images)
        return Noise(images, math.sqrt(squares / degrees), degrees, source.format(len(groups)))


def _asked_and_done(run: RunDir) -> tuple[Experiment, dict[str, TrialRecord]]:
    trials = damage.read_whole(run.ledger)
    experiment = run.read_experiment()
    if not experiment.space and not experiment.train:
        raise UsageError(f"run {run.name}: is a confirmation, which the report of its search shows")
    return experiment, trials


def rows(run: RunDir) -> list[Row]:
    """Those of `load`, for which the run's environment is not needed."""
    experiment, trials = _asked_and_done(run)
    return selection.with_front(table.rows(trials.values()), experiment.search.objectives)


def load(run: RunDir) -> Loaded:
    """Raises UsageError where a file is missing or damaged."""
    experiment, trials = _asked_and_done(run)
    environment = run.read_environment()
    if "val" not in environment.get("images", {}):
        raise UsageError(f"{run.environment}: does not say how many images there were (images)")
    return Loaded(
        run=run,
        experiment=experiment,
        environment=environment,
        trials=list(trials.values()),
        rows=selection.with_front(table.rows(trials.values()), experiment.search.objectives),
        attempts=timeline.attempts(run.ledger),
        confirmation=confirmation.load(run.confirmation),
    )

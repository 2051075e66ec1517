"""Whose weights stay on disk: those of the best few configs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from tune_jobs.results import selection, table
from tune_jobs.results.ledger import TrialRecord


class Keeping:
    """Told of each config that is finished, it lets go of the weights that nobody will ask for."""

    def __init__(self, most: int, drop: Callable[[str], None]) -> None:
        """`drop` removes what a trial, by its id, has on disk."""
        self._most = most
        self._drop = drop
        self._kept: list[TrialRecord] = []

    def sweep(self, groups: Iterable[Sequence[TrialRecord]], there: Collection[str]) -> None:
        """At the start: what a dead driver was about to remove goes now.  `there`: trials that have any."""
        finished = [group for group in groups if all(trial.finished for trial in group)]
        best = self._best([trial for group in finished for trial in group])
        for group in finished:
            for trial in group:
                if trial.id not in best and trial.id in there:
                    self._drop(trial.id)
        self._kept = [trial for group in finished if {trial.id for trial in group} & best for trial in group]

    def finish(self, group: Sequence[TrialRecord]) -> None:
        """All repeats of a config are finished."""
        best = self._best([*self._kept, *group])
        for trial in [*self._kept, *group]:
            if trial.id not in best:
                self._drop(trial.id)
        numbers = {own.split("-")[0] for own in best}
        self._kept = [trial for trial in [*self._kept, *group] if trial.id.split("-")[0] in numbers]

    def _best(self, trials: Sequence[TrialRecord]) -> set[str]:
        """The trial that stands for each of the best configs, as best.yaml would choose them."""
        found = selection.candidates(table.rows(trials))[: self._most]
        return {candidate.rows[0].id for candidate in found}

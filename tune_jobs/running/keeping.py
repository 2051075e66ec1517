"""Whose weights stay on disk: those of the best few configs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from tune_jobs.results import selection, table
from tune_jobs.results.ledger import TrialRecord, number_of


class Disk(Protocol):
    """What trials have there; see `tune_jobs.running.leftovers`."""

    def there(self) -> set[str]: ...

    def drop(self, own_id: str) -> None: ...

    def drop_all(self, own_id: str) -> None: ...


class Keeping:
    """Told of each config that is finished, it lets go of its checkpoints, and of weights that nobody will ask for."""

    def __init__(self, most: int, disk: Disk) -> None:
        self._most = most
        self._disk = disk
        self._kept: list[TrialRecord] = []

    def sweep(self, groups: Iterable[Sequence[TrialRecord]]) -> None:
        """At the start: what a dead driver was about to remove goes now."""
        there = self._disk.there()
        finished = [group for group in groups if all(trial.finished for trial in group)]
        best = self._best([trial for group in finished for trial in group])
        for group in finished:
            for trial in group:
                if trial.id in there:
                    self._let_go(trial, best)
        self._kept = [trial for group in finished if {trial.id for trial in group} & best for trial in group]

    def finish(self, group: Sequence[TrialRecord]) -> None:
        """All repeats of a config are finished."""
        best = self._best([*self._kept, *group])
        numbers = set(map(number_of, best))
        for trial in self._kept:
            if number_of(trial.id) not in numbers:
                self._disk.drop_all(trial.id)
        for trial in group:
            self._let_go(trial, best)
        self._kept = [trial for trial in [*self._kept, *group] if number_of(trial.id) in numbers]

    def hold(self, own: TrialRecord) -> None:
        """It is finished, and other repeats of its config are not: its weights may be asked for yet, if it has any."""
        if own.state == "COMPLETE":
            self._disk.drop(own.id)
        else:
            self._disk.drop_all(own.id)

    def _let_go(self, trial: TrialRecord, best: set[str]) -> None:
        if trial.id in best:
            self._disk.drop(trial.id)
        else:
            self._disk.drop_all(trial.id)

    def _best(self, trials: Sequence[TrialRecord]) -> set[str]:
        """The trial that stands for each of the best configs, as best.yaml would choose them."""
        found = selection.candidates(table.rows(trials))[: self._most]
        return {candidate.rows[0].id for candidate in found}

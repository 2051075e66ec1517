"""The trials of a search that runs: the ledger, and what it says of each."""

from __future__ import annotations

import bisect
from collections import Counter
from pathlib import Path
from typing import Any

from tune_jobs.interruption import room
from tune_jobs.results import ledger
from tune_jobs.results.ledger import FINAL, TrialRecord, number_of, place_of, trial_id
from tune_jobs.space import Point


class Record:
    """Each change of a trial is written to the ledger, and then holds in memory: what was not written was never so."""

    def __init__(self, path: Path, trials: dict[str, TrialRecord], total: int) -> None:
        """Opens the ledger, which `trials` were read from.  `total`: how many there are to be in the end."""
        self.trials = trials
        """By their ids, in the order they were made."""
        self.total = total
        self.groups = ledger.by_number(trials.values())
        """Number in the study -> its repeats, the first one first."""
        self.states = Counter(trial.state for trial in trials.values())
        """State -> how many trials are in it."""
        self._ledger = ledger.Ledger(path)

    @property
    def finished(self) -> int:
        """How many trials are."""
        return sum(self.states[state] for state in FINAL)

    def unfinished(self) -> list[TrialRecord]:
        """In the order they were made."""
        return [own for own in self.trials.values() if not own.finished]

    def group(self, own: TrialRecord) -> list[TrialRecord]:
        """A trial and the other repeats of its config, the first one first."""
        return self.groups[number_of(own.id)]

    def add(self, number: int, fold: int | None, config: Point) -> TrialRecord:
        """Write down a trial that waits: this repeat of the study's trial of this number; None where there are none.

        Raises DiskFull.
        """
        own = TrialRecord(trial_id(number, fold))
        self.write(own, "state", state="WAITING", config=config)
        self.trials[own.id] = own
        self.states[own.state] += 1
        bisect.insort(self.groups.setdefault(number, []), own, key=lambda other: place_of(other.id))
        return own

    def write(self, own: TrialRecord, event: str, **fields: Any) -> None:
        """A line of `tune_jobs.results.ledger` on one of the trials.  Raises DiskFull; the trial stays as it was."""
        with room():
            line = self._ledger.append(own.id, event, **fields)
        self.states[own.state] -= 1
        ledger.apply(own, line)
        self.states[own.state] += 1

    def close(self) -> None:
        self._ledger.close()

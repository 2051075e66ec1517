"""Who is told how a search goes."""

from __future__ import annotations

from typing import Protocol

from tune_jobs.results.ledger import TrialRecord


class Listener(Protocol):
    """A terminal or a log."""

    def say(self, line: str) -> None:
        """Something to know about the search as a whole."""

    def follow(self, trial: TrialRecord) -> None:
        """A trial has started, or trained an epoch."""

    def tell(self, trial: TrialRecord, finished: int, total: int) -> None:
        """A trial has just finished or is to be tried again; so many are finished; so many there are."""

"""Watches over what Ray has: trials that take too long, that were lost without a word, that no node can serve, or whose
store fails."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ray

from tune_jobs.failures import MOST_LOST, STORE_AWAY_S
from tune_jobs.interruption import Stop
from tune_jobs.running.listener import Listener
from tune_jobs.running.waiting import LOOK_EVERY_S, Waiting

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

NODES_GONE_MINUTES = 5
"""So long a search waits for nodes that were there when it began."""


class Watch:
    """Looks at each step of Tune's loop; at the cluster every few seconds."""

    def __init__(
        self, waiting: Waiting, trial_minutes: float | None, listener: Listener, stop: Stop, wait_for_nodes: bool
    ) -> None:
        """`trial_minutes`: how long a trial may run; None for any time.  `wait_for_nodes`: for as long as it takes."""
        self._waiting = waiting
        self._trial_minutes = trial_minutes
        self._listener = listener
        self._stop = stop
        self._wait_for_nodes = wait_for_nodes
        self._said_stuck = False
        self._looked = self._stuck_since = self._busy_at = time.monotonic()
        self._store_away_since, self._store_failed_at = 0.0, -math.inf
        self._stores_lost: Counter[str] = Counter()
        self.timed_out: set[str] = set()
        """Those whose worker was ended since they ran too long, by their ids in the ledger."""

    def look(self, trials: Sequence[Trial]) -> list[str]:
        """End what runs too long, and ask to stop where the nodes are gone.  Returns the ids of those that are lost.

        `trials` are Tune's.
        """
        now = time.monotonic()
        self._end_late(now)
        if now - self._looked > LOOK_EVERY_S:
            self._looked = now
            self._look_for_nodes(now)
        return self._lost(trials)  # at each step: where nothing else runs, Tune's next one would wait for minutes

    def is_store_away(self, own_id: str) -> bool:
        """Asked when a trial has failed by its store: whether such failures have gone on for STORE_AWAY_S, or this one
        has had MOST_LOST of them."""
        now = time.monotonic()
        if now - self._store_failed_at > 2 * STORE_AWAY_S:
            self._store_away_since = now
        self._store_failed_at = now
        self._stores_lost[own_id] += 1
        return now - self._store_away_since >= STORE_AWAY_S or self._stores_lost[own_id] >= MOST_LOST

    def store_is_there(self, own_id: str) -> None:
        """The trial has come further."""
        self._store_failed_at = -math.inf
        self._stores_lost.pop(own_id, None)

    def _end_late(self, now: float) -> None:
        """By killing their process: one hung in native code hears nothing else."""
        if self._trial_minutes is None:
            return
        for own_id, since in self._waiting.since.items():
            if now - since > 60 * self._trial_minutes and own_id not in self.timed_out:
                self.timed_out.add(own_id)
                ray.kill(self._waiting.actors[own_id])

    def _lost(self, trials: Sequence[Trial]) -> list[str]:
        """Tune ends a trial without a word where its worker did not come free of the one before."""
        ended = {trial.trial_id for trial in trials if trial.is_finished()}
        return [own_id for own_id, ray_id in self._waiting.out.items() if ray_id in ended]

    def _look_for_nodes(self, now: float) -> None:
        """Say so where the nodes that a trial waits for have gone, and stop after a while, to be taken up again, unless
        others run meanwhile."""
        stuck = self._waiting.stuck()
        if not stuck:
            self._stuck_since, self._said_stuck = now, False
            return
        if self._waiting.actors:
            self._busy_at = now
        alone_s = now - max(self._stuck_since, self._busy_at)
        if alone_s > 60 * NODES_GONE_MINUTES and not self._wait_for_nodes:
            asked = "; ".join(map(str, stuck))
            self._stop.ask("nodes", f"no node has been able to serve {asked} for {NODES_GONE_MINUTES} minutes")
        elif self._stuck_since < now - LOOK_EVERY_S and not self._said_stuck:
            self._said_stuck = True
            self._listener.say(
                f"waiting for a node that can serve {'; '.join(map(str, stuck))}: those that could are gone"
            )

"""How many trials ran beside each one."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass
class _Stay:
    place: Hashable
    began: float
    beside_s: float = 0.0
    """Sum over the others of the time that they were there too."""
    since: float = 0.0


class Sharing:
    """Counts, as trials come and go, who is where together."""

    def __init__(self) -> None:
        self._stays: dict[str, _Stay] = {}

    def enter(self, trial: str, place: Hashable) -> None:
        """The trial runs at this place (a node, or a card of one) from now on."""
        now = time.monotonic()
        self._count(now)
        self._stays[trial] = _Stay(place, now, since=now)

    def leave(self, trial: str) -> float | None:
        """How many others were there, on average while it ran; None for a trial that was nowhere."""
        now = time.monotonic()
        self._count(now)
        stay = self._stays.pop(trial, None)
        if stay is None:
            return None
        return stay.beside_s / (now - stay.began) if now > stay.began else 0.0

    def _count(self, now: float) -> None:
        together: dict[Hashable, int] = {}
        for stay in self._stays.values():
            together[stay.place] = together.get(stay.place, 0) + 1
        for stay in self._stays.values():
            stay.beside_s += (now - stay.since) * (together[stay.place] - 1)
            stay.since = now

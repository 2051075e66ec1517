"""How many trials of the same search ran beside each one, on its node and on its card."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Company(NamedTuple):
    """How many others of the search there were, on average while a trial ran; None where it was at no such place."""

    on_node: float | None
    """Whatever they compute on: each takes cores of the node."""
    on_card: float | None


@dataclass
class _Stay:
    places: tuple[Hashable, ...]
    """The node, and the cards of it where the trial has any."""
    began: float
    since: float
    beside_s: list[float] = field(default_factory=list)
    """At each place, the sum over the others of the time that they were there too."""


class Sharing:
    """Counts, as trials come and go, who is where together."""

    def __init__(self) -> None:
        self._stays: dict[str, _Stay] = {}

    def enter(self, trial: str, node: str, cards: Sequence[str]) -> None:
        """The trial runs on this node, and on these cards of it, from now on."""
        now = time.monotonic()
        self._count(now)
        places: tuple[Hashable, ...] = (node, (node, *cards)) if cards else (node,)
        self._stays[trial] = _Stay(places, now, now, [0.0] * len(places))

    def leave(self, trial: str) -> Company:
        """It runs no more."""
        now = time.monotonic()
        self._count(now)
        stay = self._stays.pop(trial, None)
        if stay is None:
            return Company(None, None)
        means = [beside_s / (now - stay.began) if now > stay.began else 0.0 for beside_s in stay.beside_s]
        return Company(means[0], means[1] if len(means) > 1 else None)

    def _count(self, now: float) -> None:
        together = Counter(place for stay in self._stays.values() for place in stay.places)
        for stay in self._stays.values():
            for index, place in enumerate(stay.places):
                stay.beside_s[index] += (now - stay.since) * (together[place] - 1)
            stay.since = now

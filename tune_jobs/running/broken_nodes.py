"""Nodes on which one trial after the other fails, and which get no more of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from ray._private import state

BROKEN_AFTER = 3
"""So many failures in a row, of two trials at least, make a node a broken one, where trials come further on others.  It
takes whatever it is given at once, and fails it: without this, all of a search."""

_Key = tuple[str, tuple[str, ...]]
"""A node and those of its cards that a trial had: one card may be broken beside others that are not."""


@dataclass
class _Attempt:
    """Where a trial runs, and since when as against others."""

    key: _Key
    began: int
    came_further: bool = False


@dataclass
class _Row:
    """Failures without an epoch, since, of a trial that began after the first of them."""

    began: int
    trials: list[str] = field(default_factory=list)


class BrokenNodes:
    """Where trials run and fail, and which nodes are taken for broken because of that."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._broken: dict[str, _Key] = {}
        self._ticks = itertools.count()
        self._attempts: dict[str, _Attempt] = {}
        self._names: dict[str, str] = {}
        self._rows: dict[_Key, _Row] = {}
        self._works: set[str] = set()

    @property
    def ids(self) -> frozenset[str]:
        """Ray's ids of the nodes that get no more trials, until one there comes further that began after the rest
        failed."""
        return frozenset(self._broken)

    def arrive(self, own_id: str, node_id: str, name: str, cards: Sequence[str] = ()) -> None:
        """The trial runs on this node, by Ray's id and by its address, with these cards."""
        self._attempts[own_id] = _Attempt((node_id, tuple(cards)), next(self._ticks))
        self._names[node_id] = name

    def node(self, own_id: str, worker: str | None) -> str | None:
        """The id of the node that the trial `own_id` runs on, or ran on last.

        Where its process died before it had said so, Ray's table of workers is asked for `worker`, the id of that
        process.  None where the table does not know it either.
        """
        if own_id not in self._attempts and worker is not None:
            address = state.actors(worker).get("Address", {})
            if address.get("NodeID"):
                self.arrive(own_id, address["NodeID"], address["IPAddress"])
        return self._attempts[own_id].key[0] if own_id in self._attempts else None

    def epoch(self, own_id: str) -> None:
        """It has come further, and so its node works, unless it was there before others began to fail."""
        attempt = self._attempts[own_id]
        attempt.came_further = True
        node_id, cards = attempt.key
        self._works.add(node_id)
        for key in ((node_id, cards), (node_id, ())):
            if key in self._rows and self._rows[key].began < attempt.began:
                del self._rows[key]
                if self._broken.get(node_id) == key:
                    del self._broken[node_id]

    def fail(self, own_id: str, reason: str, alive: Collection[str]) -> None:
        """It failed in a way that may be its node's; `alive` are the ids of the cluster's nodes.

        One that had come further there says nothing of what begins there: a hiccup ends all that run on a node at once.
        """
        attempt = self._attempts.get(own_id)
        if attempt is None or attempt.came_further:
            return
        key = node_id, cards = attempt.key
        row = self._rows.setdefault(key, _Row(next(self._ticks)))
        row.trials.append(own_id)
        others_work = bool(self._works.intersection(alive) - self._broken.keys() - {node_id})
        if len(row.trials) < BROKEN_AFTER or len(set(row.trials)) < 2 or not others_work or node_id in self._broken:
            return
        self._broken[node_id] = key
        where = f"{self._names[node_id]}, GPU {', '.join(cards)}" if cards else self._names[node_id]
        self._say(
            f"note: {self._names[node_id]} is sent no more trials: {len(row.trials)} in a row failed on {where}, and "
            f"others come further elsewhere; the last one: {reason}"
        )

    def leave(self, own_id: str) -> None:
        """It runs no more, for now."""
        self._attempts.pop(own_id, None)

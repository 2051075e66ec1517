"""Trials that failed on one node are started again on another; and a node where one after the other fails gets none."""

from __future__ import annotations

from collections.abc import Callable

from ray._private import state

BROKEN_AFTER = 3
"""So many failures in a row, of two trials at least, without an epoch between them, make a node a broken one, where
trials come further on others.  It takes whatever it is given at once, and fails it: without this, all of a search."""


class Elsewhere:
    """Where trials run, where they failed, and which nodes they are therefore kept from."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.broken: set[str] = set()
        """Ids of nodes that get no more trials, until an epoch comes from one of them."""
        self._say = say
        self._node: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._failed_on: dict[str, set[str]] = {}
        self._failures: dict[str, list[str]] = {}
        self._works: set[str] = set()

    def arrive(self, own_id: str, node_id: str, name: str) -> None:
        """The trial runs on this node, by Ray's id and by its address."""
        self._node[own_id] = node_id
        self._names[node_id] = name

    def node(self, own_id: str, worker: str | None) -> str | None:
        """The id of the node that it runs on or ran on; of one that died before it could say so by Ray's table of
        workers, where it is this one.  None where that does not know it either."""
        if own_id not in self._node and worker is not None:
            address = state.actors(worker).get("Address", {})
            if address.get("NodeID"):
                self.arrive(own_id, address["NodeID"], address["IPAddress"])
        return self._node.get(own_id)

    def epoch(self, own_id: str) -> None:
        """It has come further, and so its node works."""
        node_id = self._node[own_id]
        self._works.add(node_id)
        self._failures.pop(node_id, None)
        self.broken.discard(node_id)

    def fail(self, own_id: str, reason: str) -> None:
        """It failed in a way that may be its node's: it is kept from it, and others too where they fail there."""
        node_id = self._node.get(own_id)
        if node_id is None:
            return
        self._failed_on.setdefault(own_id, set()).add(node_id)
        failures = self._failures.setdefault(node_id, [])
        failures.append(own_id)
        others_work = bool(self._works - self.broken - {node_id})
        if len(failures) >= BROKEN_AFTER and len(set(failures)) > 1 and others_work and node_id not in self.broken:
            self.broken.add(node_id)
            self._say(
                f"note: {self._names[node_id]} gets no more trials: {len(failures)} in a row failed there, and others "
                f"come further elsewhere; the last one: {reason}"
            )

    def failed_on(self, own_id: str) -> frozenset[str]:
        """The nodes on which it failed."""
        return frozenset(self._failed_on.get(own_id, ()))

    def leave(self, own_id: str) -> None:
        """It runs no more, for now."""
        self._node.pop(own_id, None)

    def forget(self, own_id: str) -> None:
        """It is final."""
        self.leave(own_id)
        self._failed_on.pop(own_id, None)

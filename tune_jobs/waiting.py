"""Which trial is started next, with what request, and in which slot."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from tune_jobs.resources import Request, grown, slots, unservable
from tune_jobs.results.ledger import TrialRecord

if TYPE_CHECKING:
    from ray.actor import ActorHandle

LOOK_EVERY_S = 5.0
"""How old the picture of the cluster's nodes may be that trials are handed out by."""


class Waiting:
    """Trials on their way to Ray and with it, by their ids in the ledger."""

    def __init__(self, request_of: Callable[[Mapping[str, Any]], Request]) -> None:
        self.trials: list[TrialRecord] = []
        """Those that are to be run, or run again, the next one first."""
        self.out: dict[str, str] = {}
        """Those that Ray has now -> Ray's own id of each."""
        self.actors: dict[str, ActorHandle[Any]] = {}
        """Of those the ones that have a worker -> that worker."""
        self.since: dict[str, float] = {}
        """... -> when it was given it, by the monotonic clock."""
        self._request_of = request_of
        self._requests: dict[str, Request] = {}
        self._promised: dict[str, int] = {}
        self._slot_of: dict[ActorHandle[Any], int] = {}
        self._nodes: Sequence[Mapping[str, Any]] = ()
        self._looked = float("-inf")

    def request(self, own: TrialRecord) -> Request:
        """What it asks for: the experiment's request, or the greater one that it was promised when it ran out."""
        if own.id not in self._requests:
            asked = self._request_of(own.config) if own.next_request is None else Request(**own.next_request)
            self._requests[own.id] = asked
        return self._requests[own.id]

    def grow(self, own: TrialRecord, main_memory: bool) -> Request | None:
        """Let it ask for more memory from now on; None where no node has more."""
        more = grown(self.request(own), ray.nodes(), main_memory)
        if more is not None:
            self._requests[own.id] = more
        return more

    def next(self, trial_id: str) -> TrialRecord | None:
        """The first of those that wait of whose kind not as many as fit at once wait at Ray's already.

        So a long row of trials for the GPUs does not keep those for the CPUs from starting.  None: for none.
        """
        queued = Counter(kind for own_id, kind in self._kinds().items() if own_id not in self.actors)
        for index, own in enumerate(self.trials):
            request = self.request(own)
            if queued[str(request)] < slots(request, self.nodes()):
                self.out[own.id] = trial_id
                self._promised[own.id] = self._free_slot()
                return self.trials.pop(index)
        return None

    def room(self, requests: Sequence[Request]) -> int:
        """How many trials run at once at most, on the nodes that there are now."""
        return max(slots(request, self.nodes()) for request in requests)

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        """The cluster's nodes, looked at every few seconds."""
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            self._nodes, self._looked = ray.nodes(), time.monotonic()
        return self._nodes

    def stuck(self) -> list[Request]:
        """Requests of trials that wait at Ray's, which no node can serve any more."""
        return unservable([self._requests[own_id] for own_id in self.out if own_id not in self.actors], self.nodes())

    def promised_slot(self, own: TrialRecord) -> int:
        """The slot by which a worker made for this trial is named."""
        return self._promised[own.id]

    def _free_slot(self) -> int:
        """The lowest that no running trial has, nor one that waits at Ray's."""
        taken = {self._slot_of[actor] for actor in self.actors.values()} | set(self._promised.values())
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def start(self, own: TrialRecord, actor: ActorHandle[Any]) -> None:
        """It has a worker now, which keeps its slot from trial to trial where that is free."""
        promised = self._promised.pop(own.id)
        taken = {self._slot_of[other] for other in self.actors.values()}
        if self._slot_of.get(actor, -1) in {-1, *taken}:
            self._slot_of[actor] = promised
        self.actors[own.id] = actor
        self.since[own.id] = time.monotonic()

    def slot(self, own: TrialRecord) -> int:
        """The slot of one that has a worker."""
        return self._slot_of[self.actors[own.id]]

    def leave(self, own: TrialRecord) -> float | None:
        """Ray has it no more.  Returns how many seconds it had a worker."""
        self.out.pop(own.id, None)
        self._promised.pop(own.id, None)
        self.actors.pop(own.id, None)
        since = self.since.pop(own.id, None)
        return None if since is None else time.monotonic() - since

    def _kinds(self) -> dict[str, str]:
        return {own_id: str(self._requests[own_id]) for own_id in self.out}

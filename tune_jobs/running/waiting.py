"""Which trial is started next, with what request, and in which slot."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from tune_jobs.resources import Request, grown, slots, unservable
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.running.broken_nodes import BrokenNodes

if TYPE_CHECKING:
    from ray.actor import ActorHandle

LOOK_EVERY_S = 5.0
"""How old the picture of the cluster's nodes may be that trials are handed out by."""

AHEAD_S = 1.0
"""Where the last trial of a kind ran for longer, as many as fit at once wait at Ray's besides those that run: a cluster
that grows when asked sees them.  Of shorter ones each is handed out as another ends: for one that waits Ray makes a
placement group, and removes it when a worker comes free."""


class Waiting:
    """Trials on their way to Ray and with it, by their ids in the ledger."""

    def __init__(self, request_of: Callable[[Mapping[str, Any]], Request], broken: BrokenNodes) -> None:
        self.out: dict[str, str] = {}
        """Id of each trial that Ray has now -> Ray's own id of it."""
        self.actors: dict[str, ActorHandle[Any]] = {}
        """Id of each trial that has a worker -> that worker."""
        self.since: dict[str, float] = {}
        """Id of each trial that has a worker -> when it was given it, in seconds of the monotonic clock."""
        self._request_of = request_of
        self.broken = broken
        """To which nodes none is handed out."""
        self._queues: dict[str, deque[tuple[int, TrialRecord]]] = {}
        self._first = self._behind = 0
        self._ran_s: dict[str, float] = {}
        self._requests: dict[str, Request] = {}
        self._promised: dict[str, int] = {}
        self._kept_from: dict[str, frozenset[str]] = {}
        self._slot_of: dict[ActorHandle[Any], int] = {}
        self._nodes: Sequence[Mapping[str, Any]] = ()
        self._looked = float("-inf")
        self._seen: dict[str, Mapping[str, Any]] = {}
        """Each node by its id, as it last was alive."""

    def __len__(self) -> int:
        """How many are to be run, or run again, and are not with Ray."""
        return sum(map(len, self._queues.values()))

    def put(self, own: TrialRecord) -> None:
        """It is to be run, after all that are put in already."""
        self._queue(own).append((self._behind, own))
        self._behind += 1

    def put_first(self, own: TrialRecord) -> None:
        """It is to be run before all others."""
        self._first -= 1
        self._queue(own).appendleft((self._first, own))

    def put_second(self, own: TrialRecord) -> None:
        """It is to be run before all others of its kind but the first: where it failed since its node is broken, it is
        another one that finds that out too."""
        queue = self._queue(own)
        if not queue:
            self.put_first(own)
            return
        place, first = queue.popleft()
        queue.extendleft([(place, own), (place, first)])

    def take_back(self, own: TrialRecord) -> bool:
        """It is not to be run after all; False where Ray has it already."""
        if own.id in self.out:
            return False
        queue = self._queue(own)
        for place in [place for place in queue if place[1] is own]:
            queue.remove(place)
        return True

    def _queue(self, own: TrialRecord) -> deque[tuple[int, TrialRecord]]:
        return self._queues.setdefault(str(self.request(own)), deque())

    def request(self, own: TrialRecord) -> Request:
        """What it asks for: the experiment's request, or the greater one that it was promised when it ran out."""
        if own.id not in self._requests:
            asked = self._request_of(own.config) if own.next_request is None else Request(**own.next_request)
            self._requests[own.id] = asked
        return self._requests[own.id]

    def grow(self, own: TrialRecord, main_memory: bool) -> Request | None:
        """Let it ask for more memory from now on; None where no node has more, nor had since the search began: one that
        went away may come back."""
        self._look()
        more = grown(self.request(own), list(self._seen.values()), main_memory=main_memory)
        if more is not None:
            self._requests[own.id] = more
        return more

    def next(self, trial_id: str) -> TrialRecord | None:
        """The trial to give to Ray next, as its trial `trial_id`: the first in line of a kind that has room ahead.

        A kind has room while fewer of its trials than the cluster fits at once are with Ray and have no worker yet (of
        a kind whose trials take next to no time: are with Ray at all).  So a long row of trials for the GPUs does not
        keep those for the CPUs from starting.  None where no kind with trials left has room.
        """
        ahead = self._ahead()
        heads = [
            (queue[0][0], kind)
            for kind, queue in self._queues.items()
            if queue and ahead[kind] < self._slots(self.request(queue[0][1]))
        ]
        if not heads:
            return None
        _, own = self._queues[min(heads)[1]].popleft()
        self.out[own.id] = trial_id
        self._promised[own.id] = self._free_slot()
        self._kept_from[own.id] = self._away(self.request(own))
        return own

    def has_place(self, requests: Iterable[Request]) -> bool:
        """Whether `next` would find a trial with one of these requests, if it waited."""
        ahead = self._ahead()
        return any(ahead[str(request)] < self._slots(request) for request in requests)

    def _ahead(self) -> Counter[str]:
        """Of each kind how many wait at Ray's already; or, of one whose trials take next to no time, are there."""
        return Counter(
            kind
            for own_id, kind in self._kinds().items()
            if own_id not in self.actors or self._ran_s.get(kind, AHEAD_S) < AHEAD_S
        )

    def kept_from(self, own: TrialRecord) -> list[str]:
        """The ids of the nodes to which one that is handed out is not to go."""
        return sorted(self._kept_from[own.id])

    def _away(self, request: Request) -> frozenset[str]:
        """The broken nodes, as long as there are others that can serve the request."""
        broken = self.broken.ids.intersection(node["NodeID"] for node in self.nodes() if node["Alive"])
        return broken if broken and not unservable([request], self._others(broken)) else frozenset()

    def _others(self, away: frozenset[str]) -> Sequence[Mapping[str, Any]]:
        return [node for node in self.nodes() if node["NodeID"] not in away] if away else self.nodes()

    def _slots(self, request: Request) -> int:
        return slots(request, self._others(self._away(request)))

    def room(self, requests: Sequence[Request]) -> int:
        """How many trials run at once at most, on the nodes that there are now and are not broken."""
        return max(map(self._slots, requests))

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        """The cluster's nodes, looked at every few seconds."""
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            self._look()
        return self._nodes

    def alive(self) -> list[str]:
        """The ids of the nodes that were there when they were last looked at."""
        return [node["NodeID"] for node in self._nodes if node["Alive"]]

    def _look(self) -> None:
        self._nodes, self._looked = ray.nodes(), time.monotonic()
        self._seen |= {node.get("NodeID", ""): node for node in self._nodes if node["Alive"]}

    def stuck(self) -> list[Request]:
        """Requests of trials that wait at Ray's, which no node to which they may go can serve any more."""
        waits: dict[frozenset[str], list[Request]] = {}
        for own_id in self.out:
            if own_id not in self.actors:
                waits.setdefault(self._kept_from[own_id], []).append(self._requests[own_id])
        lacking = [request for away, asked in waits.items() for request in unservable(asked, self._others(away))]
        return list({str(request): request for request in lacking}.values())

    def promised_slot(self, own: TrialRecord) -> int:
        """The slot by which a worker made for this trial is named."""
        return self._promised[own.id]

    def _free_slot(self) -> int:
        """The lowest that no running trial has, nor one that waits at Ray's."""
        taken = {self._slot_of[actor] for actor in self.actors.values()} | set(self._promised.values())
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def start(self, own: TrialRecord, actor: ActorHandle[Any]) -> None:
        """It has a worker now, which keeps its slot from trial to trial where no other runs in it."""
        promised = self._promised.pop(own.id)
        kept = self._slot_of.get(actor)
        if kept is None or kept in {self._slot_of[other] for other in self.actors.values()}:
            self._slot_of[actor] = promised
        else:  # one to which it was promised meanwhile has the other
            self._promised = {one: promised if slot == kept else slot for one, slot in self._promised.items()}
        self.actors[own.id] = actor
        self.since[own.id] = time.monotonic()

    def slot(self, own: TrialRecord) -> int:
        """The slot of one that has a worker."""
        return self._slot_of[self.actors[own.id]]

    def ran_s(self, own: TrialRecord) -> float:
        """Seconds that one has had its worker."""
        return time.monotonic() - self.since[own.id]

    def leave(self, own: TrialRecord) -> float | None:
        """Ray has it no more.  Returns how many seconds it had a worker."""
        self.out.pop(own.id, None)
        self._promised.pop(own.id, None)
        self._kept_from.pop(own.id, None)
        self.actors.pop(own.id, None)
        if own.id not in self.since:
            return None
        ran_s = self.ran_s(own)
        del self.since[own.id]
        self._ran_s[str(self.request(own))] = ran_s
        return ran_s

    def end_workers(self) -> None:
        """End the processes of the trials that run, at once."""
        for actor in self.actors.values():
            ray.kill(actor)

    def forget(self, own: TrialRecord) -> None:
        """It is final and asks for nothing any more."""
        self._requests.pop(own.id, None)

    def _kinds(self) -> dict[str, str]:
        return {own_id: str(self._requests[own_id]) for own_id in self.out}

"""When and where trials ran, from the ledger's times and places."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tune_jobs.results import ledger


@dataclass(frozen=True)
class Attempt:
    """One try at a trial."""

    trial: str
    number: int
    """From 1."""
    start: float
    """Seconds since 1970."""
    end: float
    """Of one that runs still, or whose driver died, the last that was heard of it."""
    state: str
    """How it ended; WAITING where it was to be tried again, RUNNING where nothing says."""
    node: str | None = None
    slot: int | None = None
    """Which of the trials running at the same time it was, from 0, over all nodes.  Both None for an attempt that ended
    before its worker said a word, and in ledgers of earlier versions, which have no places."""
    cards: tuple[str, ...] = ()
    """Of the node's GPUs those that it was given."""


@dataclass(frozen=True)
class Lane:
    """A row of the time line."""

    label: str
    attempts: tuple[Attempt, ...]


def attempts(path: Path) -> list[Attempt]:
    """All of a ledger, by their start."""
    found: list[Attempt] = []
    running: dict[str, Attempt] = {}
    for event in ledger.events(path):
        trial = event["trial"]
        if event["event"] == "state":
            if trial in running:
                died = event["state"] == "RUNNING"  # a driver that was killed wrote no end
                ended = running.pop(trial)
                found.append(replace(ended, end=ended.end if died else event["time"], state=event["state"]))
            if event["state"] == "RUNNING":
                running[trial] = Attempt(trial, event.get("attempt", 1), event["time"], event["time"], "RUNNING")
        elif trial in running and event["event"] == "epoch":
            running[trial] = replace(running[trial], end=event["time"])
        elif trial in running and event["event"] == "place":
            cards = tuple(map(str, event.get("cards") or ()))
            running[trial] = replace(running[trial], node=event["node"], slot=event.get("slot"), cards=cards)
    return sorted([*found, *running.values()], key=lambda attempt: (attempt.start, attempt.trial))


def lanes(ordered: Sequence[Attempt]) -> list[Lane]:
    """A lane for each node and slot that the ledger names, node by node.

    Below them, as many as ran at once of the attempts of which it names none.
    """
    placed: dict[tuple[str, int], list[Attempt]] = {}
    for attempt in ordered:
        if attempt.node is not None and attempt.slot is not None:
            placed.setdefault((attempt.node, attempt.slot), []).append(attempt)
    several = len({node for node, _ in placed}) > 1
    found = [
        Lane(f"{node}, slot {slot}" if several else f"slot {slot}", tuple(placed[node, slot]))
        for node, slot in sorted(placed)
    ]
    packed = _packed([attempt for attempt in ordered if attempt.node is None or attempt.slot is None])
    head = "not told," if placed else "lane"
    return found + [Lane(f"{head} {number}", tuple(own)) for number, own in enumerate(packed, 1)]


def overlap(ordered: Sequence[Attempt]) -> bool:
    """Whether two ran at once on one node.  Those whose node is not known are taken to be on one of their own."""
    by_node: dict[str | None, list[Attempt]] = {}
    for attempt in ordered:
        by_node.setdefault(attempt.node, []).append(attempt)
    return any(len(_packed(own)) > 1 for own in by_node.values())


def _packed(ordered: Sequence[Attempt]) -> list[list[Attempt]]:
    """The attempts, by their start, in as few lanes as hold them without two at once: each in the lowest that is free
    when it starts."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found: list[list[Attempt]] = []
    for attempt in ordered:
        while busy and busy[0][0] <= attempt.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane = len(found)
            found.append([])
        found[lane].append(attempt)
        heapq.heappush(busy, (attempt.end, lane))
    return found

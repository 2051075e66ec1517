"""When trials ran, from the ledger's times."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
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


def attempts(path: Path) -> list[Attempt]:
    """All of a ledger, by their start."""
    found: list[Attempt] = []
    running: dict[str, tuple[int, float, float]] = {}
    for event in ledger.events(path):
        trial = event["trial"]
        if event["event"] == "epoch" and trial in running:
            number, start, _ = running[trial]
            running[trial] = number, start, event["time"]
        if event["event"] != "state":
            continue
        if trial in running:
            number, start, heard = running.pop(trial)
            died = event["state"] == "RUNNING"  # a driver that was killed wrote no end
            found.append(Attempt(trial, number, start, heard if died else event["time"], event["state"]))
        if event["state"] == "RUNNING":
            running[trial] = event.get("attempt", 1), event["time"], event["time"]
    found += [Attempt(trial, *told, "RUNNING") for trial, told in running.items()]
    return sorted(found, key=lambda attempt: (attempt.start, attempt.trial))


def lanes(ordered: Sequence[Attempt]) -> list[int]:
    """A lane for each attempt, from 0, the lowest that is free when it starts.

    The ledger does not say which worker a trial had: as many lanes are taken as ran at once, no more.
    """
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found = []
    for attempt in ordered:
        while busy and busy[0][0] <= attempt.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (attempt.end, lane))
        found.append(lane)
    return found


def overlap(ordered: Sequence[Attempt]) -> bool:
    """Whether two ran at once."""
    return max(lanes(ordered), default=0) > 0

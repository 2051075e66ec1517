"""The append-only record of trials: one JSON line for every epoch and every change of state.

Lines, besides `time` (seconds since 1970) and `trial`:

- `{"event": "state", "state": "WAITING", "config": {...}}`  the trial exists
- `{"event": "state", "state": "RUNNING", "attempt": 1, "request": {"cpu": 1.0, ...}}`
- `{"event": "place", "attempt": 1, "node": "10.0.0.7", "slot": 0, "cards": []}`  where it runs
- `{"event": "epoch", "attempt": 1, "epoch": 1, "train_loss": ..., "val_loss": ..., ...}`
- `{"event": "state", "state": "WAITING", "failure": "worker_crashed", "reason": "..."}`  to be started again, with
  `next_request` where it is to ask for more memory
- `{"event": "state", "state": "COMPLETE", "wall_time_s": ..., "shared_with": ..., "shared_card_with": ...,
  "result": {...}}`
- `{"event": "refused", "reason": "..."}`  a checkpoint that it cannot go on from
- `{"event": "config", "config": {...}}`  put back where its first line was lost
- `{"event": "state", "state": "FAIL", "wall_time_s": ..., "failure": "diverged", "reason": "..."}`

A number that is not finite is written as null.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tune_jobs.results.line import parse
from tune_jobs.results.plain import plain


def trial_id(number: int, fold: int | None = None) -> str:
    """The id of the trial with this number, from 0; of one of its repeats, counted from 0."""
    return f"{number:05d}" if fold is None else f"{number:05d}-{fold}"


def number_of(trial: str) -> int:
    """The number of the trial with this id, which its repeats share."""
    return int(trial.split("-")[0])


def fold_of(trial: str) -> int | None:
    """Which repeat has this id; None where there are no repeats."""
    _, dash, fold = trial.partition("-")
    return int(fold) if dash else None


def place_of(trial: str) -> tuple[int, int]:
    """Where this id stands among others: by its number, then by its repeat."""
    return number_of(trial), fold_of(trial) or 0


class _Known(Protocol):
    """A trial's record, or its row."""

    @property
    def id(self) -> str: ...


_One = TypeVar("_One", bound=_Known)


def by_number(trials: Iterable[_One]) -> dict[int, list[_One]]:
    """Number in the study -> its repeats, the first one first."""
    groups: dict[int, list[_One]] = {}
    for trial in sorted(trials, key=lambda trial: place_of(trial.id)):
        groups.setdefault(number_of(trial.id), []).append(trial)
    return groups


FINAL = ("COMPLETE", "PRUNED", "FAIL")
"""States that a trial does not leave."""


TAIL_BYTES = 1 << 20
"""No line is longer by far."""


class Ledger:
    """Appends to the record; each line reaches the operating system before the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end_line()

    def _end_line(self) -> None:
        """Where a crash cut the last line, it goes: what it would have said never held."""
        size = os.fstat(self._file).st_size
        last = os.pread(self._file, TAIL_BYTES, max(0, size - TAIL_BYTES))
        cut = last[last.rfind(b"\n") + 1 :]
        if not cut:
            return
        if parse(cut.decode(errors="replace")) is None and (len(cut) < len(last) or size == len(last)):
            os.ftruncate(self._file, size - len(cut))
        else:
            os.write(self._file, b"\n")

    def append(self, trial: str, event: str, **fields: Any) -> dict[str, Any]:
        """Add a line and return it as it was written.  `fields` are JSON values.

        Raises OSError where it cannot be written; nothing of it is written then.
        """
        line: dict[str, Any] = plain({"time": time.time(), "trial": trial, "event": event} | fields)
        data = memoryview((json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n").encode())
        whole = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:  # a full disk may take a part of it
            os.ftruncate(self._file, whole)
            raise
        return line

    def close(self) -> None:
        os.close(self._file)


@dataclass
class TrialRecord:
    """What the ledger says of one trial."""

    id: str
    config: dict[str, Any] = field(default_factory=dict)
    state: str = "WAITING"
    attempts: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """In order.  An attempt that goes on from a checkpoint adds to those before; one from the start replaces them."""
    result: dict[str, Any] = field(default_factory=dict)
    """`models.result.TrainResult` as a dict; empty until COMPLETE."""
    wall_time_s: float | None = None
    failure: str | None = None
    reason: str | None = None
    failures: list[str] = field(default_factory=list)
    """The classes of all its failures, in order."""
    lost: int = 0
    """How often its node was lost since it last trained an epoch that it had not trained before."""
    furthest: int = 0
    """The last epoch that it came to, since it last could not go on from a checkpoint."""
    since: float = 0.0
    """When its state last changed, seconds since 1970."""
    started: float | None = None
    """When its last attempt began, seconds since 1970."""
    request: dict[str, Any] | None = None
    """What its last attempt asked for: `tune_jobs.resources.Request` as a dict."""
    next_request: dict[str, Any] | None = None
    """What its next attempt is to ask for, where that is more than the experiment says."""
    place: dict[str, Any] = field(default_factory=dict)
    """Where its last attempt ran: node, slot and cards; empty until it said so."""
    shared_with: float | None = None
    """How many other trials of the same search ran on the same node, whatever they computed on, on average over its
    attempt."""
    shared_card_with: float | None = None
    """How many of them ran on the same card; None for a trial that had none."""

    @property
    def finished(self) -> bool:
        return self.state in FINAL

    def forget_course(self) -> None:
        """Let go of what the ledger has and a search that goes on asks of no trial that is finished: its epochs."""
        self.epochs = []


def read(path: Path) -> dict[str, TrialRecord]:
    """All trials by id, in the order they were made.  A line that is not whole is passed over: see `damage.told`."""
    trials: dict[str, TrialRecord] = {}
    for event in events(path):
        apply(trials.setdefault(event["trial"], TrialRecord(event["trial"])), event)
    return trials


def events(path: Path) -> Iterator[dict[str, Any]]:
    """Every line that is whole, in order; none where there is no file yet."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            event = parse(line)
            if event is not None:
                yield event


class Tail:
    """Reads a ledger that is being written, each time on from where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.is_anew = False
        """Whether the last `read` was from the start again, since the file had become shorter: a run on an object store
        may have been taken up without the last lines of another driver."""

    def read(self) -> list[dict[str, Any]]:
        """The lines that are new and whole; one that is half written is left for the next time."""
        if not self._path.exists():
            return []
        self.is_anew = self._path.stat().st_size < self._offset
        if self.is_anew:
            self._offset = 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.decode("utf-8", errors="replace").split("\n")
        return [event for line in lines if (event := parse(line)) is not None]


def apply(trial: TrialRecord, event: dict[str, Any]) -> None:
    """Bring a trial's record up to date with one line."""
    if event["event"] == "epoch":
        if event["attempt"] == trial.attempts:
            trial.epochs = [epoch for epoch in trial.epochs if epoch["epoch"] < event["epoch"]] + [event]
            if event["epoch"] > trial.furthest:
                trial.furthest, trial.lost = event["epoch"], 0
        return
    if event["event"] == "place":
        trial.place = {key: event.get(key) for key in ("node", "slot", "cards")}
        return
    if event["event"] == "refused":
        trial.furthest = 0
        return
    if event["event"] == "config":
        trial.config = event["config"]
        return
    trial.state = event["state"]
    trial.since = event["time"]
    trial.config = event.get("config", trial.config)
    trial.next_request = event.get("next_request", trial.next_request)
    if trial.state == "RUNNING":
        trial.attempts = event.get("attempt", trial.attempts + 1)
        trial.started = event["time"]
        trial.request = event.get("request")
        trial.place = {}
    trial.result = event.get("result", {})
    trial.wall_time_s = event.get("wall_time_s")
    trial.shared_with = event.get("shared_with")
    trial.shared_card_with = event.get("shared_card_with")
    trial.failure = event.get("failure")
    if trial.failure is not None:
        trial.failures = [*trial.failures, trial.failure]
        trial.lost += trial.failure == "node_lost"
    trial.reason = event.get("reason")

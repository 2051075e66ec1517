"""The trials that are trained as one, each with its place there."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import torch

from models import TrainConfig
from models.checkpoint import State
from models.precision import Precision
from models.result import EpochMetrics, TrainResult
from tune_jobs.resources import Request

if TYPE_CHECKING:
    from models.stacked import Member

SETTLE_S = 0.5
"""After a trial has come so long is waited for more before a stack is made: those handed out together come together."""
PATIENCE_S = 2.0
"""So long is waited for a worker that has something to do: it may be one whose trial a scheduler has stopped, which
nobody tells it.  Then the others go on; should it come back, so does its trial."""


@dataclass(frozen=True)
class Coming:
    """What a worker says of its trial."""

    config: TrainConfig
    """With its seed."""
    part: int
    """On which of the splits."""
    start: State | None
    """What it goes on from."""
    request: Request
    """What its worker was given, which does not use it while its trial is here."""
    most: int
    """So many such trials share the device."""
    pid: int
    born_s: float
    """When the worker's process began: another may have its number later."""

    def is_there(self) -> bool:
        """Whether its worker lives."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.born_s) < 60  # which is reckoned by a clock that may be set
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Told:
    """What a worker hears: one of these, or an epoch and, with the last, the end."""

    metrics: EpochMetrics | None = None
    result: TrainResult | None = None
    weights: dict[str, torch.Tensor] | None = None
    """Of the best epoch, on the CPU, with `result`."""
    alone: bool = False
    """The trial is to be trained by its own worker."""
    of_shape: bool = False
    """And so are all of its shape."""
    again: bool = False
    """It is to come again, from its last checkpoint."""
    error: Exception | None = None
    """DivergedError, or what `models.training.fit` refuses."""


@dataclass(eq=False)
class Seat:
    """One trial here."""

    coming: Coming
    precision: Precision | None = None
    key: Hashable = None
    """Trials of one key are stacked; None until it is known."""
    member: Member | None = None
    waits: Future[Told] | None = None
    """Its worker waits for word; None while it has something to do."""
    has_waited: bool = False
    turn: int = 0
    """When it was trained last."""
    came_s: float = field(default_factory=time.monotonic)
    told_s: float = field(default_factory=time.monotonic)
    """When its worker was given something to do."""

    @property
    def is_new(self) -> bool:
        """Whether others may be about to come that were handed out with it."""
        return time.monotonic() - self.came_s < SETTLE_S

    @property
    def is_busy(self) -> bool:
        """Whether its worker is likely to wait again soon."""
        return self.waits is None and time.monotonic() - self.told_s < PATIENCE_S


def due(seats: Sequence[Seat], limits: Mapping[Hashable, int]) -> list[Seat]:
    """Those to be trained next: of the groups that are all there, the one that has waited longest; none may be.

    `limits`: by key, how many are trained together at most: always the same ones, or a stack would be made anew.
    """
    groups: dict[Hashable, list[Seat]] = {}
    for seat in seats:
        if seat.key is not None:
            groups.setdefault(seat.key, []).append(seat)
    ready: list[list[Seat]] = []
    for key, group in groups.items():
        is_room = len(seats) < max(seat.coming.most for seat in group)
        limit = limits.get(key, len(group))
        for part in (group[first : first + limit] for first in range(0, len(group), limit)):
            here = [seat for seat in part if seat.waits is not None]
            if here and not any(seat.is_busy or (is_room and seat.is_new) for seat in part):
                ready.append(here)
    return min(ready, key=lambda part: min(seat.turn for seat in part), default=[])

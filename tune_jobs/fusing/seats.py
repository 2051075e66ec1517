"""The trials that are trained as one, each with its place there."""

from __future__ import annotations

import time
from collections.abc import Hashable
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
            return process.create_time() == self.born_s and process.status() != psutil.STATUS_ZOMBIE
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

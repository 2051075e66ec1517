"""Trains as one the trials that share a device: what its process does.  No Ray here.

Each trial keeps its worker, which reports, writes checkpoints and is stopped as any other; its steps are taken here,
in a stack with those of the same shape (`models.stacked`).  A stack trains for an epoch once each of its workers waits
for what comes of it, so that none runs ahead of what it has reported.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from datasets import Splits
from models import TrainConfig
from models.checkpoint import State, precision_of
from models.out_of_memory import is_out_of_memory
from models.precision import Precision, as_before, choose_precision
from models.result import EpochMetrics, TrainResult
from models.stack_gain import gain
from models.stacked import Images, Member, Stack, is_stacked, stack_key
from tune_jobs.device import Place
from tune_jobs.resources import Request

SETTLE_S = 0.5
"""After a trial has come so long is waited for more before a stack is made: those handed out together come together."""
IDLE_S = 10.0
"""After so long without a trial it ends.  What comes later begins another."""
PATIENCE_S = 2.0
"""So long is waited for a worker that has something to do: it may be one whose trial a scheduler has stopped, which
nobody tells it.  Then the others go on; should it come back, so does its trial."""
PAYS_FROM = 1.1
"""Trials are stacked where that is so many times as fast as their steps one after another."""
_LOOK_S = 0.5


@dataclass(frozen=True)
class Told:
    """What a worker hears: exactly one of these, or an epoch and, with the last, the end."""

    metrics: EpochMetrics | None = None
    result: TrainResult | None = None
    weights: dict[str, torch.Tensor] | None = None
    """Of the best epoch, on the CPU, with `result`."""
    alone: bool = False
    """The trial is to be trained by its own worker: nothing is gained here."""
    error: Exception | None = None


@dataclass(eq=False)
class _Seat:
    """One trial here."""

    config: TrainConfig
    """With its seed."""
    fold: int
    pid: int
    """Of its worker, on this machine."""
    start: State | None
    """What it goes on from, should it be set up anew."""
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


class Fuser:
    """Called by many threads; one of them trains (`serve`)."""

    def __init__(self, splits: Sequence[Splits], request: Request, most: int, always: bool) -> None:
        """`splits`: of each repeat.  `most`: so many trials share the device, each with this request.  `always`: they
        are stacked where they can be, and not only where that is faster."""
        self._splits, self._most, self._always = splits, most, always
        whole = request.model_copy(update={"cpu": request.cpu * most, "gpu": _all_of(request, most)})
        self._place = Place(whole)
        self._at_once = 1 if whole.gpu else min(most, whole.threads // request.threads)
        self._images: dict[int, Images] = {}
        self._seats: dict[int, _Seat] = {}
        self._tickets = 0
        self._came_s = time.monotonic()
        """When somebody was here last."""
        self._turns = 0
        self._is_over = False
        self._pays: dict[Hashable, bool] = {}
        self._limits: dict[Hashable, int] = {}
        """Of keys of which no more fit into memory."""
        self._stacks: list[Stack] = []
        """Those that have been trained and are as they were."""
        self._changed = threading.Condition()

    def join(self, config: TrainConfig, fold: int, pid: int, start: State | None) -> int | None:
        """A trial comes, with its seed, from a worker on this machine -> its ticket; None where this is at its end."""
        with self._changed:
            if self._is_over:
                return None
            self._tickets += 1
            self._seats[self._tickets] = _Seat(config, fold, pid, start)
            self._came_s = time.monotonic()
            self._changed.notify_all()
            return self._tickets

    def next(self, ticket: int) -> Future[Told]:
        """What is to be told next; until then the trial's worker has nothing to do."""
        with self._changed:
            waits: Future[Told] = Future()
            self._seats[ticket].waits = waits
            self._changed.notify_all()
            return waits

    def state(self, ticket: int) -> State:
        """Where the training stands.  Its worker may ask between an epoch and the next `next`."""
        member = self._seats[ticket].member
        assert member is not None
        return member.state()

    def leave(self, ticket: int) -> None:
        """The trial is over, or stopped."""
        with self._changed:
            self._seats.pop(ticket, None)
            self._changed.notify_all()

    def serve(self) -> None:
        """Train until nobody has been here for a while.  Who comes or waits after its end, or an error of it, is not
        served."""
        self._place.take()
        while not self._is_empty_for_long():
            for seat in self._new():
                self._admit(seat)
            group = self._due()
            if group:
                self._train(group)
            else:
                with self._changed:
                    self._changed.wait(_LOOK_S)

    def _is_empty_for_long(self) -> bool:
        with self._changed:
            for ticket in [ticket for ticket, seat in self._seats.items() if not _is_there(seat.pid)]:
                del self._seats[ticket]
            now = time.monotonic()
            if self._seats:
                self._came_s = now
            self._is_over = not self._seats and now - self._came_s > IDLE_S
            return self._is_over

    def _new(self) -> list[_Seat]:
        with self._changed:
            return [seat for seat in self._seats.values() if seat.key is None and seat.waits is not None]

    def _admit(self, seat: _Seat) -> None:
        """Find out with whom it can be trained."""
        device = self._place.device
        try:
            config = seat.config if seat.start is None else as_before(seat.config, precision_of(seat.start), device)
            seat.precision = choose_precision(config, device)
            key = stack_key(config, seat.precision)
            if (
                key is None
                or (seat.start is not None and not is_stacked(seat.start))
                or (seat.start is None and not self._always and not self._is_faster(seat, key))
            ):
                _tell(seat, Told(alone=True))
            else:
                seat.member = self._member(seat)
                seat.key = seat.fold, *key
        except Exception as error:  # noqa: BLE001 - its worker raises it
            _tell(seat, Told(error=error))

    def _is_faster(self, seat: _Seat, key: Hashable) -> bool:
        if key not in self._pays:
            assert seat.precision is not None
            images = self._images_of(seat.fold)
            found = gain(seat.config, seat.precision, images, self._most, self._at_once)
            self._pays[key] = found >= PAYS_FROM
        return self._pays[key]

    def _due(self) -> list[_Seat]:
        """Those to be trained next: of the groups that are all there, the one that has waited longest."""
        with self._changed:
            is_room = len(self._seats) < self._most
            groups: dict[Hashable, list[_Seat]] = {}
            for seat in self._seats.values():
                if seat.key is not None:
                    groups.setdefault(seat.key, []).append(seat)
            ready = [
                here[: self._limits.get(key, len(here))]
                for key, seats in groups.items()
                if not any(seat.is_busy or (is_room and seat.is_new) for seat in seats)
                for here in [sorted((seat for seat in seats if seat.waits is not None), key=lambda seat: seat.turn)]
            ]
            return min(filter(None, ready), key=lambda part: part[0].turn, default=[])

    def _train(self, group: list[_Seat]) -> None:
        """An epoch of these, and what came of it to each."""
        self._turns += 1
        for seat in group:
            seat.turn = self._turns
        try:
            outcomes = self._stack_of(group).epoch()
            for seat, outcome in zip(group, outcomes, strict=True):
                _tell(seat, self._told(seat, outcome))
        except Exception as error:  # noqa: BLE001 - their workers raise it
            self._drop_stacks(group)
            if not is_out_of_memory(error) or len(group) == 1:
                for seat in group:
                    _tell(seat, Told(error=error))
                return
            self._limits[group[0].key] = (len(group) + 1) // 2
            for seat in group:
                seat.member = None  # it is set up anew from where it stood
            if self._place.card is not None:
                torch.cuda.empty_cache()

    def _stack_of(self, group: list[_Seat]) -> Stack:
        members = [seat.member or self._member(seat) for seat in group]
        for stack in self._stacks:
            if stack.members == members:
                return stack
        self._drop_stacks(group)
        for seat, member in zip(group, members, strict=True):
            seat.member = member
            if member.progress.epochs:
                seat.start = member.state()
        self._stacks.append(Stack(members))
        return self._stacks[-1]

    def _drop_stacks(self, group: Sequence[_Seat]) -> None:
        """Those with one of these, or with one that is no longer here."""
        with self._changed:
            stay = {seat.member for seat in self._seats.values()} - {seat.member for seat in group}
        self._stacks = [stack for stack in self._stacks if stay.issuperset(stack.members)]

    def _member(self, seat: _Seat) -> Member:
        assert seat.precision is not None
        return Member(seat.config, seat.precision, self._images_of(seat.fold), seat.start)

    def _told(self, seat: _Seat, outcome: EpochMetrics | Exception) -> Told:
        if isinstance(outcome, Exception):
            return Told(error=outcome)
        assert seat.member is not None
        if not seat.member.is_done:
            return Told(metrics=outcome)
        fitted = seat.member.fitted()
        return Told(outcome, fitted.result, fitted.model.state_dict())

    def _images_of(self, fold: int) -> Images:
        number = min(fold, len(self._splits) - 1)
        if number not in self._images:
            self._images[number] = Images.of(self._splits[number], self._place.device)
        return self._images[number]


def _tell(seat: _Seat, told: Told) -> None:
    waits, seat.waits, seat.told_s = seat.waits, None, time.monotonic()
    if waits is not None:
        waits.set_result(told)


def _all_of(request: Request, most: int) -> float:
    assert request.gpu != "auto"
    return min(1.0, request.gpu * most)


def _is_there(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

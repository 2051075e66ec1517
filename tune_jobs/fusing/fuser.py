"""Trains as one the trials that share a device: what its process does.  No Ray here.

Each trial keeps its worker, which reports, writes checkpoints and is stopped as any other; its steps are taken here,
in a stack with those of the same shape (`models.stacked`).  A stack trains for an epoch once each of its workers waits
for what comes of it, so that none runs ahead of what it has reported.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future

import torch

from datasets import Splits
from models import ModelError
from models.checkpoint import CheckpointError, State, precision_of
from models.out_of_memory import is_out_of_memory
from models.precision import as_before, choose_precision
from models.result import DivergedError, EpochMetrics
from models.stack_gain import gain
from models.stacked import Images, Member, Stack, is_stacked, stack_key
from tune_jobs.device import Place
from tune_jobs.fusing.seats import Coming, Seat, Told, due
from tune_jobs.resources import Request

IDLE_S = 10.0
"""After so long without a trial it ends.  What comes later begins another."""
LOST_S = 60.0
"""One that has come and has not waited for so long does not know that it is here."""
HUNG_S = 300.0
"""An epoch of which a worker has ended meanwhile hangs where it is not done so long after, nor after three times as
long as the slowest before."""
PAYS_FROM = 1.1
"""Trials are stacked where that is so many times as fast as each in its own process."""
_LOOK_S = 0.1


class Fuser:
    """Called by many threads; one of them trains (`serve`)."""

    def __init__(self, splits: Sequence[Splits], request: Request, always: bool) -> None:
        """`splits`: of each repeat.  `request`: of one of the trials, which says on what device they are.  `always`:
        they are stacked where they can be, and not only where that is faster."""
        self._splits, self._always = splits, always
        self._place = Place(request)
        self._images: dict[int, Images] = {}
        self._seats: dict[int, Seat] = {}
        self._tickets = 0
        self._came_s = time.monotonic()
        """When somebody was here last."""
        self._turns = 0
        self._in_training: list[Seat] = []
        self._gone_s: float | None = None
        """When it was first seen that a worker of those in training has ended."""
        self._slowest_s = 0.0
        self._sharing: set[int] = set()
        """The tickets of those whose shares of the device it takes."""
        self._has_run_out = False
        self._is_over = False
        self._pays: dict[Hashable, bool] = {}
        self._limits: dict[Hashable, int] = {}
        """Of keys of which no more fit into memory."""
        self._stacks: list[Stack] = []
        """Those that have been trained and are as they were."""
        self._changed = threading.Condition()

    def join(self, coming: Coming) -> int | None:
        """A trial comes -> its ticket; None where this is at its end."""
        with self._changed:
            if self._is_over:
                return None
            self._tickets += 1
            self._seats[self._tickets] = Seat(coming)
            self._came_s = time.monotonic()
            self._changed.notify_all()
            return self._tickets

    def next(self, ticket: int) -> Future[Told]:
        """What is to be told next; until then the trial's worker has nothing to do."""
        with self._changed:
            waits: Future[Told] = Future()
            if ticket not in self._seats:  # it was taken for one whose worker has ended
                waits.set_result(Told(again=True))
                return waits
            self._seats[ticket].waits, self._seats[ticket].has_waited = waits, True
            self._changed.notify_all()
            return waits

    def state(self, ticket: int) -> State:
        """Where the training stands.  Its worker may ask between an epoch and the next `next`: all of its is done."""
        member = self._seats[ticket].member
        assert member is not None
        with self._place.beside():
            return member.state()

    def leave(self, ticket: int) -> None:
        """The trial is over, or stopped, or its worker has ended."""
        with self._changed:
            seat = self._seats.pop(ticket, None)
            if seat is not None:
                _tell(seat, Told(again=True))
            self._changed.notify_all()

    def serve(self) -> None:
        """Train until nobody has been here for a while.

        Who waits at its end is not told.  Raises what is no trial's fault: the process is to end, and with it what
        CUDA may have been left in.
        """
        self._place.take()
        while not self._is_empty_for_long():
            self._take_shares()
            for seat in self._new():
                self._admit(seat)
            group = self._due()
            if group:
                self._train(group)
            else:
                with self._changed:
                    self._changed.wait(_LOOK_S)

    def hangs(self) -> bool:
        """Whether an epoch goes on long after a worker that waits for it was ended, as one is that takes too long."""
        with self._changed:
            gone = any(not seat.coming.is_there() for seat in self._in_training)
            if not gone:
                self._gone_s = None
            elif self._gone_s is None:
                self._gone_s = time.monotonic()
            return self._gone_s is not None and time.monotonic() - self._gone_s > max(HUNG_S, 3 * self._slowest_s)

    def _is_empty_for_long(self) -> bool:
        with self._changed:
            now = time.monotonic()
            for ticket, seat in list(self._seats.items()):
                is_lost = not seat.has_waited and now - seat.came_s > LOST_S
                if is_lost or not seat.coming.is_there():
                    self.leave(ticket)
            if self._seats:
                self._came_s = now
            self._is_over = not self._seats and now - self._came_s > IDLE_S
            if self._seats:
                return False
        if self._images:  # its share of the card is another's now
            self._images.clear()
            self._drop_stacks()
        return self._is_over

    def _new(self) -> list[Seat]:
        """Those that have come."""
        with self._changed:
            return [seat for seat in self._seats.values() if seat.key is None and seat.waits is not None]

    def _take_shares(self) -> None:
        """Of the device what the workers of those that are here were given, which leave it alone."""
        with self._changed:
            here = {ticket: seat.coming.request for ticket, seat in self._seats.items()}
        if here and here.keys() != self._sharing:
            is_less = not here.keys() >= self._sharing
            self._sharing = set(here)
            self._place.share(list(here.values()))
            if is_less:
                self._give_back()

    def _admit(self, seat: Seat) -> None:
        """Find out with whom it can be trained."""
        coming = seat.coming
        is_full = False
        with self._changed:
            self._in_training = [seat]
        try:
            config = coming.config
            if coming.start is not None:
                config = as_before(config, precision_of(coming.start), self._place.device)
            seat.precision = choose_precision(config, self._place.device)
            key = stack_key(config, seat.precision)
            if key is None or not self._is_wanted(seat, key):
                _tell(seat, Told(alone=True, of_shape=coming.start is None))
            else:
                seat.member = Member(coming.config, seat.precision, self._images_of(coming.part), coming.start)
                seat.key = coming.part, *key
        except (ModelError, CheckpointError) as error:
            _tell(seat, Told(error=error))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            is_full = True
        finally:
            with self._changed:
                self._in_training = []
        if is_full:  # here, where the error no longer holds what it came from
            is_first = bool(self._stacks) and not self._has_run_out
            self._has_run_out = True
            self._drop_stacks()
            _tell(seat, Told(again=True) if is_first else Told(alone=True))

    def _is_wanted(self, seat: Seat, key: Hashable) -> bool:
        """A training goes on in the way that it began."""
        start = seat.coming.start
        return is_stacked(start) if start is not None else self._always or self._is_faster(seat, key)

    def _is_faster(self, seat: Seat, key: Hashable) -> bool:
        if key not in self._pays:
            assert seat.precision is not None
            coming = seat.coming
            at_once = 1 if coming.request.gpu else max(1, min(coming.most, int(coming.request.cpu * coming.most)))
            self._place.share([coming.request] * coming.most)
            found = 0.0
            try:
                found = gain(coming.config, seat.precision, self._images_of(coming.part), coming.most, at_once)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise  # else so many do not fit
            self._give_back()
            self._pays[key] = found >= PAYS_FROM
            self._sharing = set()
            self._take_shares()
        return self._pays[key]

    def _due(self) -> list[Seat]:
        with self._changed:
            return due(list(self._seats.values()), self._limits)

    def _train(self, group: list[Seat]) -> None:
        """An epoch of these, and what came of it to each."""
        self._turns += 1
        for seat in group:
            seat.turn = self._turns
        with self._changed:
            self._in_training = group
        began_s = time.monotonic()
        told: list[Told] = []
        try:
            told = self._epoch_of(group)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        finally:
            with self._changed:
                self._in_training = []
        self._slowest_s = max(self._slowest_s, time.monotonic() - began_s)
        if not told:
            if len(self._stacks) <= 1 or self._has_run_out:  # else it may be the others that filled it
                self._limits[group[0].key] = (len(group) + 1) // 2
            is_last = len(group) == 1 and group[0].key in self._limits
            self._has_run_out = True
            for seat in group:
                seat.key, seat.member = None, None
            self._drop_stacks()
            told = [Told(alone=True) if is_last else Told(again=True)] * len(group)
        for seat, each in zip(group, told, strict=True):
            _tell(seat, each)

    def _epoch_of(self, group: list[Seat]) -> list[Told]:
        stack = self._stack_of(group)
        return [_outcome(*each) for each in zip(stack.members, stack.epoch(), strict=True)]

    def _stack_of(self, group: list[Seat]) -> Stack:
        members = [seat.member for seat in group if seat.member is not None]
        known = [stack for stack in self._stacks if stack.members == members]
        if known:
            return known[0]
        with self._changed:
            stay = {seat.member for seat in self._seats.values()} - set(members)
        self._stacks = [stack for stack in self._stacks if stay.issuperset(stack.members)]
        self._stacks.append(Stack(members))
        return self._stacks[-1]

    def _drop_stacks(self) -> None:
        """With the memory that they take of the card; they are made anew when they are due."""
        self._stacks.clear()
        self._give_back()

    def _give_back(self) -> None:
        if self._place.card is not None:
            torch.cuda.empty_cache()

    def _images_of(self, part: int) -> Images:
        if part not in self._images:
            self._images[part] = Images.of(self._splits[part], self._place.device)
        return self._images[part]


def _outcome(member: Member, outcome: EpochMetrics | DivergedError) -> Told:
    if isinstance(outcome, DivergedError):
        return Told(error=outcome)
    if not member.is_done:
        return Told(metrics=outcome)
    fitted = member.fitted()
    assert isinstance(fitted.model, torch.nn.Module)
    return Told(outcome, fitted.result, fitted.model.state_dict())


def _tell(seat: Seat, told: Told) -> None:
    waits, seat.waits, seat.told_s = seat.waits, None, time.monotonic()
    if waits is not None and waits.set_running_or_notify_cancel():
        waits.set_result(told)

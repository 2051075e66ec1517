"""Who may write a run that lies on an object store: one driver at a time, wherever it runs.

An object store has no locks, but what was written is listed at once.  A driver writes a claim, an object of its own,
and lists the claims: it has the run if there is no other living one; else it takes its own back.  Of two that claim at
the same moment at least one sees the other, so that never both have the run.  A claim lives as long as it is written
anew; its age is told by the store's own clock, so that the machines' clocks do not matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from tune_jobs.errors import UsageError
from tune_jobs.storage import Store, StoreError

BEAT_S = 5
"""A claim is written anew so often."""
STALE_S = 60
"""A claim that is older is a dead driver's."""
GIVE_UP_S = 40
"""A driver whose claim could not be written for so long stops, before another may think it dead."""
_MARGIN_S = 2
"""Stores tell times in whole seconds."""


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps: time.monotonic() does not, and a driver that wakes would think the run its own."""


def _now() -> float:
    return time.clock_gettime(_CLOCK)


class Lease:
    """One driver's hold on a run."""

    def __init__(self, store: Store, memory: Path) -> None:
        """`store`: the run's folder; `memory`: a file beside the run's own lock, with the claim of who held that last.

        Whoever makes a Lease holds the run's own lock: a claim found in `memory` is a dead process's.
        """
        self._claims = store / ".lock"
        self._run = store.name
        self._memory = memory
        self._mine = uuid.uuid4().hex
        self._end = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._trouble: Callable[[str], None] = lambda _: None
        self._last = 0.0
        self.is_lost = False
        """Whether `trouble` was told so."""

    def take(self, say: Callable[[str], None], trouble: Callable[[str], None]) -> None:
        """Raises UsageError where a living driver has the run.

        A claim that might be a dead driver's is watched for up to STALE_S seconds.  `trouble` is told, from another
        thread, when the lease is lost later on.
        """
        if self._memory.exists() and re.fullmatch("[0-9a-f]{32}", before := self._memory.read_text(encoding="utf-8")):
            self._claims.delete(before)
        self._memory.write_text(self._mine, encoding="utf-8")
        said = False
        try:
            while living := self._living():
                self._claims.delete(self._mine)
                if not said:
                    owner = self._owner(living)
                    say(f"run {self._run}: {owner} had it last; waiting to see whether that one still lives")
                    said = True
                self._watch(living)
                time.sleep(random.random())  # of two that wait for the same, one is first
        except BaseException:  # an impatient Ctrl-C, too
            with contextlib.suppress(StoreError):
                self._claims.delete(self._mine)
            raise
        self._trouble = trouble
        self._beats.start()

    def held(self) -> bool:
        """Whether the run is still ours, as far as can be known."""
        return not self.is_lost and _now() - self._last < GIVE_UP_S

    def give_back(self) -> None:
        """The next driver need not wait.  Raises StoreError where the store cannot be told."""
        self._end.set()
        self._beats.join()
        if not self.is_lost:
            self._claims.delete(self._mine)
        self._memory.unlink(missing_ok=True)

    def _living(self) -> dict[str, float]:
        """Others' claims that are not stale, and when each was written, once ours is there; stale ones are removed."""
        self._write()
        claims = self._claims.list()
        if self._mine not in claims:
            raise StoreError(f"{self._claims}: does not list what was just written there")
        now = claims.pop(self._mine).time_s
        stale = [name for name, found in claims.items() if now - found.time_s >= STALE_S]
        living = {name: found.time_s for name, found in claims.items() if name not in stale}
        if not living:
            for name in stale:
                self._claims.delete(name)
        return living

    def _watch(self, living: Mapping[str, float]) -> None:
        """Return when the claims are gone or must be stale.  Raises UsageError when one is written anew."""
        deadline = time.monotonic() + STALE_S + _MARGIN_S
        while time.monotonic() < deadline:
            time.sleep(1)
            now = self._claims.list()
            if any(name in now and now[name].time_s > since for name, since in living.items()):
                raise UsageError(f"run {self._run}: {self._owner(living)} is running it")
            if not living.keys() & now.keys():
                return

    def _owner(self, living: Mapping[str, float]) -> str:
        try:
            owner = json.loads(self._claims.read(next(iter(living))) or b"")
            return f"process {int(owner['pid'])} on {owner['host']}"
        except (ValueError, KeyError, TypeError):
            return "another process"

    def _write(self) -> None:
        owner = {"host": socket.gethostname(), "pid": os.getpid()}
        before = _now()
        self._claims.write(self._mine, json.dumps(owner).encode())
        self._last = before

    def _beat(self) -> None:
        reason = f"run {self._run}: this driver was held up for more than {GIVE_UP_S} s"
        while not self._end.wait(BEAT_S):
            if not self.held():  # another may have the run by now: not a word more from here
                self._lose(reason)
                return
            try:
                if self._mine not in self._claims.list():
                    self._lose(f"run {self._run}: its lock in the store was removed")
                    return
                self._write()
            except StoreError as error:
                reason = str(error)

    def _lose(self, reason: str) -> None:
        self.is_lost = True
        self._trouble(reason)


def is_held(store: Store) -> bool:
    """Whether some driver seems to have the run, by this machine's clock.  Raises StoreError."""
    return any(time.time() - found.time_s < STALE_S for found in (store / ".lock").list().values())

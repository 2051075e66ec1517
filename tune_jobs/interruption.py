"""What ends a search before its end: signals, a budget, a disk, and how it is told."""

from __future__ import annotations

import contextlib
import ctypes
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

from datasets.reasons import is_no_room
from profiling import interrupts


class Leave(KeyboardInterrupt):
    """Leaves Tune's loop at once; Tune, which handles every Exception in its own way, does not catch it."""


class DiskFull(Leave):
    """Leaves it because there is no room; the message says so.  Whoever catches it tells `Stop`."""


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Raises DiskFull in place of an OSError that says that there is no room."""
    try:
        yield
    except OSError as error:
        if not is_no_room(error):
            raise
        raise DiskFull(f"the run directory is on a full disk ({error.strerror})") from error


Cause = Literal["interrupted", "budget", "disk", "store", "nodes"]


class Stop:
    """Whether a search is to stop before its end, and why."""

    def __init__(self, minutes: float | None) -> None:
        """`minutes`: after so many, counted from now, its budget is used up."""
        self.cause: Cause | None = None
        self.detail = ""
        self._deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def ask(self, cause: Cause, detail: str = "") -> None:
        """Stop at the next turn; the first cause stands."""
        if self.cause is None:
            self.cause, self.detail = cause, detail

    def leave_if_asked(self) -> None:
        """Raises Leave where the search is to stop."""
        if time.monotonic() > self._deadline:
            self.ask("budget")
        if self.cause is not None:
            raise Leave

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the search at the next turn; a second one leaves from where it is."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self.cause is not None:
                interrupts.interrupt(number, frame)
            self.ask("interrupted")

        interrupts.own.add(stop.__code__)
        with _handling({signal.SIGINT: stop, signal.SIGTERM: stop}):
            yield


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """A person's first word is SIGINT, a cluster's is SIGTERM.  Both mean the same: KeyboardInterrupt."""

    # SIGINT too: a shell starts what it runs in the background with it ignored.
    with _handling({signal.SIGINT: interrupts.interrupt, signal.SIGTERM: interrupts.interrupt}):
        yield


def take_back_sigterm() -> None:
    """Ray has put its own handler before ours, below Python: it writes a trace to stderr first.

    Handlers are the main thread's: from another one, it does this as soon as it is back in Python's own code.
    """
    ctypes.pythonapi.Py_AddPendingCall(_SET_SIGTERM_AGAIN, None)


def _set_sigterm_again(_: object) -> int:
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None:  # one that was not set from Python cannot be set from there
        signal.signal(signal.SIGTERM, handler)
    return 0


_SET_SIGTERM_AGAIN = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_set_sigterm_again)
"""As C calls it; it has to be there for as long as it may be called."""


@contextlib.contextmanager
def _handling(handlers: dict[signal.Signals, Callable[..., None]]) -> Iterator[None]:
    """Puts the handlers back afterwards.  Signals reach the main thread alone: elsewhere nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        try:
            yield
        finally:
            interrupts.settle()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Ctrl-C at a moment at which Python cannot take it.

A signal's handler runs between any two bytecodes of the main thread.  In the import machinery, which takes the lock of
all imports a bytecode before its `try`, an exception from there leaves that locked: each later import in another thread
waits for ever.  In a callback of a weak reference it is written to stderr and forgotten.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN_S = 0.01

_is_coming = False
"""Whether a signal that came at a bad moment is about to be sent again."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal's handler: raises KeyboardInterrupt, out of the import machinery as soon as that has been left."""
    if _is_coming:
        return
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib."):
        _send_again(number)
    else:
        raise KeyboardInterrupt


def _send_again(number: int) -> None:
    global _is_coming  # handlers are a process's own
    _is_coming = True

    def send() -> None:
        global _is_coming
        _is_coming = False
        os.kill(os.getpid(), number)

    timer = threading.Timer(AGAIN_S, send)
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Meanwhile Ctrl-C is `interrupt`, and one that Python forgets is sent again.  In the main thread alone, and not
    where SIGINT is ignored or has another handler."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return

    def forgotten(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is KeyboardInterrupt:
            _send_again(signal.SIGINT)
        else:
            before(what)

    before, sys.unraisablehook = sys.unraisablehook, forgotten
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = before

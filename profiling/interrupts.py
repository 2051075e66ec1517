"""Ctrl-C at a moment at which Python cannot take it.

A signal's handler runs between any two bytecodes of the main thread.  In the import machinery, which takes the lock of
all imports a bytecode before its `try`, an exception from there leaves that locked: each later import in another thread
waits for ever.  In a callback of a weak reference it is written to stderr and forgotten.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType

AGAIN_S = 0.01
"""After so long a signal that came at a bad moment is sent again."""
MOST = 500
"""So often, some five seconds.  Then it is heard at any moment: the import may be what hangs."""

# The state of a process's handlers, which only the main thread runs.
_is_coming = False
_times = 0
"""How often the signal that is coming has been sent again."""
_last = int(signal.SIGINT)
"""The signal that was raised as KeyboardInterrupt last."""

own: set[CodeType] = set()
"""Of what handles signals: an exception raised in it would reach what it has interrupted."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal's handler: raises KeyboardInterrupt, out of the import machinery as soon as that has been left."""
    global _times, _last
    if _is_bad(frame) and _times < MOST:
        _times += 1
        _send_again(number)
        return
    _times, _last = 0, number
    raise KeyboardInterrupt


def _is_bad(frame: FrameType | None) -> bool:
    """Whether the frame is of the import machinery, or of what handles signals."""
    return frame is not None and (frame.f_code in own or frame.f_code.co_filename.startswith("<frozen importlib."))


def _send_again(number: int) -> None:
    """From a thread of C's kind: to start one of Python's is to wait for it."""
    global _is_coming
    if _is_coming:
        return
    _is_coming = True
    try:
        _thread.start_new_thread(_send, (number,))
    except RuntimeError as error:  # no thread is to be had
        _is_coming = False
        raise KeyboardInterrupt from error


def _send(number: int) -> None:
    global _is_coming
    time.sleep(AGAIN_S)
    _is_coming = False
    os.kill(os.getpid(), number)


def _forgotten(what: sys.UnraisableHookArgs) -> None:
    """Python's hook for exceptions that it cannot raise."""
    if what.exc_type is KeyboardInterrupt:
        _send_again(_last)
    else:
        sys.__unraisablehook__(what)


own |= {function.__code__ for function in (interrupt, _is_bad, _send_again, _forgotten)}


def settle() -> None:
    """Wait for a signal that is coming, while its handler is still there."""
    if _is_coming:
        while _is_coming:
            time.sleep(AGAIN_S)
        time.sleep(AGAIN_S)  # it is said right before the signal is sent


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Meanwhile Ctrl-C is `interrupt`, where it is not ignored and has no other handler, and an interrupt that Python
    forgets is sent again.  In the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    sys.unraisablehook = _forgotten
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        try:
            yield
        finally:
            settle()
    finally:
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook

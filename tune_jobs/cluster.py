"""The Ray cluster that a command works on, and the signals that end it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import ray

from tune_jobs.errors import UsageError
from tune_jobs.resources import Request, unservable


def connect() -> str | None:
    """Join the cluster that RAY_ADDRESS or this job names, or start Ray on this machine.

    Returns the address of Ray's dashboard, where there is one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return None
    _check_reachable(os.environ.get("RAY_ADDRESS", ""))
    before = signal.getsignal(signal.SIGTERM)
    context = ray.init(log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # ray.init puts one of its own there, which exits at once
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def leave() -> None:
    """Shut this process's Ray down beside what is still to be done, which takes seconds; the process ends after it.

    Left to the interpreter's end it would take half a second more: Ray waits there for messages of its log monitor.
    """
    threading.Thread(target=ray.shutdown, name="ray-shutdown").start()


def is_named() -> bool:
    """Whether there is a cluster to join: RAY_ADDRESS names one, which a job's driver always has."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def wait_until_servable(requests: Sequence[Request], say: Callable[[str], None]) -> None:
    """Wait until some node could serve each request, and say for what: for clusters that grow when asked.

    The autoscaler is told what is wanted; once it is there, the trials themselves keep it.
    """
    from ray.autoscaler.sdk import request_resources

    said = ""
    while missing := unservable(requests, ray.nodes()):
        line = f"waiting for nodes that can serve: {'; '.join(map(str, missing))}"
        if line != said:
            say(line)
            said = line
        request_resources(bundles=[request.bundle() for request in missing])
        time.sleep(2)
    if said:
        request_resources(bundles=[])
        say("the nodes are there")


def _check_reachable(address: str) -> None:
    """Raise UsageError where RAY_ADDRESS names a host and port at which nobody listens: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # empty, auto or local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UsageError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error})") from error


class Leave(KeyboardInterrupt):
    """Leaves Tune's loop at once; Tune, which handles every Exception in its own way, does not catch it."""


Cause = Literal["interrupted", "budget", "disk"]


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

        def stop(*_: object) -> None:
            if self.cause is not None:
                raise KeyboardInterrupt
            self.ask("interrupted")

        with _handling({signal.SIGINT: stop, signal.SIGTERM: stop}):
            yield


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """A person's first word is SIGINT, a cluster's is SIGTERM.  Both mean the same: KeyboardInterrupt."""
    with _handling({signal.SIGTERM: lambda *_: signal.raise_signal(signal.SIGINT)}):
        yield


@contextlib.contextmanager
def _handling(handlers: dict[signal.Signals, Callable[..., None]]) -> Iterator[None]:
    """Puts the handlers back afterwards.  Signals reach the main thread alone: elsewhere nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

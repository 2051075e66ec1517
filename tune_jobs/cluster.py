"""The Ray cluster that a command works on, and the signals that end it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

import ray

from tune_jobs.errors import UsageError


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


def _check_reachable(address: str) -> None:
    """Raise UsageError where RAY_ADDRESS names a host and port at which nobody listens: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # empty, auto or local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UsageError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error})") from error


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Tune saves its state and stops its trials on SIGINT alone; a cluster's first word is SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

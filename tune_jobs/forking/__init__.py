"""Workers that are forked from a process that has PyTorch already.

A worker that Ray starts imports PyTorch, pandas and the rest itself: 2 to 3 s of a core for each, of a search that may
take ten.  Here one process imports them, beside the start of Ray, and all workers of that Ray are forked from it, also
those that are started after another has died; they share its memory.  Ray's dashboard starts its parts the same way.

What a fork copies is one thread: the server has none of its own but those of OpenBLAS and jemalloc, which know how to
be forked.  Ray itself is imported by each worker: its core reads the environment, which each is given by its raylet,
and a worker that was forked with Ray 2.60 in it hung.
Someone else's job on this Ray is given such workers too, in which `datasets` and `models` are ours; with a runtime
environment, as our own commands and jobs have one, it is given ordinary ones.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tune_jobs.forking.worker import ADDRESS

SERVER = Path(__file__).with_name("server.py")
WORKER = Path(__file__).with_name("worker.py")
"""The script that Ray is to start as a worker, inside `fork_server`."""


@dataclass
class _Server:
    process: subprocess.Popen[bytes]
    """It ends when its standard input does, which the kernel closes when this process ends, however it does."""
    address: str
    is_used: bool = False


_server: _Server | None = None


def begin() -> None:
    """Start a server for the Ray that this process is likely to start, beside what is still to be done before.

    Not where RAY_ADDRESS names another one, or this is a job; on Linux alone: elsewhere libraries do not expect to be
    forked.
    """
    global _server
    is_own = (os.environ.get("RAY_ADDRESS") or "local") == "local" and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ
    if sys.platform != "linux" or not is_own or _server is not None:
        return
    folder = tempfile.mkdtemp(prefix="tune_jobs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # the server removes it too, where it is not killed
    address = f"{folder}/fork_server"
    process = subprocess.Popen(
        [sys.executable, str(SERVER), address, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C is for this process to answer
    )
    _server = _Server(process, address)
    atexit.register(end)


@contextmanager
def fork_server() -> Iterator[None]:
    """Ray's processes that are started inside know the server, which is started where it was not begun."""
    begin()
    if _server is None:
        yield
        return
    _server.is_used = True
    os.environ[ADDRESS] = _server.address
    try:
        yield
    finally:
        del os.environ[ADDRESS]


def end() -> None:
    """Have the server end: the Ray that was started inside is gone, or it is to be none of this process's."""
    global _server
    if _server is None:
        return
    assert _server.process.stdin is not None
    _server.process.stdin.close()
    if not _server.is_used:  # it would first import all
        _server.process.kill()
        _server.process.wait()
    _server = None


def is_on() -> bool:
    """Whether this is inside `fork_server`, on a system that has it."""
    return ADDRESS in os.environ

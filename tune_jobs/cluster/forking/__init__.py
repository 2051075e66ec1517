"""Workers that are forked from a process that has PyTorch already.

A worker that Ray starts imports PyTorch, pandas and the rest itself: 2 to 3 s of a core for each, of a search that may
take ten.  Here one process imports them, beside the start of Ray, and all workers of that Ray are forked from it, also
those that are started after another has died; they share its memory.  Ray's dashboard starts its parts the same way.

What a fork copies is one thread: the server has none of its own but those of OpenBLAS and jemalloc, which know how to
be forked.  Ray itself is imported by each worker: its core reads the environment, which each is given by its raylet.
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
from pathlib import Path

from tune_jobs.cluster.forking.worker import ADDRESS

SERVER = Path(__file__).with_name("server.py")
WORKER = Path(__file__).with_name("worker.py")
"""The script that Ray is to start as a worker, inside `fork_server`."""


@contextmanager
def fork_server() -> Iterator[None]:
    """Start a server; Ray's processes that are started inside know it.  It ends at `end`, or with this process.

    On Linux alone: elsewhere libraries do not expect to be forked, and nothing is started.
    """
    if sys.platform != "linux":
        yield
        return
    folder = tempfile.mkdtemp(prefix="tune_jobs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # the server removes it too, where it is not killed
    address = f"{folder}/fork_server"
    server = subprocess.Popen(
        [sys.executable, str(SERVER), address, json.dumps(sys.path)],
        stdin=subprocess.PIPE,  # closed by the kernel when this process ends, however it does
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C is for this process to answer
    )
    _servers.append(server)
    os.environ[ADDRESS] = address
    try:
        yield
    finally:
        del os.environ[ADDRESS]


_servers: list[subprocess.Popen[bytes]] = []
"""Kept: the pipe of one that is dropped is closed."""


def end() -> None:
    """Have the servers end: the Ray that was started inside is gone."""
    for server in _servers:
        assert server.stdin is not None
        server.stdin.close()


def is_on() -> bool:
    """Whether this is inside `fork_server`, on a system that has it."""
    return ADDRESS in os.environ

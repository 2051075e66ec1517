"""Workers that are forked from a process that has PyTorch already.

A worker that Ray starts imports PyTorch, pandas and the rest itself: 2 to 3 s of a core for each, of a search that may
take ten.  Here one process imports them, beside the start of Ray, and all workers of that Ray are forked from it, also
those that are started after another has died; they share its memory.  Ray's dashboard starts its parts the same way.

What a fork copies is one thread: the server has none of its own but those of OpenBLAS and jemalloc, which know how to
be forked.  Ray itself is imported by each worker: its core reads the environment, which each is given by its raylet.
"""

from __future__ import annotations

import json
import os
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
    """Start a server; Ray's processes that are started inside know it.  It ends with this process.

    On Linux alone: elsewhere libraries do not expect to be forked, and nothing is started.
    """
    if sys.platform != "linux":
        yield
        return
    address = str(Path(tempfile.mkdtemp(prefix="tune_jobs-")) / "fork_server")
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


def is_on() -> bool:
    """Whether this is inside `fork_server`, on a system that has it."""
    return ADDRESS in os.environ

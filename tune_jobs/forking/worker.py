"""What Ray starts as a worker: it has the fork server make one, or becomes one in Ray's own way.

Run by its path.  It imports nothing that takes long: a worker waits for it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

PATIENCE_S = 30
"""A server that hangs for so long is done without, before Ray gives the worker up."""

ADDRESS = "TUNE_JOBS_FORK_SERVER"
"""The environment variable that names the server's socket."""


def main() -> None:
    address = os.environ.pop(ADDRESS, "")
    found = find_spec("ray")  # without importing it
    assert found is not None  # for Ray has started this
    assert found.submodule_search_locations is not None
    worker = Path(found.submodule_search_locations[0]) / "_private" / "workers" / "default_worker.py"
    arguments = [str(worker), *sys.argv[1:]]
    # One with a runtime environment may need what that says from its interpreter's start on.
    if not (address and "--runtime-env-hash=0" in arguments and is_forked(address, arguments)):
        os.execv(sys.executable, [sys.executable, "-u", *arguments])


def is_forked(address: str, arguments: list[str]) -> bool:
    """Whether there is a process now that has all that this one was given, and goes on as the worker."""
    asked = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "working_directory": str(Path.cwd()),
        "niceness": os.nice(0),
        "leads_group": os.getpgrp() == os.getpid(),
        "leads_session": os.getsid(0) == os.getpid(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "blocked_signals": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(),
    }
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(address)
            socket.send_fds(connection, [b"\n"], [0, 1, 2])
            connection.sendall(json.dumps(asked).encode() + b"\n")
            return connection.recv(1) == b"\n"
    except OSError:
        return False


if __name__ == "__main__":
    main()

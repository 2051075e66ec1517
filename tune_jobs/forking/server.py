"""The server that workers are forked from.  Run by its path: `server.py ADDRESS PATHS`.

ADDRESS is where its socket is to be, alone in a folder, which it removes at its end; PATHS the JSON of its sys.path.
It ends when its standard input does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import sys
from pathlib import Path

MODULES = (
    "torch",
    "models.training",
    "datasets",
    # What Ray and Tune import, and are not themselves:
    "fsspec",
    "jsonschema",
    "msgpack",
    "pandas",
    "psutil",
    "pyarrow.fs",
    "pydantic",
    "requests",
    "rich.console",
    "yaml",
)


def main() -> None:
    address, paths = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(128)  # who asks already waits until the imports are done
        sys.path[:] = json.loads(paths)
        gc.disable()  # of what is imported nearly all stays: to look through it again and again is a sixth of the work
        for name in MODULES:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # a collection would write to these objects, and so copy their memory
        gc.enable()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
        asked = serve(listener)
    if asked is None:
        shutil.rmtree(Path(address).parent, ignore_errors=True)
        os._exit(0)  # Python would take a second to take the modules apart
    go_on(*asked)


def serve(listener: socket.socket) -> tuple[socket.socket, list[int]] | None:
    """Fork a process for each that asks -> in that process, who asked, and the three standard streams that it sent;
    in this one None, at the end."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        connection.settimeout(5)  # for one that asks and then says nothing
        try:
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        except OSError:
            streams = []
        if len(streams) == 3 and os.fork() == 0:
            return connection, streams
        connection.close()
        for stream in streams:
            os.close(stream)


def go_on(connection: socket.socket, streams: list[int]) -> None:
    """Become the worker that who asked is: with its arguments, environment and all else that it has from its raylet."""
    with connection, connection.makefile() as lines:
        asked = json.loads(lines.readline())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        if asked["leads_session"]:
            os.setsid()
        elif asked["leads_group"]:
            os.setpgid(0, 0)
        os.chdir(asked["working_directory"])
        os.nice(asked["niceness"] - os.nice(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, asked["open_files"])
        Path("/proc/self/oom_score_adj").write_text(asked["oom_score_adj"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = asked["arguments"]
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        sys.modules["numpy"].random.seed()  # else it would draw what the others draw
        signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked_signals"])
        connection.sendall(b"\n")
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()

"""The application run as a person runs it: its command line, in processes with a HOME and a Ray of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent

# A shell starts what it runs in the background with SIGINT ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class App:
    """`python -m tune_jobs` with its own HOME, storage and Ray temp dir; Ray's processes end with it."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def storage(self) -> Path:
        return self.home / "runs"

    def start(self, *arguments: str, command: tuple[str, ...] = ("-m", "tune_jobs")) -> subprocess.Popen[str]:
        """The command in the background."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
        environment |= {
            "HOME": str(self.home),
            "RAY_TMPDIR": str(self.home / "ray"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "TUNE_JOBS_STORAGE": str(self.storage),
            "PYTHONPATH": str(ROOT),
        } | self.environment
        return subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command to its end."""
        return self._end(self.start(*arguments), arguments)

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another module's command line, to its end."""
        return self._end(self.start(*arguments, command=("-m", module)), arguments)

    def script(self, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A Python file to its end, in the same surroundings."""
        return self._end(self.start(*arguments, command=(str(path),)), (str(path), *arguments))

    def _end(self, process: subprocess.Popen[str], arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        try:
            out, err = process.communicate(timeout=500)
        finally:
            process.kill()
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    home = Path(tempfile.mkdtemp(prefix="tj", dir="/tmp"))  # short: Ray's socket paths have at most 107 characters
    yield App(home)
    shutil.rmtree(home, ignore_errors=True)


def processes_under(home: Path) -> list[psutil.Process]:
    """Living processes whose Ray temp dir is under `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(home) in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has just ended
    return found

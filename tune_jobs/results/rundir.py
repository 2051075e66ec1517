"""The directory of one run: where its files are, how they are written, who may write them."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.files import replacing as replacing
from tune_jobs.errors import UsageError


@dataclass(frozen=True)
class RunDir:
    """A run directory, `<storage>/<name>`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def ledger(self) -> Path:
        return self.path / "trials.jsonl"

    @property
    def study(self) -> Path:
        return self.path / "optuna.journal"

    @property
    def parquet(self) -> Path:
        return self.path / "trials.parquet"

    @property
    def csv(self) -> Path:
        return self.path / "trials.csv"

    @property
    def confirmation(self) -> Path:
        return self.path / "confirm.json"

    @property
    def checkpoints(self) -> Path:
        """A folder a trial: its checkpoints while it runs, and its model while it is one of the best."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    @property
    def best_model(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def read_environment(self) -> dict[str, Any]:
        """What environment.json says.  Raises UsageError where it is missing or damaged."""
        try:
            facts = json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.environment}: cannot be read ({error})") from error
        if not isinstance(facts, dict) or "data_sha256" not in facts:
            raise UsageError(f"{self.environment}: does not say what data the run had (data_sha256)")
        return facts

    def is_running(self) -> bool:
        """Whether some process holds the run's lock."""
        try:
            with (self.path / ".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory and hold it alone: two drivers of one run would write over each other.

        The lock is the kernel's and goes with the process that holds it, however it dies.
        Raises UsageError where another process holds it, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise UsageError(f"run directory {self.path}: cannot be written ({error.strerror})") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"run {self.name}: another process is running it ({self.path})") from error
            yield


def find(run: str, storage: Path) -> RunDir:
    """A run by its directory or by its name under the storage.  Raises UsageError where there is none."""
    for path in (Path(run), storage / run):
        if (path / "trials.jsonl").is_file():
            return RunDir(path.absolute())
    known = sorted(path.parent.name for path in storage.glob("*/trials.jsonl"))
    have = f"; runs under {storage}: {', '.join(known)}" if known else f"; there are no runs under {storage}"
    raise UsageError(f"run {run}: no run directory of that path or name{have}")


def write_text(path: Path, text: str) -> None:
    """The whole text or what was there before."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

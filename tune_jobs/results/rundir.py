"""The directory of one run: where its files are, how they are written, who may write them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tune_jobs.errors import UsageError
from tune_jobs.results import locks
from tune_jobs.results.atomic import LEDGER, ROWS, STUDY
from tune_jobs.results.atomic import replacing as replacing
from tune_jobs.results.atomic import write_text as write_text
from tune_jobs.results.mirror import Mirror, is_locked, working_copy
from tune_jobs.storage import Store, expanded, parse

if TYPE_CHECKING:
    from tune_jobs.experiment import Experiment

BENCHMARK = "benchmark.parquet"
ASKED_S = 0.2
"""So long a lock may seem taken that nobody holds: whoever asks whether somebody does has it for a moment."""


_COPY = "put a copy back; a search's rows alone come by `report --format csv`"


def _ignore(line: str) -> None:
    """Where nobody is to be told."""


@dataclass(frozen=True)
class RunDir:
    """A run directory, `<storage>/<name>`; of one on an object store, its working copy."""

    path: Path
    mirror: Mirror | None = field(default=None, compare=False)
    """Of a run on an object store."""

    def __str__(self) -> str:
        """Where it lies, for a person."""
        return str(self.path if self.mirror is None else self.mirror.store)

    def shown(self, path: Path) -> str:
        """Where a file of it lies, for a person; of a file elsewhere, its path."""
        if self.mirror is None or not path.is_relative_to(self.path):
            return str(path)
        return str(self.mirror.store / path.relative_to(self.path).as_posix())

    @property
    def storage(self) -> Path | Store:
        """What it lies in."""
        return self.path.parent if self.mirror is None else self.mirror.store.parent

    def within(self, name: str) -> RunDir:
        """A run in a folder of this one."""
        path = self.path / name
        return RunDir(path, None if self.mirror is None else Mirror(path, self.mirror.store / name))

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
        return self.path / LEDGER

    @property
    def study(self) -> Path:
        return self.path / STUDY

    @property
    def parquet(self) -> Path:
        return self.path / "trials.parquet"

    @property
    def csv(self) -> Path:
        return self.path / "trials.csv"

    @property
    def benchmark(self) -> Path:
        """The rows of a benchmark, where the run is one."""
        return self.path / BENCHMARK

    @property
    def rows(self) -> Path:
        """The append-only record of a benchmark's rows."""
        return self.path / ROWS

    @property
    def is_benchmark(self) -> bool:
        """Whether it is one with rows."""
        return self.benchmark.is_file() and not self.ledger.is_file()

    @property
    def confirmation(self) -> Path:
        return self.path / "confirm.json"

    @property
    def checkpoints(self) -> str:
        """Path or URI, for any node: a folder a trial, with its checkpoints while it runs, and its model while it is
        one of the best."""
        return str(self.path / "checkpoints") if self.mirror is None else (self.mirror.store / "checkpoints").uri

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
        except OSError as error:
            raise UsageError(f"{self.environment}: cannot be read ({error.strerror}); {_COPY}") from error
        except ValueError as error:
            raise UsageError(f"{self.environment}: is damaged ({error}); {_COPY}") from error
        if not isinstance(facts, dict) or "data_sha256" not in facts:
            raise UsageError(f"{self.environment}: does not say what data the run had (data_sha256)")
        images = facts.get("images", {})
        if not isinstance(images, dict) or not all(isinstance(count, int) for count in images.values()):
            raise UsageError(f"{self.environment}: does not say how many images there were (images)")
        return facts

    def read_experiment(self) -> Experiment:
        """What experiment.yaml says.  Raises UsageError, which names it."""
        from tune_jobs import yaml
        from tune_jobs.experiment import check

        try:
            return check(yaml.read(self.experiment))
        except UsageError as error:
            told = str(error).removeprefix(f"{self.experiment}: ")
            raise UsageError(f"{self.experiment}: {told}; put a copy back, or the file it was made from") from error

    def fetch(self) -> None:
        """Bring the working copy of a run on an object store up to date.  Raises StoreError."""
        if self.mirror is not None:
            self.mirror.fetch()

    def fetch_ledger(self) -> None:
        """Bring that alone up to date.  Raises StoreError."""
        if self.mirror is not None:
            self.mirror.fetch_record()

    def publish(self, *paths: Path) -> None:
        """Files of it that were written without its lock, to the object store.  Raises StoreError."""
        if self.mirror is not None:
            self.mirror.publish([path for path in paths if path.is_relative_to(self.path) and path.exists()])

    def push_soon(self) -> None:
        """Something has happened that an object store is to know."""
        if self.mirror is not None:
            self.mirror.push_soon()

    def remove(self, path: Path) -> None:
        """Remove one of its files, where there is one.  Raises StoreError."""
        if self.mirror is None:
            path.unlink(missing_ok=True)
        else:
            self.mirror.remove(path)

    def is_running(self) -> bool:
        """Whether some process holds the run's lock."""
        return is_locked(self.path) if self.mirror is None else self.mirror.is_running()

    def running_beside(self) -> list[str]:
        """The other runs in its storage, confirmations too, that a process runs: on this machine, or on one whose locks
        the file system shows here."""
        within = (self.path.parent / LEDGER).exists()  # a confirmation is a folder of its run
        root = self.path.parent.parent if within else self.path.parent
        locked = [lock.parent for pattern in ("*/.lock", "*/*/.lock") for lock in root.glob(pattern)]
        return sorted(str(path.relative_to(root)) for path in locked if path != self.path and is_locked(path))

    def check_free(self) -> None:
        """Raise UsageError where a process on this machine runs it, before anything is done towards `locked`."""
        self.check_place()
        if is_locked(self.path):
            raise UsageError(self._taken)

    def check_place(self) -> None:
        """Raise UsageError where there can be no such directory."""
        there = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not there.is_dir():
            raise UsageError(f"run directory {self.path}: {there} is no directory")
        if not os.access(there, os.W_OK):
            raise UsageError(f"run directory {self.path}: {there} cannot be written")

    @property
    def _taken(self) -> str:
        path = self.path / ".lock"
        owner = path.read_text(encoding="utf-8") or "another process"
        elsewhere = " on " in owner and not owner.endswith(f" on {socket.gethostname()}")
        cure = f"; where that machine is gone for good, remove {path}" if elsewhere else ""  # NFS may keep its lock
        return f"run {self.name}: {owner} is running it ({self}){cure}"

    @contextmanager
    def locked(self, say: Callable[[str], None] = _ignore, trouble: Callable[[str], None] = _ignore) -> Iterator[None]:
        """Make the directory and hold it alone: two drivers of one run would write over each other.

        The lock is the kernel's and goes with the process that holds it, however it dies.  On an object store, see
        `Mirror.held`, who also tells `say` and `trouble` of it.
        Raises UsageError where another process holds it, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise UsageError(f"run directory {self.path}: cannot be written ({error.strerror})") from error
        with lock:
            if not _take(lock):
                raise UsageError(self._taken)
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            with nullcontext() if self.mirror is None else self.mirror.held(say, trouble):
                yield


def _take(lock: IO[str]) -> bool:
    """Whether it could be taken, within ASKED_S seconds."""
    deadline = time.monotonic() + ASKED_S
    while not locks.lock(lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def at(storage: Path | Store, name: str) -> RunDir:
    """The run of this name under the storage, whether or not it exists."""
    if isinstance(storage, Path):
        return RunDir(storage / name)
    run = storage / name
    path = working_copy(run)
    return RunDir(path, Mirror(path, run))


def find(run: str, storage: Path | Store, benchmarks: bool = False) -> RunDir:
    """A run by its directory or URI or by its name under the storage, fetched where it lies on an object store.

    `benchmarks`: whether it may be a benchmark.
    Raises UsageError where there is none.
    """
    if not run:
        raise UsageError("RUN is empty: give the name of a run, its directory or its URI")
    if "://" in run:
        asked = parse(run)
        assert isinstance(asked, Store)
        if "/" not in asked.root:
            raise UsageError(f"run {run}: a run is a folder of a bucket, as s3://bucket/folder/name")
        return find(asked.name, asked.parent, benchmarks)
    files = (LEDGER, BENCHMARK) if benchmarks else (LEDGER,)
    path = expanded(Path(run)) if run.startswith("~") else Path(run)
    if _has(path, files):
        return RunDir(path.absolute())
    if isinstance(storage, Path):
        if _has(storage / run, files):
            return RunDir((storage / run).absolute())
        if _has(path, (ROWS, BENCHMARK)) or _has(storage / run, (ROWS, BENCHMARK)):
            raise UsageError(f"run {run}: is a benchmark, no search; once it has ended, `report` shows it")
        known: Sequence[str] = sorted({path.parent.name for name in files for path in storage.glob(f"*/{name}")})
    else:
        known = storage.folders_with(*files)
        if run in known:
            found = at(storage, run)
            found.fetch()
            return found
    have = f"; runs under {storage}: {', '.join(known)}" if known else f"; there are no runs under {storage}"
    places = (path, *([storage / run] if isinstance(storage, Path) else []))
    there = next((place for place in places if place.is_dir()), None)
    why = f"{there} has no {' or '.join(files)}" if there else "no run directory of that path or name"
    raise UsageError(f"run {run}: {why}{have}")


def _has(path: Path, files: Sequence[str]) -> bool:
    return any((path / name).is_file() for name in files)

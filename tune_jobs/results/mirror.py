"""The working copy of a run whose home is an object store: fetched when a command needs it, pushed while it runs.

The store's copy is the truth, with one exception.  The record (a search's ledger, a benchmark's rows) is only ever
added to: where the one here begins with the store's and goes on, nobody has run it elsewhere since a driver here died,
and the copy here is the truth.

The study is read before the ledger and written after it, so that the store's ledger always knows as much as its study.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from datasets import cache
from tune_jobs.errors import UsageError
from tune_jobs.results import locks
from tune_jobs.results.atomic import LEDGER, ROWS, STUDY, write_bytes
from tune_jobs.results.lease import Lease, is_held
from tune_jobs.storage import Found, Store, StoreError

PUSH_S = 5
"""What has changed is pushed so often, where that takes no longer than half a second; a driver lost with its machine
loses at most the ledger lines since."""
SOON_S = 1
"""After a trial's end it is pushed at once, but not more often than this."""
REST, MOST_REST_S = 9, 60
"""After a push follows a rest of so many times as long, up to a minute: ledger and study go whole, and of thousands of
trials over a slow line each push takes seconds."""
RECORDS = (LEDGER, ROWS)
"""Of a search and of a benchmark: a run has one of them."""
FIRST = ("environment.json", "experiment.yaml")
"""Pushed before its record: a run that has trials is not taken up without them."""
_ONLY_HERE = (
    *(".*", "*.lock", "*.rename"),  # locks, Optuna's too: elsewhere they would look held
    *("*.pkl", "experiment_state-*.json", "search_gen_state-*.json"),  # Ray's own
    "checkpoints",  # workers write those themselves
)
"""Names of files and folders that are not mirrored."""
_UNPUSHED = ".unpushed"
"""Marks a working copy whose record the store has never had: what it holds is not what was removed there."""
_ONLY_THERE = ("*.tfevents.*", "*.safetensors")
"""Pushed, but not fetched: no command reads them."""


class Mirror:
    """A working copy and its run in the store."""

    def __init__(self, local: Path, store: Store) -> None:
        self.store = store
        self._local = local
        self._known: dict[str, tuple[int, int]] = {}
        """Name -> size and time of the file here that the store has too."""
        self._fetched: dict[str, Found] = {}
        """Of the records, what `fetch_record` found last."""
        self._wake = threading.Event()

    def fetch(self) -> None:
        """Bring the working copy up to date, unless a process here runs the run.  Raises StoreError."""
        with self._alone():
            if not is_locked(self._local):
                self._fetch()

    def fetch_record(self) -> None:
        """Bring the record alone up to date, where there is more of it, unless a process here writes it.

        Raises StoreError.
        """
        with self._alone():
            if is_locked(self._local):
                return
            for name in RECORDS:
                there = self.store.find(name)
                if there is None or there == self._fetched.get(name):
                    continue
                data = self.store.read(name)
                if data is not None and not self._is_ahead(name, data):
                    write_bytes(self._local / name, data)
                self._fetched[name] = there

    def is_running(self) -> bool:
        """Whether some driver, here or elsewhere, seems to run it."""
        return is_locked(self._local) or is_held(self.store)

    @contextmanager
    def held(self, say: Callable[[str], None], trouble: Callable[[str], None]) -> Iterator[None]:
        """Hold the run in the store and mirror it until the block ends; the working copy's own lock is held already.

        `trouble` is told, maybe from another thread, where the lease is lost or the last of it cannot be pushed.
        Raises UsageError where a living driver has the run.
        """
        lease = Lease(self.store, self._local / ".claim")
        lease.take(say, trouble)
        end = threading.Event()
        pushes = threading.Thread(target=self._keep_pushing, args=(lease, end), name="mirror", daemon=True)
        try:
            with self._alone():
                self._fetch()
            pushes.start()
            yield
        finally:
            end.set()
            self._wake.set()
            fetched = pushes.ident is not None  # else what is here is not to overwrite what is there
            if fetched:
                pushes.join()
            rest = f"what is not there yet is in {self._local}"
            try:
                if fetched and lease.held():
                    self._push()
                elif fetched and not lease.is_lost:
                    trouble(f"run {self.store.name}: this driver was held up for too long; {rest}")
            except (StoreError, OSError) as error:
                trouble(f"{error}; {rest}")
            with suppress(StoreError):  # then it goes stale
                lease.give_back()

    def push_soon(self) -> None:
        """Something has happened that is worth a push."""
        self._wake.set()

    def publish(self, paths: list[Path]) -> None:
        """Push these files, which need no lock: each is whole in itself.  Raises StoreError."""
        for path in paths:
            self.store.write(self._name(path), path.read_bytes())

    def remove(self, path: Path) -> None:
        """Remove a file here and there.  Raises StoreError."""
        path.unlink(missing_ok=True)
        self._known.pop(self._name(path), None)
        self.store.delete(self._name(path))

    def _fetch(self) -> None:
        self._known.clear()
        there = _mirrored(self.store.list())
        record = next((name for name in RECORDS if name in there), None)
        unpushed = self._local / _UNPUSHED
        if record is None:
            if unpushed.exists() and self._has_record():
                return  # a driver here died before its first push
            self._put_aside()
            unpushed.touch()
        else:
            unpushed.unlink(missing_ok=True)
            if self._is_ahead(record, self.store.read(record) or b""):
                return
        for name in (STUDY, LEDGER, *(name for name in there if name not in (STUDY, LEDGER))):
            path = self._local / name
            if name not in there or _is_one_of(_ONLY_THERE, name):
                continue
            data = self.store.read(name)
            if data is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, data)
                self._known[name] = _stamp(path)
        for name, path in self._here().items():
            if _is_one_of(_ONLY_THERE, name):
                if name in there and path.stat().st_size == there[name].size:
                    self._known[name] = _stamp(path)
                elif name.endswith(".safetensors"):
                    path.unlink()  # another config's weights
            elif name not in there:
                path.unlink()

    def _is_ahead(self, record: str, there: bytes) -> bool:
        path = self._local / record
        if not path.exists():
            return False
        here = _whole_lines(path.read_bytes())
        return len(here) > len(there) and here.startswith(there)

    def _has_record(self) -> bool:
        return any((self._local / record).exists() for record in RECORDS)

    def _put_aside(self) -> None:
        """The store has no such run: what one that was removed there left here is kept under another name, once."""
        if not self._has_record():
            return
        aside = self._local.with_name(f".{self._local.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for path in self._local.iterdir():
            if not path.name.startswith("."):  # the locks are in use
                path.rename(aside / path.name)

    def _keep_pushing(self, lease: Lease, end: threading.Event) -> None:
        rest_s: float = SOON_S
        while not end.wait(rest_s):
            self._wake.wait(PUSH_S - SOON_S)
            self._wake.clear()
            began, rest_s = time.monotonic(), SOON_S
            try:
                if lease.held():
                    self._push()
                    rest_s = min(max(SOON_S, REST * (time.monotonic() - began)), MOST_REST_S)
            except (StoreError, OSError):
                continue  # next time; the lease gives up where the store stays away

    def _push(self) -> None:
        changed = {name: path for name, path in self._here().items() if self._known.get(name) != _stamp(path)}
        appended = {name: (_stamp(changed[name]), _whole_lines(changed[name].read_bytes()))
                    for name in (STUDY, *RECORDS) if name in changed}  # fmt: skip
        for name in (*FIRST, *RECORDS, STUDY, *sorted(changed.keys() - {*FIRST, *RECORDS, STUDY})):
            if name not in changed:
                continue
            stamp, data = appended.get(name) or (_stamp(changed[name]), changed[name].read_bytes())
            if name in RECORDS and not data:
                continue  # any other would look as if it went on from it
            self.store.write(name, data)
            self._known[name] = stamp
            if name in RECORDS:
                (self._local / _UNPUSHED).unlink(missing_ok=True)

    def _here(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder, folders, files in os.walk(self._local):
            here = Path(folder)
            if here != self._local and (LEDGER in files or ".lock" in files):  # a run within the run mirrors itself
                folders.clear()
                continue
            folders[:] = [name for name in folders if not _is_one_of(_ONLY_HERE, name)]
            found |= {self._name(here / name): here / name for name in files if not _is_one_of(_ONLY_HERE, name)}
        return found

    def _name(self, path: Path) -> str:
        return path.relative_to(self._local).as_posix()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time fetches on this machine."""
        try:
            self._local.mkdir(parents=True, exist_ok=True)
            lock = (self._local / ".fetch.lock").open("w")
        except OSError as error:
            raise UsageError(f"working copy {self._local}: cannot be written ({error.strerror})") from error
        with lock:
            locks.lock(lock, wait=True)
            yield


def is_locked(path: Path) -> bool:
    """Whether a process on this machine holds the lock of the run directory."""
    try:
        with (path / ".lock").open() as lock:
            return not locks.lock(lock, shared=True)
    except (FileNotFoundError, NotADirectoryError):
        return False


def working_copy(store: Store) -> Path:
    """Where a run in the store is worked on: a folder of the cache that may be removed while nothing runs there.

    Raises DataError where there is no place for a cache.
    """
    endpoint = dict(store.options).get("endpoint_override", "")
    home = f"{store.scheme} {store.parent.root} {endpoint}"
    return cache.folder() / "runs" / hashlib.sha256(home.encode()).hexdigest()[:16] / store.name


def _mirrored(there: dict[str, Found]) -> dict[str, Found]:
    """Of a run's objects those that belong to the working copy: no runs within the run, no name that climbs out."""
    inner = tuple(
        name.removesuffix(LEDGER) if name.endswith(LEDGER) else name.partition(".lock/")[0]
        for name in there
        if name.endswith(f"/{LEDGER}") or "/.lock/" in name
    )
    return {
        name: found
        for name, found in there.items()
        if not name.startswith(inner)
        and not any(part in ("", "..") or _is_one_of(_ONLY_HERE, part) for part in name.split("/"))
    }


def _is_one_of(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _stamp(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_size, info.st_mtime_ns


def _whole_lines(data: bytes) -> bytes:
    """Without a last line that is still being written."""
    return data[: data.rfind(b"\n") + 1]

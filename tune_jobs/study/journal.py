"""The file that a run's Optuna study is kept in: Optuna's journal, a JSON line a change."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from tune_jobs.errors import UsageError
from tune_jobs.interruption import room


class Journal(BaseJournalBackend):
    """A journal file as Optuna's own JournalFileBackend writes and reads it, under the same lock, which is safe on one
    machine and on NFS.

    It differs in what it costs a search of many trials.  A line reaches the operating system before the call returns,
    as the ledger's do, but does not wait for the disk: what a machine that dies takes with it is made again from the
    ledger.  Where nothing is new, nothing is read.  And it remembers where it stopped, not where each line begins.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = JournalFileSymlinkLock(str(path))
        self._lines = self._bytes = 0
        path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The lines from this one on, from 0; one that is half written is left for the next time."""
        if log_number_from != self._lines:
            self._lines = self._bytes = 0
        if self._path.stat().st_size == self._bytes:
            return
        with self._path.open("rb") as file:
            file.seek(self._bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._lines, self._bytes = self._lines + 1, self._bytes + len(line)
                if self._lines > log_number_from:
                    yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines.  Raises DiskFull where there is no room, else OSError; nothing of them is written then."""
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._acquire()
        try:
            with room(), self._path.open("ab", buffering=0) as file:
                whole = file.seek(0, os.SEEK_END)
                try:
                    while data:
                        data = data[file.write(data) :]
                except OSError:  # a full disk may take a part of it
                    file.truncate(whole)
                    raise
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        """Raises UsageError where the lock, a symbolic link, cannot be."""
        try:
            self._lock.acquire()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise UsageError(
                f"{self._path}: the file system there has no symbolic links ({error.strerror}), by which Optuna locks "
                "a study; give a storage on another one (exFAT and some SMB shares have none)"
            ) from error

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend

from tune_jobs.errors import UsageError
from tune_jobs.interruption import DiskFull
from tune_jobs.study.journal import Journal

LOGS: list[dict[str, Any]] = [
    {"op_code": 0, "name": "one"},
    {"op_code": 1, "value": 0.5},
    {"op_code": 2, "other": None},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "optuna.journal"


def test_journal_is_the_file_that_optuna_itself_writes_and_reads(path: Path, tmp_path: Path) -> None:
    journal, optunas = Journal(path), JournalFileBackend(str(tmp_path / "optunas"))
    for logs in (LOGS[:2], LOGS[2:]):
        journal.append_logs(logs)
        optunas.append_logs(logs)
    assert path.read_bytes() == (tmp_path / "optunas").read_bytes()
    assert list(JournalFileBackend(str(path)).read_logs(1)) == list(Journal(path).read_logs(1)) == LOGS[1:]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["optuna.journal", "optunas"]  # and no lock is left


def test_read_logs_goes_on_where_it_stopped_also_behind_anothers_lines(path: Path) -> None:
    journal = Journal(path)
    journal.append_logs(LOGS[:1])
    assert list(journal.read_logs(0)) == LOGS[:1]
    assert list(journal.read_logs(1)) == []
    JournalFileBackend(str(path)).append_logs(LOGS[1:])
    assert list(journal.read_logs(1)) == LOGS[1:]
    assert list(journal.read_logs(0)) == LOGS
    assert list(journal.read_logs(2)) == LOGS[2:]


def test_read_logs_leaves_a_half_written_line_for_the_next_time(path: Path) -> None:
    journal = Journal(path)
    path.write_bytes(b'{"op_code":0,"name":"one"}\n{"op_code":1,')
    assert list(journal.read_logs(0)) == LOGS[:1]
    with path.open("ab") as file:
        file.write(b'"value":0.5}\n')
    assert list(journal.read_logs(1)) == LOGS[1:2]


def test_read_logs_of_a_line_that_was_not_taken_goes_on_behind_it(path: Path) -> None:
    """Optuna's storage stops in the middle where a line of its own is refused."""
    journal = Journal(path)
    journal.append_logs(LOGS)
    assert next(journal.read_logs(0)) == LOGS[0]
    assert list(journal.read_logs(1)) == LOGS[1:]


def test_read_logs_opens_no_file_that_has_not_grown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.append_logs(LOGS)
    assert list(journal.read_logs(0)) == LOGS
    path.chmod(0)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("it was opened"))
    assert list(journal.read_logs(3)) == []


def test_append_logs_on_a_full_disk_leaves_the_search_and_no_torn_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    journal.append_logs(LOGS[:1])
    before = path.read_bytes()

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if len(data) > 5:
                return super().write(data[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda own, *_, **__: Full(own, "ab"))
    long = [{"op_code": 1, "value": 1}]
    with pytest.raises(DiskFull, match="full disk \\(No space left on device\\)"):
        journal.append_logs(long)
    monkeypatch.undo()
    assert path.read_bytes() == before
    journal.append_logs(LOGS[1:])
    assert list(journal.read_logs(0)) == LOGS


def test_a_file_system_without_symbolic_links_is_told_in_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", source)

    journal = Journal(path)
    monkeypatch.setattr(os, "symlink", refused)
    with pytest.raises(UsageError) as error:
        journal.append_logs(LOGS)
    said = f"{path}: the file system there has no symbolic links (Operation not permitted)"
    assert str(error.value).startswith(said)

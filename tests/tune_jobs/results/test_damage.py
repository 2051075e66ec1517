from __future__ import annotations

from pathlib import Path

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.results.damage import check_readable, told
from tune_jobs.results.ledger import Ledger, read


def test_a_first_line_that_was_cut_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text('{"time": 1')
    check_readable(path, read(path))
    assert told(path) == ""
    Ledger(path).close()
    assert path.read_text() == ""
    path.write_text("\0\0")
    with pytest.raises(UsageError, match="no line of it is whole"):
        check_readable(path, read(path))


def test_damage_counts_what_is_lost_and_not_a_line_that_is_being_written(tmp_path: Path) -> None:
    path, run = tmp_path / "trials.jsonl", tmp_path.name
    assert told(path) == ""
    ledger = Ledger(path)
    ledger.append("00000", "state", state="WAITING", config={"model": "mlp"})
    ledger.append("00000", "weather", temperature=20)  # of a newer version
    with path.open("a") as file:
        file.write('{"time": 1')
    assert told(path) == ""
    Ledger(path).append("00000", "state", state="RUNNING", attempt=1)
    assert told(path) == ""
    with path.open("a") as file:
        file.write("\0\0\n")
    assert told(path).startswith(f"run {run}: 1 line of trials.jsonl is damaged and passed over")
    with path.open("a") as file:
        file.write('{"time": 1, "trial": "00000", "event": "state"}\n' + "\0\0")
    assert told(path).startswith(f"run {run}: 3 lines of trials.jsonl are damaged and passed over")
    assert read(path)["00000"].state == "RUNNING"

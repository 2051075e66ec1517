from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tune_jobs.interruption import DiskFull
from tune_jobs.results import ledger
from tune_jobs.running.record import Record

CONFIG = {"model": "mlp", "lr": 0.1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.jsonl"


def test_what_is_written_is_what_a_driver_that_takes_it_up_reads(path: Path) -> None:
    record = Record(path, {}, 3)
    first, second = (record.add(number, None, CONFIG) for number in (0, 1))
    record.write(first, "state", state="RUNNING", attempt=1, request={"cpu": 1.0})
    record.write(first, "epoch", attempt=1, epoch=1, val_accuracy=0.5)
    record.write(second, "state", state="COMPLETE", wall_time_s=1.0, result={"val_accuracy": 0.9})
    assert record.unfinished() == [first]
    assert (record.finished, record.total) == (1, 3)
    record.close()
    again = Record(path, ledger.read(path), 3)
    assert again.trials == record.trials == {"00000": first, "00001": second}
    assert again.states == record.states == {"RUNNING": 1, "COMPLETE": 1, "WAITING": 0}
    again.close()


def test_repeats_stand_in_their_order_whichever_is_written_down_first(path: Path) -> None:
    record = Record(path, {}, 4)
    for fold in (2, 0, 1):
        record.add(7, fold, CONFIG | {"seed": fold})
    assert [own.id for own in record.groups[7]] == ["00007-0", "00007-1", "00007-2"]
    assert list(record.trials) == ["00007-2", "00007-0", "00007-1"]
    assert record.group(record.trials["00007-2"]) is record.groups[7]


def test_what_a_full_disk_does_not_take_was_never_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(path, {}, 1)
    own = record.add(0, None, CONFIG)

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskFull, match="full disk"):
        record.write(own, "state", state="RUNNING", attempt=1)
    assert (own.state, record.states) == ("WAITING", {"WAITING": 1})
    assert ledger.read(path) == record.trials

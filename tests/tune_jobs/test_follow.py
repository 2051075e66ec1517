"""A run watched from its ledger while another process writes it."""

from __future__ import annotations

import io
import math
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tune_jobs import follow, yaml
from tune_jobs.experiment import check
from tune_jobs.results.ledger import Ledger, Tail
from tune_jobs.results.rundir import RunDir

RESULT: dict[str, Any] = {"val_accuracy": 0.9, "train_time_s": 1.0}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir(tmp_path / "watched")
    found.path.mkdir()
    experiment = check({"name": "watched", "dataset": {"name": "digits"}, "train": {"model": "mlp"}})
    found.experiment.write_text(yaml.dump(experiment.document(), "Made for a test."))
    return found


def epoch(record: Ledger, trial: str, number: int, accuracy: float) -> None:
    record.append(trial, "epoch", attempt=1, epoch=number, train_loss=0.5, val_loss=0.25, val_accuracy=accuracy)


def test_tail_leaves_a_half_line_for_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    whole = '{"time": 1, "trial": "0", "event": "state", "state": "RUNNING"}\n'
    path.write_text(whole + whole[:20])
    assert [event["state"] for event in tail.read()] == ["RUNNING"]
    assert tail.read() == []
    path.write_text(whole + whole)
    assert len(tail.read()) == 1


def test_tail_of_a_file_that_became_shorter_begins_again(tmp_path: Path) -> None:
    """A run on an object store that was taken up without the last lines of a driver that was lost."""
    path = tmp_path / "trials.jsonl"
    line = '{"time": 1, "trial": "0", "event": "state", "state": "RUNNING"}\n'
    tail = Tail(path)
    path.write_text(line * 3)
    assert (len(tail.read()), tail.is_anew) == (3, False)
    path.write_text(line)
    assert (len(tail.read()), tail.is_anew) == (1, True)
    assert (tail.read(), tail.is_anew) == ([], False)


def test_board_has_a_row_for_each_running_trial_the_best_and_the_time_left(run: RunDir) -> None:
    record = Ledger(run.ledger)
    for number, lr in enumerate((0.1, 0.2, 0.3, 0.4)):
        record.append(f"0000{number}", "state", state="WAITING", config={"model": "mlp", "lr": lr, "epochs": 5})
    record.append("00000", "state", state="RUNNING", attempt=1)
    record.append("00000", "state", state="COMPLETE", wall_time_s=40.0, result=RESULT)
    record.append("00001", "state", state="RUNNING", attempt=1)
    record.append("00002", "state", state="RUNNING", attempt=1)
    epoch(record, "00001", 3, 0.5)
    board = follow.Board(run, check(yaml.read(run.experiment)))
    assert [(trial.id, finished) for trial, finished in board.read()] == [("00000", 1)]
    assert (board.finished, board.total, board.best) == (1, 4, 0.9)
    assert board.left_s == 40 * 3 / 2
    out = Console(file=io.StringIO(), width=120)
    out.print(board)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "1/4 trials" in text
    assert "about 1:00 left" in text
    assert "best val 90.00%" in text
    assert re.search(r"00001 +0\.2 +3/5 +0\.5 +0\.25 +50\.00%", text)
    assert re.search(r"00002 +0\.3 +0/5 +– +– +–", text)
    assert "00003" not in text


def test_board_of_nothing_knows_nothing(run: RunDir) -> None:
    board = follow.Board(run, check(yaml.read(run.experiment)))
    assert board.read() == []
    assert math.isnan(board.left_s)
    assert math.isnan(board.best)


def test_watch_writes_a_line_a_trial_until_the_run_ends(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    record = Ledger(run.ledger)
    for trial in ("00000", "00001"):
        record.append(trial, "state", state="WAITING", config={"model": "mlp"})
        record.append(trial, "state", state="RUNNING", attempt=1)
    out = Console(file=io.StringIO(), width=200)
    held, release = threading.Event(), threading.Event()

    def search() -> None:
        with run.locked():
            held.set()
            record.append("00000", "state", state="COMPLETE", wall_time_s=1.0, result=RESULT)
            release.wait(60)
            record.append("00001", "state", state="WAITING", failure="worker_crashed", reason="gone")
            record.append("00001", "state", state="RUNNING", attempt=2)
            record.append("00001", "state", state="FAIL", wall_time_s=1.0, failure="error", reason="no")

    searching = threading.Thread(target=search)
    searching.start()
    assert held.wait(60)
    watching = threading.Thread(target=follow.watch, args=(run, out))
    watching.start()
    watching.join(0.5)
    assert watching.is_alive()  # the other process holds the run
    release.set()
    searching.join(60)
    watching.join(60)
    assert not watching.is_alive()
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "run watched: 1 of 2 trials finished" or lines[1].startswith("[1/2] 00000 COMPLETE")
    assert lines[-2:] == [
        "[1/2] 00001 WAITING  model=mlp  worker_crashed: gone; attempt 2 follows",
        "[2/2] 00001 FAIL  model=mlp  error: no",
    ]


def test_watch_waits_for_a_search_that_is_about_to_take_the_run_up(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    monkeypatch.setattr(follow, "START_S", 60.0)
    record = Ledger(run.ledger)
    record.append("00000", "state", state="WAITING", config={"model": "mlp"})
    out = Console(file=io.StringIO(), width=200)
    seen = threading.Event()
    is_running = RunDir.is_running

    def asked(self: RunDir) -> bool:
        running = is_running(self)
        if running:
            seen.set()
        return running

    monkeypatch.setattr(RunDir, "is_running", asked)
    watching = threading.Thread(target=follow.watch, args=(run, out))
    watching.start()
    watching.join(0.3)
    assert watching.is_alive()
    with run.locked():
        assert seen.wait(30)
        record.append("00000", "state", state="COMPLETE", wall_time_s=1.0, result=RESULT)
    watching.join(30)  # not the sixty seconds
    assert not watching.is_alive()
    assert out.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "run watched: 0 of 1 trials finished",
        "nothing runs it now; waiting 60 s for a search that takes it up",
        "[1/1] 00000 COMPLETE  model=mlp  val 90.00%  train 1.0 s",
    ]


@pytest.mark.parametrize("state", ["WAITING", "COMPLETE"])
def test_watch_of_a_run_that_nobody_takes_up_ends(state: str, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    monkeypatch.setattr(follow, "START_S", 0.05)
    record = Ledger(run.ledger)
    record.append("00000", "state", state=state, config={"model": "mlp"}, result=RESULT)
    out = Console(file=io.StringIO(), width=200)
    follow.watch(run, out)
    told = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(told) == (2 if state == "WAITING" else 1)
    assert told[-1].startswith("nothing runs it now" if state == "WAITING" else "run watched: 1 of 1")

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tune_jobs.results.report.timeline import Attempt, attempts, lanes, overlap


def write(path: Path, *lines: tuple[float, str, dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"time": time, "trial": trial} | event) + "\n" for time, trial, event in lines))
    return path


def state(name: str, **more: Any) -> dict[str, Any]:
    return {"event": "state", "state": name} | more


def epoch(number: int) -> dict[str, Any]:
    return {"event": "epoch", "attempt": 1, "epoch": number, "val_accuracy": 0.5}


def test_attempts_have_their_start_and_end(tmp_path: Path) -> None:
    path = write(
        tmp_path / "trials.jsonl",
        (0.0, "00000", state("WAITING", config={})),
        (1.0, "00000", state("RUNNING", attempt=1)),
        (2.0, "00001", state("RUNNING", attempt=1)),
        (3.0, "00000", state("WAITING", failure="worker_crashed")),
        (4.0, "00000", state("RUNNING", attempt=2)),
        (6.0, "00001", state("FAIL")),
        (9.0, "00000", state("COMPLETE")),
    )
    assert attempts(path) == [
        Attempt("00000", 1, 1.0, 3.0, "WAITING"),
        Attempt("00001", 1, 2.0, 6.0, "FAIL"),
        Attempt("00000", 2, 4.0, 9.0, "COMPLETE"),
    ]


def test_attempts_of_a_dead_driver_end_with_the_last_that_was_heard(tmp_path: Path) -> None:
    path = write(
        tmp_path / "trials.jsonl",
        (1.0, "00000", state("RUNNING", attempt=1)),
        (5.0, "00000", epoch(1)),
        (90.0, "00000", state("RUNNING", attempt=2)),
        (95.0, "00000", epoch(1)),
    )
    assert [(a.start, a.end, a.state) for a in attempts(path)] == [(1.0, 5.0, "RUNNING"), (90.0, 95.0, "RUNNING")]


def test_lanes_are_as_many_as_ran_at_once() -> None:
    ordered = [Attempt(str(i), 1, start, end, "COMPLETE") for i, (start, end) in enumerate(
        [(0, 10), (1, 3), (3, 5), (4, 8), (6, 7), (10, 11)]
    )]  # fmt: skip
    assert lanes(ordered) == [0, 1, 1, 2, 1, 0]
    assert overlap(ordered)


def test_trials_one_after_another_do_not_overlap() -> None:
    assert not overlap([Attempt("0", 1, 0, 1, "COMPLETE"), Attempt("1", 1, 1, 2, "COMPLETE")])
    assert not overlap([])

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


def test_attempts_say_where_they_ran(tmp_path: Path) -> None:
    place = {"event": "place", "attempt": 1, "node": "10.0.0.7", "slot": 1, "cards": ["3"]}
    path = write(
        tmp_path / "trials.jsonl",
        (1.0, "00000", state("RUNNING", attempt=1)),
        (1.5, "00000", place),
        (2.0, "00000", epoch(1)),
        (3.0, "00000", state("WAITING", failure="worker_crashed")),
        (4.0, "00000", state("RUNNING", attempt=2)),
        (5.0, "00000", state("FAIL")),
    )
    assert attempts(path) == [
        Attempt("00000", 1, 1.0, 3.0, "WAITING", "10.0.0.7", 1, ("3",)),
        Attempt("00000", 2, 4.0, 5.0, "FAIL"),
    ]


def at(trial: str, start: float, end: float, node: str | None = None, slot: int | None = None) -> Attempt:
    return Attempt(trial, 1, start, end, "COMPLETE", node, slot)


def shown(ordered: list[Attempt]) -> dict[str, list[str]]:
    return {lane.label: [attempt.trial for attempt in lane.attempts] for lane in lanes(ordered)}


def test_lanes_are_the_slots_that_the_ledger_names() -> None:
    # By their times alone, c would be in the lane of a.
    ordered = [at("a", 0, 2, "n", 0), at("b", 1, 9, "n", 1), at("c", 3, 4, "n", 2), at("d", 5, 6, "n", 0)]
    assert shown(ordered) == {"slot 0": ["a", "d"], "slot 1": ["b"], "slot 2": ["c"]}


def test_lanes_of_several_nodes_name_them_and_those_of_none_come_last() -> None:
    ordered = [at("a", 0, 2, "m", 1), at("b", 0, 9, "l", 0), at("c", 1, 3), at("d", 2, 4), at("e", 4, 5)]
    assert shown(ordered) == {
        "l, slot 0": ["b"], "m, slot 1": ["a"], "not told, 1": ["c", "e"], "not told, 2": ["d"],
    }  # fmt: skip


def test_lanes_of_an_old_ledger_are_as_many_as_ran_at_once() -> None:
    times = [(0, 10), (1, 3), (3, 5), (4, 8), (6, 7), (10, 11)]
    ordered = [at(str(i), start, end) for i, (start, end) in enumerate(times)]
    assert shown(ordered) == {"lane 1": ["0", "5"], "lane 2": ["1", "2", "4"], "lane 3": ["3"]}
    assert overlap(ordered)


def test_trials_one_after_another_or_on_different_nodes_do_not_overlap() -> None:
    assert not overlap([at("0", 0, 1), at("1", 1, 2)])
    assert not overlap([at("0", 0, 2, "l", 0), at("1", 1, 3, "m", 1)])
    assert overlap([at("0", 0, 2, "l", 0), at("1", 1, 3, "l", 1)])
    assert not overlap([])

from __future__ import annotations

from tune_jobs.keeping import Keeping
from tune_jobs.results.ledger import TrialRecord


def trial(own: str, accuracy: float, time_s: float = 1.0, state: str = "COMPLETE") -> TrialRecord:
    result = {"val_accuracy": accuracy, "train_time_s": time_s} if state == "COMPLETE" else {}
    return TrialRecord(own, {"model": "mlp", "lr": 0.1}, state, result=result)


def test_the_best_stay_as_best_yaml_would_choose_them() -> None:
    dropped: list[str] = []
    keeping = Keeping(2, dropped.append)
    for one in [trial("00000", 0.8), trial("00001", 0.9, 5.0), trial("00002", 0.9, 1.0), trial("00003", 0.85)]:
        keeping.finish([one])
    assert dropped == ["00000", "00003"]
    keeping.finish([trial("00004", 0.0, state="FAIL")])
    keeping.finish([trial("00005", 0.95)])
    assert dropped[2:] == ["00004", "00001"]


def test_of_repeats_the_first_of_the_best_mean_stays() -> None:
    dropped: list[str] = []
    keeping = Keeping(1, dropped.append)
    keeping.finish([trial("00000-0", 0.8), trial("00000-1", 0.99)])
    assert dropped == ["00000-1"]
    keeping.finish([trial("00001-0", 0.9), trial("00001-1", 0.9)])
    assert sorted(set(dropped)) == ["00000-0", "00000-1", "00001-1"]


def test_sweep_removes_what_a_dead_driver_left() -> None:
    dropped: list[str] = []
    keeping = Keeping(1, dropped.append)
    running = trial("00003", 0.0, state="WAITING")
    groups = [[trial("00000", 0.8)], [trial("00001", 0.9)], [trial("00002", 0.0, state="FAIL")], [running]]
    keeping.sweep([*groups, [trial("00004", 0.1)]], {"00000", "00001", "00002", "00003"})
    assert dropped == ["00000", "00002"]  # of 00004 there is nothing
    keeping.finish([trial("00003", 0.95)])
    assert dropped[2:] == ["00001"]


def test_none_stay_where_none_are_asked_for() -> None:
    dropped: list[str] = []
    Keeping(0, dropped.append).finish([trial("00000", 0.8)])
    assert dropped == ["00000"]

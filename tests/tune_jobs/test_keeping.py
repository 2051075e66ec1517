from __future__ import annotations

from tune_jobs.results.ledger import TrialRecord
from tune_jobs.running.keeping import Keeping


def trial(own: str, accuracy: float, time_s: float = 1.0, state: str = "COMPLETE") -> TrialRecord:
    result = {"val_accuracy": accuracy, "train_time_s": time_s} if state == "COMPLETE" else {}
    return TrialRecord(own, {"model": "mlp", "lr": 0.1}, state, result=result)


class Disk:
    """What is dropped, in order."""

    def __init__(self, *there: str) -> None:
        self.with_something = set(there)
        self.checkpoints: list[str] = []
        self.all: list[str] = []

    def there(self) -> set[str]:
        return self.with_something

    def drop(self, own_id: str) -> None:
        self.checkpoints.append(own_id)

    def drop_all(self, own_id: str) -> None:
        self.all.append(own_id)


def test_the_best_stay_as_best_yaml_would_choose_them() -> None:
    disk = Disk()
    keeping = Keeping(2, disk)
    for one in [trial("00000", 0.8), trial("00001", 0.9, 5.0), trial("00002", 0.9, 1.0), trial("00003", 0.85)]:
        keeping.finish([one])
    assert disk.all == ["00000", "00003"]
    keeping.finish([trial("00004", 0.0, state="FAIL")])
    keeping.finish([trial("00005", 0.95)])
    assert disk.all[2:] == ["00004", "00001"]
    assert disk.checkpoints == ["00000", "00001", "00002", "00005"]  # of each as it came among the best


def test_of_repeats_the_first_of_the_best_mean_stays() -> None:
    disk = Disk()
    keeping = Keeping(1, disk)
    keeping.finish([trial("00000-0", 0.8), trial("00000-1", 0.99)])
    assert disk.all == ["00000-1"]
    keeping.finish([trial("00002-0", 0.1), trial("00002-1", 0.1)])
    assert disk.all == ["00000-1", "00002-0", "00002-1"]  # what was dropped once is not dropped again
    keeping.finish([trial("00001-0", 0.9), trial("00001-1", 0.9)])
    assert sorted(set(disk.all)) == ["00000-0", "00000-1", "00001-1", "00002-0", "00002-1"]


def test_sweep_removes_what_a_dead_driver_left() -> None:
    disk = Disk("00000", "00001", "00002", "00003")
    keeping = Keeping(1, disk)
    running = trial("00003", 0.0, state="WAITING")
    groups = [[trial("00000", 0.8)], [trial("00001", 0.9)], [trial("00002", 0.0, state="FAIL")], [running]]
    keeping.sweep([*groups, [trial("00004", 0.1)]])
    assert disk.all == ["00000", "00002"]  # of 00004 there is nothing
    assert disk.checkpoints == ["00001"]
    keeping.finish([trial("00003", 0.95)])
    assert disk.all[2:] == ["00001"]


def test_none_stay_where_none_are_asked_for() -> None:
    disk = Disk()
    Keeping(0, disk).finish([trial("00000", 0.8)])
    assert disk.all == ["00000"]


def test_hold_keeps_the_weights_of_a_repeat_whose_config_is_not_finished() -> None:
    disk = Disk()
    keeping = Keeping(1, disk)
    keeping.hold(trial("00000-0", 0.8))
    keeping.hold(trial("00000-1", 0.0, state="FAIL"))
    assert (disk.checkpoints, disk.all) == (["00000-0"], ["00000-1"])

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tune_jobs.running import metrics
from tune_jobs.running.metrics import SERIES_AFTER_S, Metrics


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], float]:
    """(gauge, trial or state) -> its value."""
    found: dict[tuple[str, str], float] = {}

    class Gauge:
        def __init__(self, name: str, _: str, tag_keys: tuple[str, ...]) -> None:
            self._name, self._key = name, tag_keys[-1]

        def set(self, value: float, tags: dict[str, Any]) -> None:
            found[self._name, tags[self._key]] = value

    monkeypatch.setattr(metrics, "Gauge", Gauge)
    return found


def test_epoch_of_a_short_trial_makes_no_series_that_would_stay_for_ever(series: dict[tuple[str, str], float]) -> None:
    gauges = Metrics("run", images=100)
    epoch = {"val_accuracy": 0.5, "epoch_time_s": 2.0}
    gauges.epoch("00000", SERIES_AFTER_S - 0.1, epoch)
    assert series == {}
    gauges.epoch("00001", SERIES_AFTER_S, epoch)
    assert series == {
        ("tune_jobs_val_accuracy", "00001"): 0.5,
        ("tune_jobs_epoch_time_s", "00001"): 2.0,
        ("tune_jobs_images_per_s", "00001"): 50.0,
    }


def test_states_are_told_each_also_those_that_no_trial_is_in(series: dict[tuple[str, str], float]) -> None:
    Metrics("run", images=100).states(Counter(COMPLETE=3, WAITING=1))
    assert series == {
        ("tune_jobs_trials", "WAITING"): 1, ("tune_jobs_trials", "RUNNING"): 0, ("tune_jobs_trials", "COMPLETE"): 3,
        ("tune_jobs_trials", "PRUNED"): 0, ("tune_jobs_trials", "FAIL"): 0,
    }  # fmt: skip

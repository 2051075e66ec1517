"""What a worker tells of a checkpoint's epochs, without Ray."""

from __future__ import annotations

import pytest

from models.training import EpochMetrics
from tune_jobs.trial import _unheard

EPOCHS = [EpochMetrics(number, 1 / number, 1.0, 0.5, 0.1) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ([], [1, 2, 3, 4, 5]),
        ([1, 1 / 2, 1 / 3], [4, 5]),
        ([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], []),
        ([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6], []),  # trained behind the last checkpoint, and to be trained again
        ([1, 1 / 2, 0.4], [1, 2, 3, 4, 5]),  # of another training, which began again
    ],
)
def test_unheard_are_the_epochs_behind_the_ledger_s_own(known: list[float], told: list[int]) -> None:
    assert [metrics.epoch for metrics in _unheard(EPOCHS, known)] == told

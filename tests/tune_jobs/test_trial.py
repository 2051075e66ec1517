"""What a worker tells of a checkpoint's epochs, without Ray."""

from __future__ import annotations

import pytest

from models.result import EpochMetrics
from tune_jobs.trial import _unheard

EPOCHS = [EpochMetrics(number, 1 / number, 1.0, 0.5, 0.1) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("known", "loss", "told"),
    [
        (0, None, [1, 2, 3, 4, 5]),
        (3, 1.0, [4, 5]),
        (5, 1.0, []),
        (6, 1.0, []),  # trained behind the last checkpoint, and to be trained again
        (3, 0.4, [1, 2, 3, 4, 5]),  # of another training, which began again
    ],
)
def test_unheard_are_the_epochs_behind_the_ledger_s_own(known: int, loss: float | None, told: list[int]) -> None:
    assert [metrics.epoch for metrics in _unheard(EPOCHS, known, loss)] == told

from __future__ import annotations

import pytest

from tune_jobs import sharing
from tune_jobs.sharing import Sharing


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sharing, "time", clock)
    return clock


def test_leave_is_the_mean_number_of_others_at_the_same_place(clock: Clock) -> None:
    """a from 0 to 10, b from 4 to 8, c from 6 to 20 on one node; d elsewhere all the time."""
    counted, found = Sharing(), {}
    for now, trial, place in [
        (0, "a", "n"), (0, "d", "m"), (4, "b", "n"), (6, "c", "n"), (8, "b", None), (10, "a", None), (20, "c", None),
        (20, "d", None),
    ]:  # fmt: skip
        clock.now = now
        if place is None:
            found[trial] = counted.leave(trial)
        else:
            counted.enter(trial, place)
    assert found == {"a": (4 + 4) / 10, "b": (4 + 2) / 4, "c": (2 + 4) / 14, "d": 0.0}


def test_leave_of_one_that_was_nowhere_or_for_no_time(clock: Clock) -> None:
    counted = Sharing()
    assert counted.leave("a") is None
    counted.enter("b", "n")
    assert counted.leave("b") == 0.0

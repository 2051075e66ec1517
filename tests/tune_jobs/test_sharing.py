from __future__ import annotations

import pytest

from tune_jobs.running import sharing
from tune_jobs.running.sharing import Company, Sharing


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
            counted.enter(trial, place, [])
    assert found == {
        "a": Company((4 + 4) / 10, None), "b": Company((4 + 2) / 4, None), "c": Company((2 + 4) / 14, None),
        "d": Company(0.0, None),
    }  # fmt: skip


def test_leave_counts_all_on_the_node_and_apart_from_them_those_on_the_card(clock: Clock) -> None:
    """Quarters of card 0 and one of card 1, a trial on CPUs beside them, and a card 0 of another node."""
    counted = Sharing()
    for trial, node, cards in [
        ("a", "n", ["0"]), ("b", "n", ["0"]), ("c", "n", ["1"]), ("cpu", "n", []), ("other", "m", ["0"]),
    ]:  # fmt: skip
        counted.enter(trial, node, cards)
    clock.now = 10
    assert counted.leave("a") == Company(3.0, 1.0)
    clock.now = 20
    assert counted.leave("b") == Company((30 + 20) / 20, 0.5)
    assert counted.leave("c") == Company(2.5, 0.0)
    assert counted.leave("cpu") == Company(2.5, None)
    assert counted.leave("other") == Company(0.0, 0.0)


def test_leave_of_one_that_was_nowhere_or_for_no_time(clock: Clock) -> None:
    counted = Sharing()
    assert counted.leave("a") == Company(None, None)
    counted.enter("b", "n", [])
    assert counted.leave("b") == Company(0.0, None)

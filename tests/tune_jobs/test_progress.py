"""The time that is left, as a terminal shows it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tune_jobs.progress import Progress
from tune_jobs.results.ledger import TrialRecord


def ended(own: str, wall_time_s: float) -> TrialRecord:
    return TrialRecord(
        own,
        {"model": "mlp"},
        "COMPLETE",
        result={"val_accuracy": 0.5, "train_time_s": wall_time_s},
        wall_time_s=wall_time_s,
    )


@pytest.mark.parametrize(
    ("beside", "wall_times_s", "left"),
    [
        (0, [600], "about 0:10:00 left"),  # one at a time, and one is left
        (1, [600], "about 0:05:00 left"),
        (0, [300, 900], "about 0:10:00 left"),
    ],
)
def test_left_is_of_the_trials_before_and_as_many_at_once_as_now(
    beside: int, wall_times_s: list[float], left: str
) -> None:
    total = len(wall_times_s) + 1
    out = Console(file=io.StringIO(), force_terminal=True, width=120)
    progress = Progress(out, ["model"], total)
    for number in range(beside):
        progress.follow(TrialRecord(f"1000{number}", {"model": "mlp"}, "RUNNING"))
    for number, wall_time_s in enumerate(wall_times_s):
        own = ended(f"{number:05d}", wall_time_s)
        progress.follow(own)
        progress.tell(own, number + 1, total)
    out.print(progress._view())
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert left in shown.splitlines()[-1]


def test_nothing_is_left_at_the_end_and_nothing_known_at_the_beginning() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=120)
    progress = Progress(out, ["model"], 1)
    out.print(progress._view())
    progress.tell(ended("00000", 9.0), 1, 1)
    out.print(progress._view())
    assert " left" not in out.file.getvalue()  # type: ignore[attr-defined]

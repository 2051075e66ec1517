"""The time that is left, as a terminal shows it."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from tests.conftest import ROOT
from tune_jobs.console import is_live
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.running.progress import Progress


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


def test_a_terminal_that_draws_nothing_anew_gets_lines_as_a_log_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Console(file=io.StringIO(), force_terminal=True, width=120)
    assert not is_live(out)
    with Progress(out, ["model"], 1) as progress:
        progress.follow(TrialRecord("00000", {"model": "mlp"}, "RUNNING"))
    assert out.file.getvalue() == "00000 started  model=mlp\n"  # type: ignore[attr-defined]


_UNREAD = """
import time
from tune_jobs.console import console, say
from tune_jobs.running.progress import Progress

out = console(lasts=True)
input()
say(out, "a line")
with Progress(out, ["model"], 1) as progress:
    try:
        progress.say("a line")
        time.sleep(60)
    except KeyboardInterrupt:
        progress.say("a line")
        say(console(), "a line")
        raise SystemExit(4)
"""


def test_search_whose_output_nobody_reads_is_interrupted_once_and_still_ends_in_order() -> None:
    words = [sys.executable, "-c", _UNREAD]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == "note: nobody reads the output any more, so the search is interrupted\n"
    assert process.returncode == 4

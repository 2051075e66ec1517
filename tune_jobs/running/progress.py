"""What a person sees while a search runs.

In a log, a line an event: a trial has started, has finished, is tried again; how it gets on, now and then.  In a
terminal, the finished ones as lines, and below them a row a running trial and a bar with the time left.
"""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Self

import rich.progress
from rich.console import Console, Group
from rich.live import Live

from tune_jobs.console import config_text, console, is_live, running_table, say, trial_line
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.words import percent

EVERY_S = 30
"""In a log, a running trial says how it gets on at most this often."""


class Progress:
    """Told what happens, as `tune_jobs.running.listener.Listener`.  Used as a context manager around the search."""

    def __init__(
        self, out: Console, fields: Sequence[str], total: int, begun: Callable[[], None] | None = None
    ) -> None:
        """`begun` is called once, when the first trial has started: from there on this process mostly waits."""
        self._out = out
        self._is_live = is_live(out)
        self._is_unread = False
        self._begun = begun
        self._fields = fields
        self._best = math.nan
        self._best_id = ""
        self._running: dict[str, TrialRecord] = {}
        self._said: dict[str, float] = {}
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.completed}/{task.total} trials"),
            rich.progress.BarColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("{task.fields[left]}"),
            rich.progress.TextColumn("{task.description}"),
            console=out,
        )
        self._task = self._bar.add_task("", total=total, left="")
        self._times: list[float] = []
        """Seconds that each trial took which has finished since."""
        self._live = Live(console=out, get_renderable=self._view, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """A line about the search as a whole."""
        say(self._out, line)
        if self._out.quiet and not self._is_unread:  # `console(lasts=True)` has found that out
            self._is_unread = True
            note = "note: nobody reads the output any more, so the search is interrupted"
            say(console(stderr=True, lasts=True), note)
            signal.raise_signal(signal.SIGINT)

    def follow(self, trial: TrialRecord) -> None:
        """A trial has started, or trained an epoch."""
        if self._begun is not None:
            self._begun()
            self._begun = None
        new = trial.id not in self._running
        self._running[trial.id] = trial
        if self._is_live:
            return
        now = time.monotonic()
        if new:
            self._said[trial.id] = now
            again = f"attempt {trial.attempts}" if trial.attempts > 1 else "started"
            behind = f" behind epoch {trial.epochs[-1]['epoch']}" if trial.epochs else ""
            self.say(f"{trial.id} {again}{behind}  {config_text(trial.config, self._fields)}")
        elif now - self._said[trial.id] > EVERY_S:
            self._said[trial.id] = now
            epoch = trial.epochs[-1]
            how = f"epoch {epoch['epoch']} of {trial.config.get('epochs', 1)}  val {percent(epoch['val_accuracy'])}"
            self.say(f"{trial.id} {how}  {epoch['epoch_time_s']:.1f} s an epoch")

    def tell(self, trial: TrialRecord, finished: int, total: int) -> None:
        """A trial has just finished or is to be tried again; so many are finished; so many there are."""
        self._running.pop(trial.id, None)
        self.say(trial_line(trial, finished, total, self._fields))
        if trial.state == "COMPLETE" and not trial.result["val_accuracy"] <= self._best:
            self._best, self._best_id = trial.result["val_accuracy"], trial.id
        best = f"best val {percent(self._best)} ({self._best_id})" if self._best_id else ""
        if trial.finished and trial.wall_time_s is not None:
            self._times.append(trial.wall_time_s)
        self._bar.update(
            self._task, completed=finished, total=total, description=best, left=self._left(total - finished)
        )

    def _left(self, trials: int) -> str:
        """As `status --follow` reckons it: were all trials as long as those before and as many at once as now."""
        if not self._times or not trials:
            return ""
        left_s = statistics.fmean(self._times) * trials / (len(self._running) + 1)  # one has just ended
        return f"about {timedelta(seconds=round(left_s))} left"

    def _view(self) -> Group:
        return Group(running_table(list(self._running.values()), self._fields), self._bar)

"""A run watched from its ledger, by a process that has no part in it, on this machine or another."""

from __future__ import annotations

import contextlib
import math
import statistics
import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tune_jobs.console import is_live, running_table, say, trial_line
from tune_jobs.experiment import Experiment, repeats
from tune_jobs.results import ledger
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.rundir import RunDir
from tune_jobs.results.table import varied
from tune_jobs.results.words import percent
from tune_jobs.storage import StoreError

POLL_S = 1.0
FETCH_S = 5.0
"""So often a run on an object store is fetched."""
START_S = 30.0
"""A search that takes up a run is not seen in it until Ray is there; so long one is waited for."""


class Board:
    """What is known of a run now, brought up to date by `read`; rich shows it as a bar and a row a running trial."""

    def __init__(self, run: RunDir, experiment: Experiment) -> None:
        self._tail = ledger.Tail(run.ledger)
        self._asked = repeats.asked(experiment)
        self._trials: dict[str, TrialRecord] = {}
        self.finished = 0
        self._told: set[tuple[str, int, str]] = set()
        """Trials with attempt and state, of which nothing is told twice."""

    def read(self) -> list[tuple[TrialRecord, int]]:
        """The trials that have finished, or failed and wait to be tried again, since the last call; with each, how many
        were finished by then."""
        news = []
        events = self._tail.read()
        if self._tail.is_anew:
            self._trials.clear()
            self.finished = 0
        for event in events:
            own = self._trials.setdefault(event["trial"], TrialRecord(event["trial"]))
            was_finished = own.finished
            ledger.apply(own, event)
            self.finished += own.finished - was_finished
            ending = own.id, own.attempts, own.state
            if event["event"] == "state" and (own.finished or own.failure) and ending not in self._told:
                self._told.add(ending)
                news.append((TrialRecord(**vars(own)), self.finished))
        return news

    @property
    def total(self) -> int:
        """A grid's trials are all in the ledger from the start, a sampler's as they are asked for."""
        return max(len(self._trials), self._asked)

    @property
    def fields(self) -> list[str]:
        """Config fields in which the trials differ; `model` where none does."""
        return varied([trial.config for trial in self._trials.values()]) or ["model"]

    @property
    def left_s(self) -> float:
        """Seconds until the end, were all trials as long as those before and as many at once as now; NaN while nothing
        is known."""
        times = [t.wall_time_s for t in self._trials.values() if t.finished and t.wall_time_s is not None]
        running = sum(trial.state == "RUNNING" for trial in self._trials.values())
        if not times or not running:
            return math.nan
        return statistics.fmean(times) * (self.total - self.finished) / running

    @property
    def best(self) -> float:
        """The highest validation accuracy of a COMPLETE trial; NaN for none."""
        scores = [trial.result.get("val_accuracy") for trial in self._trials.values() if trial.state == "COMPLETE"]
        return max((score for score in scores if score is not None), default=math.nan)

    def __rich__(self) -> RenderableType:
        head = Table.grid(padding=(0, 1))
        left = "" if math.isnan(self.left_s) else f"about {_clock(self.left_s)} left"
        bar = ProgressBar(total=self.total, completed=self.finished, width=40)
        head.add_row(f"{self.finished}/{self.total} trials", bar, left, f"best val {percent(self.best)}")
        running = (trial for trial in self._trials.values() if trial.state == "RUNNING")
        return Group(head, running_table(running, self.fields))


def watch(run: RunDir, out: Console) -> None:
    """Show the run until no process runs it and no line is new, or the person interrupts.

    A run that has trials left and that nobody runs may be about to be taken up: that is waited for, START_S seconds.
    In a terminal, what runs now stands below the lines; in a log there is a line for each trial that finishes, as the
    search itself writes.
    """
    board = Board(run, run.read_experiment())
    running = run.is_running()  # asked first: what it wrote before it ended is read below
    board.read()
    say(out, f"run {run.name}: {board.finished} of {board.total} trials finished")
    shown = Live(board, console=out, transient=True) if is_live(out) else contextlib.nullcontext()
    with contextlib.suppress(KeyboardInterrupt), shown:
        if not running and board.finished < board.total:
            say(out, f"nothing runs it now; waiting {START_S:.0f} s for a search that takes it up")
            _wait(run)
        fetched, is_away = time.monotonic(), False
        while True:
            try:
                running = run.is_running()
                if not running:
                    run.fetch()
                elif time.monotonic() - fetched > FETCH_S:
                    run.fetch_ledger()
                    fetched = time.monotonic()
                is_away = False
            except StoreError as error:
                running = True  # as far as can be known
                if not is_away:
                    say(out, f"{error}; trying again")
                is_away = True
            news = board.read()
            for trial, finished in news:
                say(out, trial_line(trial, finished, board.total, board.fields))
            if not running and not news:
                return
            time.sleep(POLL_S)


def _wait(run: RunDir) -> None:
    """Return when somebody runs it, or after START_S seconds."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(StoreError):  # it is asked again
            if run.is_running():
                return
        time.sleep(POLL_S)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

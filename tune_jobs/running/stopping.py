"""Early stopping: which trials a scheduler of Ray Tune ends after an epoch."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

import models
from tune_jobs.experiment import Scheduler
from tune_jobs.results.ledger import TrialRecord, fold_of, number_of
from tune_jobs.running.median import MedianRule

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

METRIC, MODE = "val_accuracy", "max"


class EarlyStopping(FIFOScheduler):
    """Asks the scheduler that the experiment names, which knows each trial by its id in the ledger.

    So a trial that is started again is the same trial to it, and what a dead driver had been told is told it again
    from the ledger: it decides as if nothing had happened.
    """

    def __init__(
        self, asked: Scheduler, most_epochs: int, own: Callable[[Trial], TrialRecord], stopped: set[str]
    ) -> None:
        """`stopped` receives Ray's ids of the trials that are ended."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = _make(asked, most_epochs)
        self._own = own
        self._stopped = stopped
        self._known: dict[str, _Known] = {}
        self._ended: set[int] = set()
        """Numbers in the study of the configs that are stopped."""
        self.ended: Callable[[TuneController, Trial], None] = lambda controller, trial: None  # noqa: ARG005
        """Told of each trial that Ray Tune ends, with Tune's controller, which gives itself to schedulers alone."""

    def replay(self, events: Iterable[Mapping[str, Any]], trials: Mapping[str, TrialRecord]) -> list[TrialRecord]:
        """Tell it the epochs of an earlier run in the order in which they came, from the ledger's events.

        An epoch that was trained again was decided when it came first.  Returns the trials that it stops and that are
        not finished: their driver died before it could say so.
        """
        ended: dict[str, TrialRecord] = {}
        for epoch in events:
            trial = trials[epoch["trial"]]
            if epoch["event"] != "epoch" or trial.id in ended:
                continue
            last = epoch["epoch"] >= trial.config.get("epochs", 1)
            if self._told(trial, epoch, last) == TrialScheduler.STOP:
                ended[trial.id] = trial
        return [trial for trial in ended.values() if trial.epochs and not trial.finished]

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if "epoch" not in result:
            return TrialScheduler.CONTINUE
        decision = self._told(self._own(trial), result, False)
        if decision == TrialScheduler.STOP:
            self._stopped.add(trial.trial_id)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """A trial's last message comes here, not to `on_trial_result`; so does the end of one that was stopped."""
        if trial.trial_id not in self._stopped and "epoch" in result and "failure" not in result:
            self._told(self._own(trial), result, True)
        self.ended(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A trial that failed is not told to the scheduler: it may be started again."""
        self.ended(tune_controller, trial)

    def _told(self, own: TrialRecord, epoch: Mapping[str, Any], last: bool) -> str:
        """The decision after an epoch that it was not told before; a trial's last one is no longer to be decided.

        An svm is done with its first one: told of it, a scheduler would hold every network's first epoch against a
        finished training.  Of repeats, the first speaks for all, as everywhere; the others follow it.
        """
        if not models.is_network(own.config["model"]):
            return TrialScheduler.CONTINUE
        if fold_of(own.id):
            return TrialScheduler.STOP if number_of(own.id) in self._ended and not last else TrialScheduler.CONTINUE
        if own.id not in self._known:
            self._known[own.id] = _Known(own.id)
            with _seeded(own.id):
                self._inner.on_trial_add(None, self._known[own.id])  # type: ignore[arg-type]
        known = self._known[own.id]
        if epoch["epoch"] <= known.epochs:
            return TrialScheduler.CONTINUE
        known.epochs = epoch["epoch"]
        result = {"epoch": epoch["epoch"], METRIC: epoch[METRIC]}
        if last:
            self._inner.on_trial_complete(None, known, result)  # type: ignore[arg-type]
            return TrialScheduler.CONTINUE
        decision: str = self._inner.on_trial_result(None, known, result)  # type: ignore[arg-type]
        if decision == TrialScheduler.STOP:
            self._ended.add(number_of(own.id))
        return decision


class _Known:
    """A trial as Ray's schedulers need it: hashable, with an id."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.epochs = 0


def _make(asked: Scheduler, most_epochs: int) -> TrialScheduler:
    if asked.name == "none":
        return FIFOScheduler()
    if asked.name == "median":
        return MedianRule(METRIC, asked.grace_epochs)
    return AsyncHyperBandScheduler(
        "epoch",
        METRIC,
        MODE,
        max_t=max(most_epochs, asked.grace_epochs),
        grace_period=asked.grace_epochs,
        reduction_factor=asked.reduction_factor,
        brackets=3 if asked.name == "hyperband" else 1,
    )


@contextlib.contextmanager
def _seeded(name: str) -> Iterator[None]:
    """hyperband draws a trial's bracket from NumPy's global generator: by its id, so that it is the same next time."""
    before = np.random.get_state()
    np.random.seed(zlib.crc32(name.encode()))
    try:
        yield
    finally:
        np.random.set_state(before)

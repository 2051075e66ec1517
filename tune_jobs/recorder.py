"""What a search reports, written to the ledger and the study as it happens, in the driver."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray import tune

from datasets import Splits
from models import TrainConfig
from profiling.flops import macs
from tune_jobs.experiment import Experiment
from tune_jobs.results import ledger
from tune_jobs.results.ledger import number_of, trial_id
from tune_jobs.space import Point, Space
from tune_jobs.study import Study, by_number
from tune_jobs.trial import TRIAL_KEY

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class Listener(Protocol):
    """Who is told how the search goes."""

    def say(self, line: str) -> None:
        """Something to know about the search as a whole."""

    def tell(self, trial: ledger.TrialRecord, finished: int, total: int) -> None:
        """A trial has just finished or is to be tried again; so many are finished; so many there are."""


def total(experiment: Experiment, space: Space) -> int:
    """How many trials the experiment asks for, repeats included."""
    numbers = len(space.grid()) if experiment.search.trials is None else experiment.search.trials
    return numbers * experiment.repeats


def repeated(point: Point, repeats: int) -> list[Point]:
    """The point under `repeats` seeds that count up from its own, where it has one that is set."""
    if point.get("seed") is None:
        return [point] * repeats
    return [point | {"seed": point["seed"] + fold} for fold in range(repeats)]


class Recorder(tune.Callback):
    """Writes every epoch and every change of state to the ledger and the study, in the driver."""

    def __init__(
        self,
        experiment: Experiment,
        splits: Splits,
        record: ledger.Ledger,
        trials: dict[str, ledger.TrialRecord],
        study: Study,
        listener: Listener,
    ) -> None:
        self._experiment = experiment
        self._splits = splits
        self._record = record
        self._trials = trials
        self._study = study
        self._listener = listener
        self._total = total(experiment, study.space)
        self._started: dict[str, float] = {}
        self._timed_out: set[str] = set()
        self.handed_out: set[str] = set()
        """Ids of the trials that Ray has been given."""
        self.stopped: set[str] = set()
        """Ray's ids of the trials that the scheduler stopped."""

    def unfinished(self) -> list[ledger.TrialRecord]:
        """Trials that are to be run, or run again."""
        return [trial for trial in self._trials.values() if not trial.finished]

    def running(self) -> int:
        """Trials that Ray has and that are not finished."""
        return sum(not self._trials[own_id].finished for own_id in self.handed_out)

    def to_ask(self) -> int:
        """How many points are still to be asked of the sampler."""
        if self._experiment.search.trials is None:
            return 0  # a grid's points are all known
        return max(0, self._experiment.search.trials - len(by_number(self._trials.values())))

    def add(self, number: int, point: Point) -> list[ledger.TrialRecord]:
        """Write down the study's trial of this number, one record a repeat, before any of them starts."""
        points = repeated(point, self._experiment.repeats)
        added = []
        for fold, config in enumerate(points):
            own = ledger.TrialRecord(trial_id(number, None if self._experiment.repeats == 1 else fold))
            self._trials[own.id] = own
            self._write(own, "state", state="WAITING", config=config)
            added.append(own)
        return added

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self._own(trial)
        self._started[own.id] = time.monotonic()
        self._write(own, "state", state="RUNNING", attempt=own.attempts + 1)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        own = self._own(trial)
        if "failure" in result:
            self._finish(own, state="FAIL", failure=result["failure"], reason=result["reason"])
            return
        self._write(own, "epoch", attempt=own.attempts, **{name: result[name] for name in _EPOCH_FIELDS})
        if self._group(own)[0] is own:  # of its repeats, the first speaks for all
            self._study.report(number_of(own.id), {name: result[name] for name in _EPOCH_FIELDS})
        if "result" in result:
            self._finish(own, state="COMPLETE", result=self._with_macs(own, result["result"]))

    def _with_macs(self, own: ledger.TrialRecord, result: dict[str, Any]) -> dict[str, Any]:
        """A network's cost follows from its shape, and is counted here once for all trials that share it."""
        if result["macs"] is not None:
            return result
        splits = self._splits
        config = TrainConfig(**own.config)
        return result | {"macs": macs(config, splits.channels, len(splits.classes), splits.image_size)}

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial that ends without a result was stopped: by the scheduler, or with the whole search."""
        own = self._own(trial)
        if not own.finished and trial.trial_id in self.stopped:
            name = self._experiment.scheduler.name
            self._finish(own, state="PRUNED", reason=f"stopped by {name} after epoch {own.epochs[-1]['epoch']}")

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self._own(trial)
        if not own.finished:
            self._write(own, "state", state="WAITING", **_failure(trial))
            self._tell(own)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self._own(trial)
        if own.finished:
            return
        if own.id in self._timed_out:
            reason = f"still running after {self._experiment.budget.trial_minutes:g} minutes"
            self._finish(own, state="FAIL", failure="timeout", reason=reason)
        else:
            self._finish(own, state="FAIL", **_failure(trial))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """End trials that have run too long, by killing their process: one hung in native code hears nothing else."""
        limit = self._experiment.budget.trial_minutes
        if limit is None:
            return
        for trial in trials:
            own = self._own(trial)
            if own.state != "RUNNING" or own.id in self._timed_out:
                continue
            if time.monotonic() - self._started[own.id] > 60 * limit:
                self._timed_out.add(own.id)
                trial.max_failures = 0
                if trial.temporary_state.ray_actor is not None:
                    ray.kill(trial.temporary_state.ray_actor)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to pickle into its snapshots: the ledger is the state."""
        return {}

    def _own(self, trial: Trial) -> ledger.TrialRecord:
        return self._trials[trial.config[TRIAL_KEY]]

    def _finish(self, own: ledger.TrialRecord, **fields: Any) -> None:
        started = self._started.get(own.id)  # None: its process died before it could start
        wall_time_s = None if started is None else time.monotonic() - started
        self._write(own, "state", wall_time_s=wall_time_s, **fields)
        group = self._group(own)
        if all(trial.finished for trial in group):
            self._study.tell(group)
        self._tell(own)

    def _group(self, own: ledger.TrialRecord) -> list[ledger.TrialRecord]:
        return by_number(self._trials.values())[number_of(own.id)]

    def _tell(self, own: ledger.TrialRecord) -> None:
        self._listener.tell(own, sum(trial.finished for trial in self._trials.values()), self._total)

    def _write(self, own: ledger.TrialRecord, event: str, **fields: Any) -> None:
        ledger.apply(own, self._record.append(own.id, event, **fields))


_EPOCH_FIELDS = ("epoch", "train_loss", "val_loss", "val_accuracy", "epoch_time_s")


def _failure(trial: Trial) -> dict[str, str]:
    """The class of a trial's last failure and its reason in a line, from the text that Ray wrote down."""
    attempts = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").split("Failure # ")
    lines = [line.strip() for line in attempts[-1].splitlines()[1:] if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    if errors:
        return {"failure": "error", "reason": errors[-1]}
    if any(line.startswith("The actor ") for line in lines):  # RayActorError: no word from the trial itself
        return {"failure": "worker_crashed", "reason": "its worker process died"}
    return {"failure": "error", "reason": lines[-1] if lines else "Ray gave no reason"}


_ERROR = re.compile(r"(?!ray\.)[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt): ")
"""The line of a traceback that names the exception; its message may go on for more lines."""

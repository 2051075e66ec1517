"""One search: the Tuner built, run, and what it reports written down."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

import models
from datasets import Splits, load_splits
from models import TrainConfig
from profiling.flops import macs
from tune_jobs import space as spaces
from tune_jobs import yaml
from tune_jobs.environment import environment
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment, check
from tune_jobs.resources import check_servable, slots
from tune_jobs.results import ledger, selection, table
from tune_jobs.results.ledger import number_of, trial_id
from tune_jobs.results.rundir import RunDir, write_text
from tune_jobs.space import Point, Space
from tune_jobs.study import Study, by_number
from tune_jobs.trial import TRIAL_KEY, run_trial

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    rows: list[table.Row]
    """One a trial."""
    ended: Literal["done", "interrupted", "budget"]
    """done: nothing is left to run.  Else the same call takes it up again."""


class Listener(Protocol):
    """Who is told how the search goes."""

    def say(self, line: str) -> None:
        """Something to know about the search as a whole."""

    def tell(self, trial: ledger.TrialRecord, finished: int, total: int) -> None:
        """A trial has just finished or is to be tried again; so many are finished; so many there are."""


def run(experiment: Experiment, run_dir: RunDir, data_dir: Path | None, listener: Listener) -> Outcome:
    """Run all trials that are not finished yet, and write the table.

    A run that exists is taken up; where the experiment only adds to it (grid points, trials), it is extended.

    Raises UsageError, before any trial starts and before anything is written, where the
    experiment, the data or the cluster do not allow it.
    """
    space = spaces.parse(experiment.space, experiment.train, experiment.search.method)
    with _sigterm_as_sigint():
        return run_space(experiment, space, run_dir, [load_splits(experiment.dataset, data_dir)], listener)


def run_space(
    experiment: Experiment, space: Space, run_dir: RunDir, splits: Sequence[Splits], listener: Listener
) -> Outcome:
    """As `run`, over a space and on data that are given; repeat number n of a config sees `splits[n]`, the last one
    being seen by all that follow."""
    check_shapes(space, splits[0])
    check_objectives(experiment, space)
    check_precision(experiment, space)
    facts = environment() | {
        "data_sha256": splits[0].sha256,
        "images": {"train": len(splits[0].train), "val": len(splits[0].val), "test": len(splits[0].test)},
    }
    known = ledger.read(run_dir.ledger)
    _check_same(experiment, space, run_dir, facts, known)
    finished = sum(trial.finished for trial in known.values())
    if finished:
        listener.say(f"taken up: {finished} of {total(experiment, space)} trials are finished already")
    if _is_left(experiment, space, known):
        dashboard = connect()
        if dashboard:
            listener.say(f"Ray dashboard: {dashboard}")
        check_servable((experiment.resources.of(model) for model in space.models()), ray.nodes())
    with run_dir.locked():
        trials = ledger.read(run_dir.ledger)
        _check_same(experiment, space, run_dir, facts, trials)
        if not run_dir.environment.exists():
            write_text(run_dir.environment, json.dumps(facts, indent=2) + "\n")
        write_text(run_dir.experiment, yaml.dump(experiment.document(), "The experiment as it was resolved."))
        record = ledger.Ledger(run_dir.ledger)
        within_budget = True
        try:
            study = Study(run_dir.study, experiment, space)
            for own in trials.values():
                if not own.config:  # its first line was lost
                    ledger.apply(own, record.append(own.id, "config", config=study.point(number_of(own.id))))
            recorder = _Recorder(experiment, splits[0], record, trials, study, listener)
            study.follow(trials)
            for point in _new_points(experiment, space, trials):
                recorder.add(study.add(point), point)
            if _is_left(experiment, space, trials):
                within_budget = _tune(experiment, run_dir, splits, study, recorder)
        finally:
            for trial in trials.values():
                if trial.state == "RUNNING":
                    record.append(trial.id, "state", state="WAITING", reason="interrupted")
            record.close()
            rows = rows_of(run_dir, experiment)
            table.write(run_dir, rows)
    unfinished = _is_left(experiment, space, trials)
    return Outcome(rows, "done" if not unfinished else "interrupted" if within_budget else "budget")


def rows_of(run_dir: RunDir, experiment: Experiment) -> list[table.Row]:
    """A row a trial, from the ledger."""
    rows = table.rows(ledger.read(run_dir.ledger).values())
    return selection.with_front(rows, experiment.search.objectives)


def total(experiment: Experiment, space: Space) -> int:
    """How many trials the experiment asks for, repeats included."""
    numbers = len(space.grid()) if experiment.search.trials is None else experiment.search.trials
    return numbers * experiment.repeats


def repeated(point: Point, repeats: int) -> list[Point]:
    """The point under `repeats` seeds that count up from its own, where it has one that is set."""
    if point.get("seed") is None:
        return [point] * repeats
    return [point | {"seed": point["seed"] + fold} for fold in range(repeats)]


def check_objectives(experiment: Experiment, space: Space) -> None:
    """Raise UsageError for an objective that a model of the space does not have."""
    for name in experiment.search.objectives:
        if name in ("params", "val_loss") and "svm" in space.models():
            raise UsageError(f"search.objectives: an svm has no {name}")


def _new_points(experiment: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> list[Point]:
    """Points of a grid that no trial has yet, in their order."""
    have = {spaces.key(group[0].config) for group in by_number(trials.values()).values()}
    wanted = space.grid() if experiment.search.method == "grid" else []
    return [point for point in wanted if spaces.key(point) not in have]


def _is_left(experiment: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> bool:
    if not all(trial.finished for trial in trials.values()) or _new_points(experiment, space, trials):
        return True
    return experiment.search.trials is not None and len(by_number(trials.values())) < experiment.search.trials


def check_shapes(space: Space, splits: Splits) -> None:
    """Raise ModelError where a model cannot take these images or a batch size, or has nothing to learn from."""
    configs = [TrainConfig(**point) for point in space.shapes()]
    for config in {models.shape_key(config): config for config in configs}.values():
        models.check(config, splits.channels, len(splits.classes), splits.image_size, len(splits.train))
    if "svm" in space.models() and len(splits.train.labels.unique()) < 2:
        raise models.ModelError(f"svm: the {len(splits.train):,} training images are of one class")


def check_precision(experiment: Experiment, space: Space) -> None:
    """Raise UsageError where fp16 is asked for on the CPU."""
    for point in space.shapes():
        if point.get("amp_dtype") == "fp16" and not experiment.resources.of(point["model"]).gpu:
            raise UsageError("amp_dtype: fp16 needs a GPU (resources.gpu); on a CPU give auto or bf16")


def connect() -> str | None:
    """Join the cluster that RAY_ADDRESS or this job names, or start Ray on this machine.

    Returns the address of Ray's dashboard, where there is one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return None
    _check_reachable(os.environ.get("RAY_ADDRESS", ""))
    before = signal.getsignal(signal.SIGTERM)
    context = ray.init(log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # ray.init puts one of its own there, which exits at once
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def _check_reachable(address: str) -> None:
    """Raise UsageError where RAY_ADDRESS names a host and port at which nobody listens: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # empty, auto or local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UsageError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error})") from error


def _check_same(
    experiment: Experiment,
    space: Space,
    run_dir: RunDir,
    facts: dict[str, Any],
    trials: Mapping[str, ledger.TrialRecord],
) -> None:
    """Raise UsageError where the run exists and is of another experiment, unless this one adds to it, or other data."""
    if not run_dir.experiment.exists():
        if trials:
            raise UsageError(f"run {run_dir.name} has trials but no {run_dir.experiment}; give this one another --name")
        return
    before = check(yaml.read(run_dir.experiment))
    added = _only_adds(before, experiment, space, trials)
    different = [] if added else differences(before.document(), experiment.document())
    if run_dir.read_environment()["data_sha256"] != facts["data_sha256"]:
        different.append("the images or labels themselves")
    if different:
        raise UsageError(
            f"run {run_dir.name} exists with another experiment ({'; '.join(different)}); give this one another --name"
        )


_FREE = ("description", "resources", "budget", "retries")
"""Keys that change how a run goes, not what its trials are: they may differ when it is taken up."""


def _only_adds(before: Experiment, after: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> bool:
    """Whether all that the run has is part of the experiment: more grid points or more trials may be new."""
    free = {key: getattr(after, key) for key in _FREE}
    if after.search.method == "grid":
        wanted = {spaces.key(point) for point in space.grid()}
        same = before.model_copy(update=free | {"space": after.space, "train": after.train}) == after
        groups = by_number(trials.values()).values()
        return same and all(spaces.key(group[0].config) in wanted for group in groups if group[0].config)
    search = before.search.model_copy(update={"trials": after.search.trials})
    more = (after.search.trials or 0) >= (before.search.trials or 0)
    return more and before.model_copy(update=free | {"search": search}) == after


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Each key whose value differs, as `path: before -> after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in dict.fromkeys([*before, *after])
            for line in differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def _tune(experiment: Experiment, run_dir: RunDir, splits: Sequence[Splits], study: Study, recorder: _Recorder) -> bool:
    """Run what is left; returns whether that was within the budget."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial's row has its reason
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables, which `verbose` does not silence
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # CSV and JSON twice over; TensorBoard is given below
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # an epoch's message has not every objective
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")  # Tune's own snapshots, of which we use none
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")  # else a searcher's workers start one after another

    def ask(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        request = experiment.resources.of(config["model"])
        return tune.PlacementGroupFactory([{"CPU": request.cpu} | ({"GPU": request.gpu} if request.gpu else {})])

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, splits=splits), ask),
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(study, recorder, _at_once(experiment, study.space)),
            scheduler=_scheduler(experiment, study.space.most_epochs(), recorder.stopped),
            num_samples=-1,  # the searcher says when it has no more
            reuse_actors=True,
            time_budget_s=None if experiment.budget.minutes is None else 60 * experiment.budget.minutes,
            trial_dirname_creator=lambda trial: f"{trial.config[TRIAL_KEY]}-{trial.config['model']}",
        ),
        run_config=tune.RunConfig(
            name=run_dir.name,
            storage_path=str(run_dir.path.parent),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=experiment.retries),
            callbacks=[recorder, TBXLoggerCallback()],
        ),
    )
    start = time.monotonic()
    tuner.fit()
    return experiment.budget.minutes is None or time.monotonic() - start < 60 * experiment.budget.minutes


def _at_once(experiment: Experiment, space: Space) -> float:
    """How many trials may be handed out and unfinished.  A grid's are all known, and Ray queues them as it likes."""
    if experiment.search.max_concurrent is not None:
        return experiment.search.max_concurrent
    if experiment.search.method == "grid":
        return math.inf
    return max(slots(experiment.resources.of(model), ray.nodes()) for model in space.models())


def _scheduler(experiment: Experiment, most_epochs: int, stopped: set[str]) -> TrialScheduler:
    """Early stopping as asked; Ray's ids of the trials that it stops go into `stopped`."""
    scheduler = _early_stopping(experiment, most_epochs)
    decide = scheduler.on_trial_result

    def on_trial_result(controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision: str = decide(controller, trial, result)
        if decision == TrialScheduler.STOP:
            stopped.add(trial.trial_id)
        return decision

    scheduler.on_trial_result = on_trial_result  # type: ignore[assignment, method-assign]
    return scheduler


def _early_stopping(experiment: Experiment, most_epochs: int) -> TrialScheduler:
    asked = experiment.scheduler
    metric, mode = "val_accuracy", "max"
    if asked.name == "none":
        return FIFOScheduler()
    if asked.name == "median":
        return MedianStoppingRule("epoch", metric, mode, grace_period=asked.grace_epochs, min_samples_required=2)
    return AsyncHyperBandScheduler(
        "epoch",
        metric,
        mode,
        max_t=max(most_epochs, asked.grace_epochs),
        grace_period=asked.grace_epochs,
        reduction_factor=asked.reduction_factor,
        brackets=3 if asked.name == "hyperband" else 1,
    )


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Tune saves its state and stops its trials on SIGINT alone; a cluster's first word is SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Searcher(OptunaSearch):
    """Tune's OptunaSearch over the run's study: hands out each trial with its id, and leaves the telling to _Recorder.

    OptunaSearch itself would tell a stopped trial as COMPLETE and leave one without a finite value RUNNING for ever.
    """

    def __init__(self, study: Study, recorder: _Recorder, most: float) -> None:
        names, ways = list(study.objectives), [str(way) for way in study.objectives.values()]
        super().__init__(
            space=study.space.suggest,
            metric=names if len(names) > 1 else names[0],
            mode=ways if len(ways) > 1 else ways[0],
            sampler=study.sampler,
            storage=study.storage,
            study_name=study.name,
        )
        self._study = study
        self._recorder = recorder
        self._waiting = recorder.unfinished()
        self._to_ask = recorder.to_ask()
        self._most = most

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._recorder.running() >= self._most:
            return None  # a sampler learns from what has finished: it is asked when there is room, not before
        if not self._waiting and self._to_ask:
            self._to_ask -= 1
            point: Point = super().suggest(trial_id) or {}
            self._waiting += self._recorder.add(self._ot_trials[trial_id].number, point)
        if not self._waiting:
            return Searcher.FINISHED  # type: ignore[return-value]  # Ray's own way to say so
        own = self._waiting.pop(0)
        self._study.start(number_of(own.id))
        self._recorder.handed_out.add(own.id)
        return {TRIAL_KEY: own.id} | own.config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The recorder reports epochs."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The recorder tells how a trial ended."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to pickle into its snapshots."""
        return {}


class _Recorder(tune.Callback):
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

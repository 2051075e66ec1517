"""One search: the Tuner built, run, and what it reports written down."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.search import Searcher

import models
from datasets import Splits, load_splits
from models import TrainConfig
from tune_jobs import space, yaml
from tune_jobs.environment import environment
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.resources import check_servable
from tune_jobs.results import ledger, table
from tune_jobs.results.rundir import RunDir, write_text
from tune_jobs.trial import TRIAL_KEY, run_trial

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class Listener(Protocol):
    """Who is told how the search goes."""

    def say(self, line: str) -> None:
        """Something to know about the search as a whole."""

    def tell(self, trial: ledger.TrialRecord, finished: int, total: int) -> None:
        """A trial has just finished or is to be tried again; so many are finished; so many there are."""


def run(experiment: Experiment, run_dir: RunDir, data_dir: Path | None, listener: Listener) -> list[table.Row]:
    """Run all trials that are not finished yet, and write the table.

    Returns a row a trial.  Rows that are WAITING or RUNNING mean that the search was interrupted: the same call takes
    it up again.  Raises UsageError, before any trial starts and before anything is written, where the experiment,
    the data or the cluster do not allow it.
    """
    with _sigterm_as_sigint():
        return _run(experiment, run_dir, data_dir, listener)


def _run(experiment: Experiment, run_dir: RunDir, data_dir: Path | None, listener: Listener) -> list[table.Row]:
    points = space.expand(experiment.space, experiment.train)
    splits = load_splits(experiment.dataset, data_dir)
    check_points(points, splits)
    known = ledger.read(run_dir.ledger)
    left = [point for number, point in enumerate(points) if not _is_finished(known, trial_id(number))]
    if len(left) < len(points):
        listener.say(f"taken up: {len(points) - len(left)} of {len(points)} trials are finished already")
    if left:
        dashboard = connect()
        if dashboard:
            listener.say(f"Ray dashboard: {dashboard}")
        check_servable((experiment.resources.of(point["model"]) for point in left), ray.nodes())
    with run_dir.locked():
        _write_down(experiment, run_dir, splits)
        record = ledger.Ledger(run_dir.ledger)
        trials = ledger.read(run_dir.ledger)
        for number, point in enumerate(points):
            if trial_id(number) not in trials:
                record.append(trial_id(number), "state", state="WAITING", config=point)
        trials = ledger.read(run_dir.ledger)
        try:
            todo = {trial.id: trial.config for trial in trials.values() if not trial.finished}
            if todo:
                _tune(experiment, run_dir, splits, todo, _Recorder(record, trials, listener))
        finally:
            for trial in trials.values():
                if trial.state == "RUNNING":
                    record.append(trial.id, "state", state="WAITING", reason="interrupted")
            record.close()
            rows = table.rows(ledger.read(run_dir.ledger).values())
            table.write(run_dir, rows)
    return rows


def _is_finished(trials: dict[str, ledger.TrialRecord], trial: str) -> bool:
    return trial in trials and trials[trial].finished


def trial_id(number: int) -> str:
    """Of the point with this number, from 0: the same at every take-up."""
    return f"{number:05d}"


def check_points(points: list[space.Point], splits: Splits) -> None:
    """Raise ModelError where a model cannot take these images or this batch size."""
    configs = [TrainConfig(**point) for point in points]
    for config in {models.shape_key(config): config for config in configs}.values():
        models.check(config, splits.channels, len(splits.classes), splits.image_size)


def connect() -> str | None:
    """Join the cluster that RAY_ADDRESS or this job names, or start Ray on this machine.

    Returns the address of Ray's dashboard, where there is one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return None
    before = signal.getsignal(signal.SIGTERM)
    context = ray.init(log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # ray.init puts one of its own there, which exits at once
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def _write_down(experiment: Experiment, run_dir: RunDir, splits: Splits) -> None:
    """experiment.yaml and environment.json; a run that exists must be of the same experiment and the same data."""
    document = experiment.document()
    if run_dir.experiment.exists():
        before = yaml.read(run_dir.experiment)
        different = differences(before, document)
        data_before = json.loads(run_dir.environment.read_text(encoding="utf-8"))["data_sha256"]
        if data_before != splits.sha256:
            different.append("the images or labels themselves")
        if different:
            raise UsageError(
                f"run {run_dir.name} exists with another experiment ({'; '.join(different)}); "
                "give this one another --name"
            )
        return
    facts = environment() | {"data_sha256": splits.sha256}
    write_text(run_dir.environment, json.dumps(facts, indent=2) + "\n")
    write_text(run_dir.experiment, yaml.dump(document, "The experiment as it was resolved."))


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Each key whose value differs, as `path: before -> after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in dict.fromkeys([*before, *after])
            for line in differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def _tune(
    experiment: Experiment, run_dir: RunDir, splits: Splits, todo: dict[str, space.Point], recorder: _Recorder
) -> None:
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial's row has its reason
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables, which `verbose` does not silence
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # CSV and JSON twice over; TensorBoard is given below
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")  # a searcher's trials are else queued one by one

    def ask(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        request = experiment.resources.of(config["model"])
        return tune.PlacementGroupFactory([{"CPU": request.cpu} | ({"GPU": request.gpu} if request.gpu else {})])

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, splits=splits), ask),
        tune_config=tune.TuneConfig(
            search_alg=_Points(todo),
            num_samples=len(todo),
            reuse_actors=True,
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
    tuner.fit()


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


class _Points(Searcher):
    """Hands out each point once, in their order, with the trial's id beside its fields."""

    def __init__(self, points: dict[str, space.Point]) -> None:
        super().__init__(metric="val_accuracy", mode="max")
        self._left = list(points.items())[::-1]

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self._left:
            return None  # `num_samples` ends the search
        own_id, point = self._left.pop()
        return {TRIAL_KEY: own_id} | point

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A grid learns nothing from its results."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do is known from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do is known from the ledger."""


class _Recorder(tune.Callback):
    """Writes every epoch and every change of state to the ledger, in the driver."""

    def __init__(self, record: ledger.Ledger, trials: dict[str, ledger.TrialRecord], listener: Listener) -> None:
        self._record = record
        self._trials = trials
        self._listener = listener
        self._started: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self._own(trial)
        self._started[own.id] = time.monotonic()
        self._write(own, "state", state="RUNNING", attempt=own.attempts + 1)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        own = self._own(trial)
        if "result" in result:
            self._finish(own, state="COMPLETE", result=result["result"])
        elif "failure" in result:
            self._finish(own, state="FAIL", failure=result["failure"], reason=result["reason"])
        else:
            metrics = {name: result[name] for name in _EPOCH_FIELDS}
            self._write(own, "epoch", attempt=own.attempts, **metrics)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self._own(trial)
        self._write(own, "state", state="WAITING", **_failure(trial))
        self._tell(own)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self._own(trial)
        if not own.finished:
            self._finish(own, state="FAIL", **_failure(trial))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to pickle into its snapshots: the ledger is the state."""
        return {}

    def _own(self, trial: Trial) -> ledger.TrialRecord:
        return self._trials[trial.config[TRIAL_KEY]]

    def _finish(self, own: ledger.TrialRecord, **fields: Any) -> None:
        wall_time_s = time.monotonic() - self._started[own.id]
        self._write(own, "state", wall_time_s=wall_time_s, **fields)
        self._tell(own)

    def _tell(self, own: ledger.TrialRecord) -> None:
        self._listener.tell(own, sum(trial.finished for trial in self._trials.values()), len(self._trials))

    def _write(self, own: ledger.TrialRecord, event: str, **fields: Any) -> None:
        ledger.apply(own, self._record.append(own.id, event, **fields))


_EPOCH_FIELDS = ("epoch", "train_loss", "val_loss", "val_accuracy", "epoch_time_s")


def _failure(trial: Trial) -> dict[str, str]:
    """The class of a trial's last failure and its reason in a line, from the text that Ray wrote down."""
    attempts = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").split("Failure # ")
    lines = [line.strip() for line in attempts[-1].splitlines()[1:] if line.strip()]
    if any(line.startswith("The actor ") for line in lines):  # RayActorError: no word from the trial itself
        return {"failure": "worker_crashed", "reason": "its worker process died"}
    return {"failure": "error", "reason": lines[-1] if lines else "Ray gave no reason"}

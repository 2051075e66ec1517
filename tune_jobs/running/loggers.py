"""Whom trials are told to besides the ledger: Ray's own callbacks for TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback, TBXLoggerCallback
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from tune_jobs.errors import UsageError
from tune_jobs.interruption import room
from tune_jobs.results.rundir import RunDir
from tune_jobs.trial import TRIAL_KEY

EXTRAS = {"mlflow": "mlflow", "wandb": "wandb"}
"""Logger -> the package that it needs, which is also the name of the optional extra that brings it."""
WANDB_PROJECT = "tune-jobs"
"""Where WANDB_PROJECT does not name another."""
_NO_KEY = "loggers: wandb: no API key: set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline"


def check(names: Sequence[str]) -> None:
    """Raise UsageError where a logger's package is missing, or wandb does not know who is logging."""
    for name in names:
        package = EXTRAS.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UsageError(f"loggers: {name} is not installed: pip install '.[{package}]'")
    if "wandb" in names:
        try:
            _wandb("").setup()
        except ValueError as error:
            raise UsageError(_NO_KEY) from error


def callbacks(names: Sequence[str], run_dir: RunDir, fields: Collection[str]) -> list[LoggerCallback]:
    """One for each name; `fields` are those that trials differ in.  Raises UsageError where MLflow's store cannot be
    had."""
    makers: dict[str, Callable[[], LoggerCallback]] = {
        "tensorboard": lambda: _TensorBoard(run_dir.path, fields),
        "mlflow": lambda: _mlflow(run_dir),
        "wandb": lambda: _wandb(run_dir.name),
    }
    return [makers[name]() for name in names]


def trial_name(trial: Trial) -> str:
    """What a trial, and its folder, are called everywhere: 00003-mlp."""
    return f"{trial.config[TRIAL_KEY]}-{trial.config['model']}"


class _EventFile:
    """What Ray's callback uses of tensorboardX's SummaryWriter, on its event writer alone: without a queue, a thread
    and a function to be called at exit, which is there for ever, for each trial."""

    def __init__(self, folder: str, **_: Any) -> None:
        with room():
            Path(folder).mkdir(parents=True, exist_ok=True)
            # The writer names its file by the second, in which there may have been another attempt.
            self._events = EventsWriter(str(Path(folder) / "events"), f".{time.time_ns()}")

    def add_scalar(self, tag: str, value: float, global_step: int) -> None:
        self.add_summary(summary.scalar(tag, value), global_step)

    def add_summary(self, found: Any, step: int = 0) -> None:
        with room():
            self._events.write_event(Event(wall_time=time.time(), step=int(step), summary=found))

    def flush(self) -> None:
        """To the operating system, for TensorBoard to read.  tensorboardX's own waits for the disk besides, at each
        epoch of each trial, while the driver does nothing else; `close` still does."""
        with room():
            self._events._py_recordio_writer._writer.flush()

    def close(self) -> None:
        with room():
            self._events.close()


class _TensorBoard(TBXLoggerCallback):
    """Ray's, but it writes into the run directory at once, where Tune would copy its files at the end alone; and what a
    person compares trials by: SHOWN, RESULT and the fields that they differ in, without Tune's own counters."""

    SHOWN = ("val_accuracy", "val_loss", "train_loss", "epoch_time_s")
    """What is shown of an epoch's message."""
    RESULT = ("val_accuracy", "test_accuracy", "test_loss", "best_epoch", "train_time_s", "params", "peak_memory_mib")
    """What is shown of the result in the last epoch's message; its accuracies are those of the best epoch."""

    def __init__(self, folder: Path, fields: Collection[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._summary_writer_cls = _EventFile
        self._folder = folder  # Tune pickles its callbacks, and a RunDir on a store has what cannot be
        self._fields = (*fields, TRIAL_KEY)

    def log_trial_start(self, trial: Trial) -> None:
        if trial in self._trial_writer:
            self._trial_writer[trial].close()
        folder = self._folder / trial_name(trial)
        self._trial_writer[trial] = self._summary_writer_cls(str(folder), flush_secs=30)
        self._trial_result[trial] = {}

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Of epochs alone: a trial's other messages, of its start and its failure, have no numbers."""
        if "epoch" not in result:
            return
        shown: dict[str, Any] = {name: result[name] for name in self.SHOWN if name in result}
        last = result.get("result") or {}
        shown["result"] = {name: last[name] for name in self.RESULT if last.get(name) is not None}
        super().log_trial_result(iteration, trial, shown | {"training_iteration": result["epoch"]})

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """The hyperparameters, with the last numbers; of a trial that failed in its first epoch, without any."""
        if trial not in self._trial_writer:
            return
        config = {field: trial.config[field] for field in self._fields if trial.config.get(field) is not None}
        writer, numbers = self._trial_writer.pop(trial), self._trial_result.pop(trial)
        for part in summary.hparams(hparam_dict=config, metric_dict=numbers):
            writer.add_summary(part)
        writer.close()


def _of_epochs(kind: type[LoggerCallback]) -> Callable[..., LoggerCallback]:
    """The callback, told of epochs alone: a trial's other messages, of its start and its failure, have no accuracy."""

    class OfEpochs(kind):  # type: ignore[misc, valid-type]
        def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
            if "epoch" in result:
                super().log_trial_result(iteration, trial, result)

    return OfEpochs


def _mlflow(run_dir: RunDir) -> LoggerCallback:
    """An MLflow experiment of the run's name, a run a trial: on MLFLOW_TRACKING_URI, else in RUN/mlflow.db."""
    from mlflow.exceptions import MlflowException
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_dir.path / 'mlflow.db'}"
    callback = _of_epochs(MLflowLoggerCallback)(tracking_uri=uri, experiment_name=run_dir.name)
    try:
        callback.setup()  # Tune does so too, where a person would get a traceback
    except MlflowException as error:
        raise UsageError(f"loggers: mlflow: {uri}: {error}") from error
    return callback


def _wandb(group: str) -> LoggerCallback:
    """A W&B run a trial, grouped by our run."""
    from ray.air.integrations.wandb import WandbLoggerCallback

    project = os.environ.get("WANDB_PROJECT", WANDB_PROJECT)
    return _of_epochs(WandbLoggerCallback)(project=project, group=group, log_config=False)

"""Whom trials are told to besides the ledger: Ray's own callbacks for TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback, TBXLoggerCallback
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from datasets.reasons import first_line
from tune_jobs.errors import UsageError
from tune_jobs.interruption import DiskFull, room
from tune_jobs.results.rundir import RunDir
from tune_jobs.trial import TRIAL_KEY

EXTRAS = {"mlflow": "mlflow", "wandb": "wandb"}
"""Logger -> the package that it needs, which is also the name of the optional extra that brings it."""
WANDB_PROJECT = "tune-jobs"
"""Where WANDB_PROJECT does not name another."""
CLOSE_S = 15
"""So long the loggers may take to end where a search is left before its end."""
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


def callbacks(names: Sequence[str], run_dir: RunDir, fields: Collection[str]) -> list[Told]:
    """One for each name; `fields` are those that trials differ in.  Raises UsageError where MLflow's store cannot be
    had."""
    makers: dict[str, Callable[[], Told]] = {
        "tensorboard": lambda: _TensorBoard(run_dir.path, fields),
        "mlflow": lambda: _mlflow(run_dir),
        "wandb": lambda: _wandb(run_dir.name),
    }
    return [makers[name]() for name in names]


def trial_name(trial: Trial) -> str:
    """What a trial, and its folder, are called everywhere: 00003-mlp."""
    return f"{trial.config[TRIAL_KEY]}-{trial.config['model']}"


def close(told: Sequence[Told], say: Callable[[str], None]) -> None:
    """What Tune does where a search is not left before its end: end the trials that are open, as failed, and then the
    loggers.  It takes CLOSE_S at most, and `say` is told what did not come off."""

    def end() -> None:
        for each in told:
            try:
                for trial in list(each.begun):
                    each.log_trial_end(trial, failed=True)
                each.end_soon()
            except (Exception, DiskFull) as error:  # noqa: BLE001 - another's code; the search's own end stands
                say(f"note: loggers: {first_line(error)}")

    thread = threading.Thread(target=end, name="loggers", daemon=True)  # a server that is away is tried for minutes
    thread.start()
    thread.join(CLOSE_S)
    if thread.is_alive():
        say(f"note: loggers: have not ended within {CLOSE_S} s; the runs there stay open")


class Told(LoggerCallback):
    """One of Ray's, which knows what trials it has begun and not ended."""

    begun: set[Trial]

    def end_soon(self) -> None:
        """Its own end, where nobody waits long for it."""
        self.on_experiment_end(trials=[])


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


class _TensorBoard(TBXLoggerCallback, Told):
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
        self.begun = set()

    def log_trial_start(self, trial: Trial) -> None:
        self.begun.add(trial)
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
        if trial not in self.begun:
            return
        self.begun.remove(trial)
        config = {field: trial.config[field] for field in self._fields if trial.config.get(field) is not None}
        writer, numbers = self._trial_writer.pop(trial), self._trial_result.pop(trial)
        for part in summary.hparams(hparam_dict=config, metric_dict=numbers):
            writer.add_summary(part)
        writer.close()


def _of_epochs(kind: type[LoggerCallback]) -> Callable[..., Told]:
    """The callback, told of epochs alone: a trial's other messages, of its start and its failure, have no accuracy; and
    of the end of those alone that began: one whose worker dies before it is there did not."""

    class OfEpochs(kind, Told):  # type: ignore[misc, valid-type]
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.begun = set()

        def log_trial_start(self, trial: Trial) -> None:
            super().log_trial_start(trial)
            self.begun.add(trial)

        def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
            if "epoch" in result:
                super().log_trial_result(iteration, trial, result)

        def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
            if trial in self.begun:
                self.begun.remove(trial)
                super().log_trial_end(trial, failed)

    return OfEpochs


def _mlflow(run_dir: RunDir) -> Told:
    """An MLflow experiment of the run's name, a run a trial: on MLFLOW_TRACKING_URI, else in RUN/mlflow.db."""
    from mlflow.exceptions import MlflowException
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class Forgetting(MLflowLoggerCallback):
        def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
            super().log_trial_end(trial, failed)
            self._trial_runs.pop(trial)  # it would keep every trial of the search

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_dir.path / 'mlflow.db'}"
    callback = _of_epochs(Forgetting)(tracking_uri=uri, experiment_name=run_dir.name)
    try:
        callback.setup()  # Tune does so too, where a person would get a traceback
    except MlflowException as error:
        raise UsageError(f"loggers: mlflow: {uri}: {error}") from error
    return callback


def _wandb(group: str) -> Told:
    """A W&B run a trial, grouped by our run."""
    from ray.air.integrations.wandb import WandbLoggerCallback

    class Uploading(WandbLoggerCallback):
        def end_soon(self) -> None:
            self._upload_timeout = CLOSE_S // 2  # else half an hour
            self.on_experiment_end(trials=[])

    project = os.environ.get("WANDB_PROJECT", WANDB_PROJECT)
    return _of_epochs(Uploading)(project=project, group=group, log_config=False)

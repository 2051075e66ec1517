"""Ray's loggers: what is missing is told in a line, and what is there has every epoch of every trial."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tune_jobs.errors import UsageError
from tune_jobs.experiment import check
from tune_jobs.interruption import DiskFull
from tune_jobs.results.rundir import RunDir
from tune_jobs.running import loggers

if TYPE_CHECKING:
    from tests.conftest import App

EXPERIMENT = """
name: told
dataset: {name: digits, image_size: 8, limit: 300}
space: {lr: {grid: [1e-2, 1e-3]}}
train: {model: mlp, epochs: 2}
loggers: [mlflow]
"""


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_check_missing_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError) as error:
        loggers.check(["tensorboard", name])
    assert str(error.value) == f"loggers: {name} is not installed: pip install '.[{name}]'"


def test_check_tensorboard_needs_nothing() -> None:
    loggers.check(["tensorboard"])
    loggers.check([])


def test_tensorboard_writes_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (callback,) = loggers.callbacks(["tensorboard"], RunDir(tmp_path), ["model", "lr"])
    trial = Trial("made_up", config={"trial": "00000", "model": "mlp", "lr": 0.1, "epochs": 2}, stub=True)
    trial.evaluated_params = dict(trial.config)
    folder, threads = tmp_path / "00000-mlp", threading.active_count()
    for attempt in (1, 2):  # in the same second
        callback.on_trial_start(0, [], trial)
        where = {"where": {"node": "a", "cards": ["0"]}}
        callback.on_trial_result(0, [], trial, {"val_accuracy": math.nan, "training_iteration": 1} | where)
        result: dict[str, Any] = {"val_accuracy": attempt / 2, "epoch": attempt, "done": False} | where
        if attempt == 2:
            result["result"] = {"test_accuracy": 0.75, "params": None, "device": "cpu"}
        callback.on_trial_result(attempt, [], trial, result)
        found = EventAccumulator(str(folder)).Reload().Scalars("ray/tune/val_accuracy")
        assert [(event.step, event.value) for event in found] == [(1, 0.5), (2, 1.0)][:attempt]
        assert threading.active_count() == threads
        callback.on_trial_complete(attempt, [], trial)
    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["scalars"] == ["ray/tune/val_accuracy", "ray/tune/result/test_accuracy"]
    start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info
    assert set(info.hparams) == {"model", "lr", "trial"}
    assert not callback._trial_writer  # type: ignore[attr-defined]  # Ray's own


@pytest.mark.parametrize(
    ("given", "said"),
    [(["neptune"], "'tensorboard', 'mlflow' or 'wandb'"), (["mlflow", "mlflow"], "each logger once")],
)
def test_experiment_wrong_loggers_are_refused(given: list[str], said: str) -> None:
    document: dict[str, Any] = {"name": "x", "dataset": {"name": "digits"}, "train": {"model": "mlp"}}
    with pytest.raises(UsageError, match=f"^loggers.*{said}"):
        check(document | {"loggers": given})


class Strict(LoggerCallback):
    """As Ray's: it knows those alone that began."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        self.told.append(f"{trial.trial_id} {failed}")

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:  # noqa: ARG002 - Ray's signature
        self.told.append("end")


def made_up(trial_id: str) -> Trial:
    return Trial("made_up", config={"trial": trial_id, "model": "mlp"}, stub=True, trial_id=trial_id)


def test_a_trial_that_failed_before_it_began_is_not_ended() -> None:
    callback: Any = loggers._of_epochs(Strict)()
    unborn, trial = made_up("a"), made_up("b")
    callback.on_trial_error(0, [], unborn)
    callback.on_trial_start(0, [], trial)
    callback.on_trial_error(0, [], trial)
    callback.on_trial_error(0, [], trial)
    assert callback.told == ["b True"]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow's way with SQLAlchemy
def test_mlflow_ends_what_began_and_keeps_no_trial(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    (callback,) = loggers.callbacks(["mlflow"], RunDir(tmp_path), ["model"])
    ended, left = made_up("a"), made_up("b")
    callback.on_trial_error(0, [], ended)
    for trial in (ended, left):
        callback.on_trial_start(0, [], trial)
    callback.on_trial_complete(0, [], ended)
    said: list[str] = []
    loggers.close([callback], said.append)
    assert said == []
    assert not callback._trial_runs  # type: ignore[attr-defined]  # Ray's own
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(tmp_path.name).experiment_id])
    assert {run.data.tags["trial_name"]: run.info.status for run in runs} == {
        str(ended): "FINISHED",
        str(left): "FAILED",
    }


def test_close_ends_what_is_open_and_says_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: Any = loggers._of_epochs(Strict)()
    whole: Any = loggers._of_epochs(Strict)()
    for callback in (broken, whole):
        for name in ("a", "b"):
            callback.on_trial_start(0, [], made_up(name))
    whole.on_trial_complete(0, [], next(trial for trial in whole.begun if trial.trial_id == "a"))
    broken.told = None
    said: list[str] = []
    loggers.close([broken, whole], said.append)
    assert whole.told == ["a False", "b True", "end"]
    (line,) = said
    assert line.startswith("note: loggers: 'NoneType' object has no attribute")
    held = threading.Event()
    monkeypatch.setattr(loggers, "CLOSE_S", 0)
    monkeypatch.setattr(whole, "end_soon", held.wait)
    loggers.close([whole], said.append)
    assert said[1:] == ["note: loggers: have not ended within 0 s; the runs there stay open"]
    held.set()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow's way with SQLAlchemy
def test_mlflow_has_every_epoch_of_every_trial(app: App, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    path = tmp_path / "told.yaml"
    path.write_text(EXPERIMENT)
    ran = app("search", str(path))
    assert ran.returncode == 0, ran.stderr
    run = app.storage / "told"
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]

    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    logged = {
        each.info.run_name: each for each in client.search_runs([client.get_experiment_by_name("told").experiment_id])
    }
    assert set(logged) == {"00000-mlp", "00001-mlp"}
    for name, each in logged.items():
        own = [line for line in lines if f"{line['trial']}-mlp" == name]
        assert each.info.status == "FINISHED"
        assert float(each.data.params["lr"]) == next(line["config"]["lr"] for line in own if "config" in line)
        told = [line["val_accuracy"] for line in own if line["event"] == "epoch"]
        assert [point.value for point in client.get_metric_history(each.info.run_id, "val_accuracy")] == told
        assert each.data.metrics["result/test_accuracy"] == own[-1]["result"]["test_accuracy"]
    assert not list(run.glob("*/events.out.tfevents*"))  # it was not asked for


def test_an_event_file_on_a_full_disk_leaves_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = loggers._EventFile(str(tmp_path))
    file.add_scalar("a", 1.0, 1)
    with monkeypatch.context() as disk:
        disk.setattr(file._events._py_recordio_writer, "_writer", SimpleNamespace(flush=full))
        with pytest.raises(DiskFull):
            file.flush()
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DiskFull):
        loggers._EventFile(str(tmp_path / "more"))
    monkeypatch.undo()
    file.close()


def test_an_event_file_is_there_for_tensorboard_after_each_epoch_without_a_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waited for the disk"))
    file = loggers._EventFile(str(tmp_path))
    (path,) = tmp_path.iterdir()
    file.add_scalar("a", 1.0, 1)
    file.flush()
    assert b"\x01a" in path.read_bytes()
    monkeypatch.undo()
    file.close()

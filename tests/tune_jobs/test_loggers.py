"""Ray's loggers: what is missing is told in a line, and what is there has every epoch of every trial."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tune_jobs import loggers
from tune_jobs.errors import UsageError
from tune_jobs.experiment import check

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


@pytest.mark.parametrize(
    ("given", "said"),
    [(["neptune"], "'tensorboard', 'mlflow' or 'wandb'"), (["mlflow", "mlflow"], "each logger once")],
)
def test_experiment_wrong_loggers_are_refused(given: list[str], said: str) -> None:
    document: dict[str, Any] = {"name": "x", "dataset": {"name": "digits"}, "train": {"model": "mlp"}}
    with pytest.raises(UsageError, match=f"^loggers.*{said}"):
        check(document | {"loggers": given})


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

"""What is known of runs in the same storage, whatever became of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets import DatasetConfig, Splits, load_splits
from tune_jobs import space as spaces
from tune_jobs import yaml
from tune_jobs.estimate import Known, estimate, known
from tune_jobs.experiment import check
from tune_jobs.resources import Request
from tune_jobs.results.rundir import RunDir

CPU = "some"


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(DatasetConfig(name="digits", image_size=8))


def neighbour(storage: Path, facts: dict[str, Any] | None = None, **damage: Any) -> None:
    """A run of one trial in the storage, with `facts` in its environment and `damage` in its last line."""
    train = {"model": "mlp", "hidden_units": 100}
    asked = check({"name": "other", "dataset": {"name": "digits", "image_size": 8}, "train": train})
    run = RunDir(storage / "other")
    run.path.mkdir()
    run.experiment.write_text(yaml.dump(asked.document()))
    environment = {"cpu": CPU, "data_sha256": "a", "images": {"train": 1000}, "image_size": 8, "channels": 1}
    run.environment.write_text(json.dumps(environment | (facts or {})))
    (config,) = spaces.of(asked).grid()
    first = {"time": 1.0, "trial": "00000", "event": "state", "state": "WAITING", "config": config}
    begun = first | {"state": "RUNNING", "attempt": 1}
    last = first | {"state": "COMPLETE", "wall_time_s": 2.0, "result": {"val_accuracy": 0.9, "device": "cpu"}}
    run.ledger.write_text("".join(json.dumps(line) + "\n" for line in (first, begun, last | damage)))


def found(storage: Path, splits: Splits) -> list[Known]:
    return known(storage, CPU, splits)


def test_known_has_what_a_run_measured(splits: Splits, tmp_path: Path) -> None:
    neighbour(tmp_path)
    (one,) = found(tmp_path, splits)
    assert (one.model, one.seconds, one.source) == ("mlp", 2.0, "run other")


@pytest.mark.parametrize(
    "damage",
    [
        {"wall_time_s": "x"},
        {"config": {"model": ["mlp"]}},
        {"config": {"lr": 0.1}},
        {"facts": {"image_size": "x"}},
        {"facts": {"image_size": [8]}},
    ],
)
def test_known_passes_over_a_neighbour_that_is_damaged(damage: dict[str, Any], splits: Splits, tmp_path: Path) -> None:
    neighbour(tmp_path, **damage)
    assert found(tmp_path, splits) == []


@pytest.mark.parametrize(
    ("fields", "basis"),
    [
        ({"hidden_units": 100}, "measured"),
        ({"hidden_units": 100, "epochs": 9, "lr": 0.1}, "measured"),
        ({"hidden_units": 100_000}, "scaled"),
        ({"hidden_units": 100, "hidden_layers": 2}, "scaled"),
    ],
)
def test_estimate_of_other_layers_is_scaled(fields: dict[str, Any], basis: str, splits: Splits, tmp_path: Path) -> None:
    neighbour(tmp_path)
    (point,) = spaces.parse({}, {"model": "mlp"} | fields, "grid").grid()
    assert estimate(point, Request(), splits, found(tmp_path, splits)).basis == basis

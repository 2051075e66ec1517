from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.rundir import RunDir
from tune_jobs.results.table import frame, rows, varied, write

RESULT: dict[str, Any] = {
    "val_accuracy": 0.9, "val_loss": 0.3, "test_accuracy": 0.8, "test_loss": 0.4, "best_epoch": 2, "epochs": 3,
    "train_time_s": 1.5, "precision": "bf16", "device": "cpu", "threads": 1, "params": 10, "macs": 20, "seed": 7,
}  # fmt: skip


def epoch(number: int, accuracy: float | None) -> dict[str, Any]:
    return {"epoch": number, "val_accuracy": accuracy, "val_loss": 1.0 / number, "epoch_time_s": 0.5}


def trials() -> list[TrialRecord]:
    return [
        TrialRecord("0", {"model": "svm", "gamma": "scale"}, "COMPLETE", 1, [], RESULT | {"seed": None}, 2.0),
        TrialRecord("1", {"model": "svm", "gamma": 0.1}, "WAITING"),
        TrialRecord(
            "2", {"model": "mlp", "epochs": 9, "seed": 42, "lr": 0.1}, "FAIL", 2,
            [epoch(1, 0.5), epoch(2, 0.7), epoch(3, 0.7), epoch(4, None)], {}, 4.0, "diverged", "nan",
        ),
    ]  # fmt: skip


def test_rows_complete_trial_has_its_result() -> None:
    row = rows(trials())[0]
    assert (row.val_accuracy, row.test_accuracy, row.best_epoch, row.epochs) == (0.9, 0.8, 2, 3)
    assert (row.wall_time_s, row.attempts, row.failure, row.seed) == (2.0, 1, None, None)


def test_rows_failed_trial_keeps_what_it_had_and_its_reason() -> None:
    row = rows(trials())[2]
    assert (row.state, row.failure, row.reason, row.attempts) == ("FAIL", "diverged", "nan", 2)
    assert (row.val_accuracy, row.best_epoch, row.epochs, row.train_time_s) == (0.7, 2, 4, 2.0)
    assert math.isnan(row.test_accuracy)
    assert row.seed == 42


def test_rows_waiting_trial_has_no_numbers() -> None:
    row = rows(trials())[1]
    assert math.isnan(row.val_accuracy)
    assert math.isnan(row.wall_time_s)
    assert (row.best_epoch, row.epochs, row.train_time_s, row.device) == (None, 0, 0.0, None)


def test_varied_is_what_has_several_values() -> None:
    assert varied([row.config for row in rows(trials())]) == ["model", "gamma"]


def test_frame_columns() -> None:
    data = frame(rows(trials()))
    assert list(data.columns) == [
        "id", "state", "model", "gamma", "config_epochs", "lr",
        "val_accuracy", "test_accuracy", "val_loss", "test_loss", "best_epoch", "epochs", "train_time_s",
        "wall_time_s", "precision", "device", "threads", "fused", "params", "macs", "seed", "fold", "pareto",
        "cpu", "gpu", "peak_memory_mib", "node", "slot", "shared_with", "card", "shared_card_with",
        "attempts", "failure", "reason",
    ]  # fmt: skip
    assert data["gamma"].tolist()[:2] == ["scale", "0.1"]
    assert data["epochs"].tolist() == [3, 0, 4]


def test_write_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write(run, rows(trials()))
    parquet, csv = pd.read_parquet(run.parquet), pd.read_csv(run.csv, dtype={"id": str})
    assert list(parquet.columns) == list(csv.columns)
    assert parquet["id"].tolist() == csv["id"].tolist() == ["0", "1", "2"]
    for name in ("val_accuracy", "train_time_s", "wall_time_s"):
        pd.testing.assert_series_equal(parquet[name], csv[name], check_exact=False)
    assert parquet["params"].isna().tolist() == [False, True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials.csv", "trials.parquet"]

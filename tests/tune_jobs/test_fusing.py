"""Trials that share a core trained as one, through real Ray: the same trials, reports, stops and deaths as else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pandas as pd
import psutil
import pytest

from tune_jobs.results import ledger

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.conftest import App

pytestmark = pytest.mark.cluster

SEARCH = [
    "search", "digits-demo", "--set", "optimizer=sgd", "--set", "lr=1e-2,1e-3", "--set", "model=mlp,baseline",
    "--set", "resources.cpu=0.5",
]  # fmt: skip
"""Four trials at once, two of a shape."""
FUSED = ["--set", "resources.fuse=true"]


def frame(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "trials.parquet").sort_values("id", ignore_index=True)


@pytest.fixture(scope="module")
def alone(app: App) -> pd.DataFrame:
    ran = app(*SEARCH, "--name", "alone")
    assert ran.returncode == 0, ran.stderr
    return frame(app.storage / "alone")


def assert_same_trials(found: pd.DataFrame, alone: pd.DataFrame) -> None:
    assert list(found["state"]) == ["COMPLETE"] * 4
    for column in ("id", "model", "lr", "epochs", "precision", "params", "macs", "seed"):
        assert list(found[column]) == list(alone[column]), column
    assert (found["test_accuracy"] - alone["test_accuracy"]).abs().max() < 0.03


def assert_same_beginning(run: Path, other: Path) -> None:
    """What rounding does grows with each step: after the first epoch it is small still."""
    first, wanted = (
        [trial.epochs[0]["train_loss"] for trial in ledger.read(path / "trials.jsonl").values()]
        for path in (run, other)
    )
    assert first == pytest.approx(wanted, rel=1e-3)


def test_fused_trials_are_those_trained_alone(app: App, alone: pd.DataFrame) -> None:
    assert alone["fused"].isna().all()
    ran = app(*SEARCH, *FUSED, "--name", "fused")
    assert ran.returncode == 0, ran.stderr
    found = frame(app.storage / "fused")
    assert_same_trials(found, alone)
    assert_same_beginning(app.storage / "fused", app.storage / "alone")
    assert list(found["fused"]) == [2] * 4
    assert list(found["attempts"]) == [1] * 4

    again = app("train", str(app.storage / "fused" / "best.yaml"))
    assert again.returncode == 0, again.stderr
    told = again.stdout.splitlines()[-2]
    assert told == "that is the same as in the search" or told.endswith(
        "2 were trained as one and rounded in another order"
    )


def test_a_scheduler_stops_fused_trials(app: App) -> None:
    """The others are not held up by a stopped one, whose worker hears of it only with its next trial."""
    ran = app(*SEARCH, *FUSED, "--set", "scheduler.name=asha", "--set", "epochs=9", "--name", "stopped")
    assert ran.returncode == 0, ran.stderr
    found = frame(app.storage / "stopped")
    assert set(found["state"]) == {"COMPLETE", "PRUNED"}
    assert (found["fused"].dropna() == 2).all()
    assert found["wall_time_s"].max() < 60


def test_trials_outlive_the_process_that_trains_them(app: App) -> None:
    """Killed once, another is begun, which goes on from their checkpoints; killed again, each worker trains its own."""
    process = app.start(*SEARCH, *FUSED, "--set", "epochs=40", "--name", "killed")
    run = app.storage / "killed"
    for killed in (1, 2):
        _wait_for_epochs(run, process, 3 * killed)
        fuser = _fuser(process.pid)
        assert fuser is not None
        assert any((run / "checkpoints").rglob("epoch-*.pt"))
        fuser.kill()
        fuser.wait(timeout=30)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    found = frame(run)
    assert list(found["state"]) == ["COMPLETE"] * 4
    assert list(found["attempts"]) == [1] * 4, "no trial is to blame for it"
    assert list(found["epochs"]) == [40] * 4
    assert found["fused"].isna().all()
    refused = [line for line in out.splitlines() if "does not go on from a checkpoint" in line]
    assert {line.split()[2] for line in refused} == set(found["id"]), "each begins again once it is alone"
    for trial in ledger.read(run / "trials.jsonl").values():
        assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, 41))


def _wait_for_epochs(run: Path, process: subprocess.Popen[str], epochs: int) -> None:
    """Until each trial has told so many, or has been trained on behind that."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, "ended before it could be disturbed"
        trials = ledger.read(run / "trials.jsonl") if (run / "trials.jsonl").exists() else {}
        if len(trials) == 4 and min(len(trial.epochs) for trial in trials.values()) >= epochs:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {epochs} epochs")


def _fuser(driver: int) -> psutil.Process | None:
    """The process that trains, among the driver's descendants."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for child in psutil.Process(driver).children(recursive=True):
            try:
                if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::TrialFuser"):
                    return child
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    return None

"""What is left of a search when things die: nothing lost, nothing doubled, the numbers those of an undisturbed run.

Each prints a row of the table in BENCHMARKS.md: `python -m pytest tests/tune_jobs/test_survival.py -m '' -s`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil
import pytest

from tune_jobs.results import ledger, table

if TYPE_CHECKING:
    from tests.conftest import App

pytestmark = pytest.mark.cluster

SEARCH = ["search", "digits-demo", "--set", "model=baseline", "--set", "lr=1e-3,1e-4", "--set", "epochs=16"]
TRIALS = 4
UNTIMED = [
    "id", "state", "model", "lr", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "best_epoch", "epochs",
    "precision", "device", "threads", "params", "macs", "seed", "failure", "reason",
]  # fmt: skip
"""Columns that do not depend on how fast the machine was."""


@pytest.fixture(scope="module")
def undisturbed(app: App) -> pd.DataFrame:
    ran = app(*SEARCH, "--name", "undisturbed")
    assert ran.returncode == 0, ran.stderr
    return frame(app.storage / "undisturbed")


def frame(run: Path) -> pd.DataFrame:
    return table.frame(table.rows(ledger.read(run / "trials.jsonl").values()))[UNTIMED]


def account(what: str, run: Path, undisturbed: pd.DataFrame, times: int) -> None:
    """Nothing lost, nothing doubled, the same numbers; and a row for the table."""
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines() if _is_whole(line)]
    completed = Counter(line["trial"] for line in lines if line.get("state") == "COMPLETE")
    lost = TRIALS - len(completed)
    doubled = sum(count - 1 for count in completed.values())
    print(f"| {what} | {times} | {TRIALS} | {len(completed)} | {lost} | {doubled} |")
    assert (lost, doubled) == (0, 0)
    pd.testing.assert_frame_equal(frame(run), undisturbed, check_exact=True)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [_best(run)]


def _is_whole(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _best(run: Path) -> str:
    """By accuracy; of several with the highest, that which trained in the least time."""
    rows = pd.read_parquet(run / "trials.parquet")
    best: str = rows.sort_values(["val_accuracy", "train_time_s"], ascending=[False, True])["id"].iloc[0]
    return best


def workers(driver: int) -> list[psutil.Process]:
    """The processes of trials, which Ray names by their class."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        try:
            if "TrialWorker" in (child.cmdline() or [""])[0]:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def epochs(run: Path) -> int:
    return sum(len(trial.epochs) for trial in ledger.read(run / "trials.jsonl").values())


@pytest.mark.slow
def test_moved_run_with_a_cut_ledger_and_without_its_study_is_taken_up(
    app: App, undisturbed: pd.DataFrame, tmp_path: Path
) -> None:
    """The run directory copied elsewhere while it runs, its ledger cut mid-line, its study damaged, and Ray's own
    files of it gone."""
    run = app.storage / "moving"
    process = app.start(*SEARCH, "--name", "moving")
    until(lambda: epochs(run) > 8, process)
    process.kill()
    process.communicate()
    elsewhere = tmp_path / "storage"
    shutil.copytree(run, elsewhere / "moving")
    shutil.rmtree(run)
    moved = elsewhere / "moving"
    for path in moved.iterdir():
        if path.name.startswith(("experiment_state", "search_gen_state", "tuner")):
            path.unlink()
    lines = (moved / "trials.jsonl").read_bytes()
    (moved / "trials.jsonl").write_bytes(lines[:-25])
    study = (moved / "optuna.journal").read_bytes()
    (moved / "optuna.journal").write_bytes(study[: len(study) // 2])
    again = app(*SEARCH, "--name", "moving", "--storage", str(elsewhere))
    assert again.returncode == 0, again.stderr
    assert "go on from their last checkpoint" in again.stdout
    account("run directory moved, ledger cut mid-line, study damaged", moved, undisturbed, 1)


@pytest.mark.slow
def test_interrupted_search_ends_at_once_and_leaves_no_process(app: App, undisturbed: pd.DataFrame) -> None:
    run = app.storage / "stopped"
    for number in (signal.SIGINT, signal.SIGTERM):
        before = epochs(run)
        process = app.start(*SEARCH, "--name", "stopped")
        until(lambda before=before: epochs(run) > before + 4, process)  # type: ignore[misc]
        ours = workers(process.pid)
        assert ours
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (4, ""), out
        assert "the same command takes it up again" in out
        assert not any(worker.is_running() for worker in ours)
        assert "RUNNING" not in set(pd.read_parquet(run / "trials.parquet")["state"])
    again = app(*SEARCH, "--name", "stopped")
    assert again.returncode == 0, again.stderr
    account("SIGINT, SIGTERM", run, undisturbed, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # twenty starts, and twice 400 epochs of four trials
def test_twenty_sigkills_of_the_driver(app: App) -> None:
    search = [*SEARCH[:-1], "epochs=400"]  # so that it outlasts them
    assert app(*search, "--name", "undisturbed-400").returncode == 0
    run, chance = app.storage / "killed", random.Random(0)
    for _ in range(20):
        process = app.start(*search, "--name", "killed")
        with pytest.raises(subprocess.TimeoutExpired):  # or it was over before it could be killed often enough
            process.communicate(timeout=chance.uniform(2, 16))
        process.kill()
        process.communicate()
    again = app(*search, "--name", "killed")
    assert again.returncode == 0, again.stderr
    undisturbed = frame(app.storage / "undisturbed-400")
    account("SIGKILL of the driver, at random moments", run, undisturbed, 20)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["starting", "in an epoch", "writing a checkpoint"])
def test_sigkill_of_a_worker(app: App, undisturbed: pd.DataFrame, phase: str) -> None:
    name = f"worker-{phase.split()[0]}"
    run = app.storage / name
    process = app.start(*SEARCH, "--name", name)
    if phase == "starting":
        until(lambda: bool(workers(process.pid)), process)
    elif phase == "in an epoch":
        until(lambda: epochs(run) > 6, process)
    else:
        until(lambda: any((run / "checkpoints").glob("*/.epoch-*.tmp")), process)
    workers(process.pid)[0].kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "worker_crashed: its worker process died; attempt" in out
    account(f"SIGKILL of a worker, {phase}", run, undisturbed, 1)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1.5 MiB."""
    where = Path("/tmp") / f"tj-small-{os.getpid()}"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(where)], capture_output=True)
    if mounted.returncode:
        where.rmdir()
        pytest.skip("a file system cannot be mounted here")
    yield where
    subprocess.run(["umount", str(where)], check=True)
    where.rmdir()


@pytest.mark.slow
def test_full_disk_ends_the_search_with_a_line_and_tears_no_file(
    app: App, undisturbed: pd.DataFrame, small_disk: Path
) -> None:
    full = app(*SEARCH, "--name", "full", "--storage", str(small_disk))
    assert full.returncode == 4, full.stdout + full.stderr
    assert full.stderr == ""
    assert "No space left on device" in full.stdout
    assert "the same command takes it up again" in full.stdout
    assert all(_is_whole(line) for line in (small_disk / "full" / "trials.jsonl").read_text().splitlines())
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = app(*SEARCH, "--name", "full", "--storage", str(small_disk))
    assert again.returncode == 0, again.stdout + again.stderr
    account("full disk, then more room", small_disk / "full", undisturbed, 1)

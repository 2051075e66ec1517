from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from datasets import DatasetConfig, load_splits
from models import TrainConfig
from models.result import EpochMetrics
from models.training import fit
from profiling import harness
from profiling.__main__ import app as profiling
from profiling.harness_report import markdown
from profiling.harness_task import Task, read_results
from tune_jobs import stock_tune

if TYPE_CHECKING:
    from tests.conftest import App

TINY = ["bench", "--dataset", "digits", "--limit", "60", "--models", "mlp", "--batch-size", "16", "--lr", "1e-2"]


def made_up(contender: str, round_: int, wall_s: float, train_time_s: float, slots: int = 2) -> harness.Run:
    """A run that nobody made, of four trials."""
    return harness.Run(
        contender=contender, round=round_, work="made up", trials=4, slots=slots, seed=41 + round_, wall_s=wall_s,
        train_time_s=train_time_s, overhead_s=(wall_s * slots - train_time_s) / 4, val_accuracy=0.5 + round_ / 100,
        test_accuracy=0.5, driver_mib_100=math.nan, driver_mib_500=math.nan, driver_mib_last=300.0, cpu="no real CPU",
        cpu_cores=2, memory_gib=1.0, cores_busy_before=0.1, python="3.11.0", torch="2.11.0", ray="2.60.0",
        optuna="5.0.0", git_commit=None,
    )  # fmt: skip


@pytest.mark.slow
def test_bench_contenders_train_the_same_cells_and_the_floor_is_our_training(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    asked = [*TINY, "--rounds", "1", "--contenders", "sequential,optuna,floor", "--output", str(path)]
    ran = CliRunner().invoke(profiling, asked)
    assert ran.exit_code == 0, ran.output
    runs, cells = pd.read_parquet(path), pd.read_parquet(tmp_path / "b-cells.parquet")
    assert runs["contender"].tolist() == ["sequential", "optuna", "floor"]
    assert runs["trials"].tolist() == [2, 2, 2]
    assert runs["slots"].tolist()[0] == 1
    assert (runs["wall_s"] * runs["slots"] - runs["train_time_s"]).tolist() == pytest.approx(
        (runs["overhead_s"] * runs["trials"]).tolist()
    )
    for _, own in cells.groupby("contender"):
        assert sorted(own["optimizer"]) == ["adam", "sgd"]
        assert set(own["seed"]) == {42}
    splits = load_splits(DatasetConfig(name="digits", limit=60))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for cell in cells[cells["contender"] == "floor"].to_dict("records"):
            told: list[EpochMetrics] = []
            fields = {name: cell[name] for name in ("model", "batch_size", "optimizer", "lr", "seed")}
            fitted = fit(TrainConfig(**fields, epochs=1), splits, torch.device("cpu"), told.append)
            assert cell["val_accuracy"] == told[-1].val_accuracy
            assert cell["test_accuracy"] == fitted.result.test_accuracy
    finally:
        torch.set_num_threads(threads)
    assert "| sequential |" in ran.output
    assert (tmp_path / "b.csv").exists()
    assert (tmp_path / "b-cells.csv").exists()


def test_bench_cells_stand_the_longest_first() -> None:
    splits = load_splits(DatasetConfig(name="digits", limit=60))
    axes: dict[str, list[Any]] = {
        "model": ["mlp", "baseline"],
        "batch_size": [32, 16],
        "optimizer": ["sgd", "adam"],
        "lr": [1e-3],
    }
    cells = harness.grid(splits, {"name": "digits"}, axes, 1, "").cells
    assert [(cell["model"], cell["batch_size"], cell["optimizer"]) for cell in cells] == [
        (model, batch, optimizer)
        for model in ("baseline", "mlp")
        for batch in (16, 32)
        for optimizer in ("adam", "sgd")
    ]


def test_rounds_are_interleaved_and_each_begins_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(
        work: harness.Work, contender: str, round_: int, folder: Path
    ) -> tuple[harness.Run, list[harness.Cell]]:
        assert folder.is_dir()
        return made_up(contender, round_, 1.0, 1.0), []

    monkeypatch.setattr(harness, "measure", measure)
    heard: list[tuple[int, str]] = []
    harness.rounds(
        [harness.idle(1)], ("a", "b", "c"), 2, tmp_path, lambda run, _: heard.append((run.round, run.contender))
    )
    assert heard == [(1, "a"), (1, "b"), (1, "c"), (2, "b"), (2, "c"), (2, "a")]


def test_markdown_has_medians_spread_and_ratios_round_by_round() -> None:
    """The median of the walls is 100 for 25; of the rounds' ratios it is 3.75."""
    runs = [
        made_up(name, round_, wall, 8.0, slots)
        for name, walls, slots in (
            ("sequential", (90.0, 100.0, 200.0), 1),
            ("ours", (24.0, 30.0, 25.0), 2),
            ("floor", (20.0, 20.0, 20.0), 2),
        )
        for round_, wall in enumerate(walls, 1)
    ]
    lines = markdown(runs, []).splitlines()
    (ours,) = (line for line in lines if line.startswith("| ours"))
    assert [cell.strip() for cell in ours.strip("|").split("|")] == [
        "ours", "25.0", "24%", "3.75 (3.33 to 8.00)", "1.25 (1.20 to 1.50)", "8.0", "10.500", "52.00 ± 1.00",
        "–", "–", "300",
    ]  # fmt: skip
    assert "| floor | 20.0 | 0% | 5.00 (4.50 to 10.00) | 1.00 |" in "\n".join(lines)
    assert "others kept at most 0.1 cores busy" in lines[-1]
    assert "no real CPU, 2 cores" in lines[-1]
    assert "commit unknown" in lines[-1]


def test_markdown_idle_runs_have_no_accuracy() -> None:
    idle = replace(made_up("ours", 1, 9.0, 0.0), val_accuracy=math.nan)
    (line,) = (line for line in markdown([idle], []).splitlines() if line.startswith("| ours"))
    assert line == "| ours | 9.0 | – | 0.0 | 4.500 | – | – | – | 300 |"


def test_markdown_of_one_round_has_neither_spread_nor_range() -> None:
    runs = [made_up("stock", 1, 30.0, 8.0), made_up("ours", 1, 10.0, 8.0)]
    assert "| ours | 10.0 | – | 3.00 | 8.0 |" in markdown(runs, [])


def test_cores_busy_are_of_the_whole_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def cpu_percent(interval: float) -> float:
        asked.append(interval)
        return 25.0

    monkeypatch.setattr("profiling.harness.psutil.cpu_percent", cpu_percent)
    monkeypatch.setattr("profiling.harness.machine.cpu_cores", lambda: 8)
    assert harness._cores_busy(1.5) == 2.0
    assert asked == [1.5]


def test_stock_idle_trials_have_no_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Result:
        error, metrics, config = None, dict.fromkeys(stock_tune.FIGURES, 0.0), {"cell": {"number": 0}}

    monkeypatch.setattr("tune_jobs.stock_tune.tune.Tuner.fit", lambda _: [Result()])
    task = Task(epochs=1, seed=42, slots=1, cells=[{"number": 0}], results=str(tmp_path / "results.jsonl"))
    stock_tune.main(task)
    (told,) = read_results(tmp_path / "results.jsonl")
    assert math.isnan(told.val_accuracy)
    assert math.isnan(told.test_accuracy)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--contenders", "nobody"], "--contenders 'nobody': there are sequential, stock, optuna, ours, floor"),
        (["--idle", "16", "--contenders", "floor"], "--contenders 'floor': there are stock, optuna, ours"),
        (["--idle", "0"], "--idle '0': is not a whole number from 1 to 100,000"),
        (["--lr", "fast"], "--lr 'fast': is not a number above 0"),
        (["--models", "svm"], "--models 'svm': the course's loop trains networks alone"),
        (["--optimizers", "adamw"], "--optimizers 'adamw': there are sgd, adam"),
        (["--dataset", "npz"], "--dataset 'npz': there are digits, fashion_mnist, mnist"),
    ],
)
def test_bench_wrong_words_are_one_line(words: list[str], said: str) -> None:
    ran = CliRunner().invoke(profiling, [*TINY, *words])
    assert (ran.exit_code, ran.stderr) == (2, f"error: {said}\n")


def test_bench_contender_that_fails_says_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiling.harness.sys.executable", "/bin/false")
    asked = [*TINY, "--contenders", "floor", "--output", str(tmp_path / "b.parquet")]
    ran = CliRunner().invoke(profiling, asked)
    assert (ran.exit_code, ran.stderr) == (2, "error: floor: ended with exit code 1: it said nothing\n")


@pytest.mark.slow
@pytest.mark.cluster
def test_bench_ours_and_stock_train_the_cells_and_idle_trials_are_counted(app: App) -> None:
    for words, trials in ((TINY, 2), (["bench", "--idle", "3"], 3)):
        path = app.home / f"{trials}.parquet"
        asked = [*words, "--rounds", "1", "--contenders", "stock,ours", "--output", str(path)]
        process = app.start(*asked, command=("-m", "profiling"))
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, out + err
        runs = pd.read_parquet(path)
        assert runs["contender"].tolist() == ["stock", "ours"]
        assert runs["trials"].tolist() == [trials, trials]
        assert runs["driver_mib_last"][1] > 0
    cells = pd.read_parquet(app.home / "2-cells.parquet")
    assert sorted(zip(cells["contender"], cells["optimizer"], strict=True)) == [
        ("ours", "adam"), ("ours", "sgd"), ("stock", "adam"), ("stock", "sgd"),
    ]  # fmt: skip
    assert (cells["train_time_s"] > 0).all()


@pytest.mark.slow
@pytest.mark.cluster
def test_bench_the_driver_of_a_thousand_trials_does_not_grow_with_them(app: App) -> None:
    """Of a trial that is over it keeps its row and Optuna its own: a few KiB.  One of Tune's trials is 30, so that the
    bound, which leaves room for a table that Python doubles once, is passed where Tune keeps them."""
    path = app.home / "thousand.parquet"
    ran = app.run(
        "profiling", "bench", "--idle", "1000", "--rounds", "1", "--contenders", "ours", "--output", str(path)
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(ran.stdout)
    (run,) = pd.read_parquet(path).to_dict("records")
    assert run["trials"] == 1000
    grown_kib = {mark: 1024 * (run[f"driver_mib_{mark}"] - run["driver_mib_100"]) for mark in ("500", "last")}
    assert grown_kib["500"] / 400 < 30
    assert grown_kib["last"] / 900 < 20

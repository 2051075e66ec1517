"""How long the same trainings take in our hands and in others', from process start to last result.

Each contender is a process of its own that reads the same images, split and cells; rounds are interleaved, each with
another seed, and each begins with another contender.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

import models
from datasets import Splits
from models import TrainConfig
from profiling import ProfilingError, machine
from profiling.files import write_table
from profiling.flops import macs
from profiling.harness_task import Task, Trained, cells_done, done_nothing, read_results, write_data

CONTENDERS = ("sequential", "stock", "optuna", "ours", "floor")
"""The course's loop; Ray Tune as in its own example; Optuna in a process a core; `tune_jobs search`; bare processes
that call `models.training.fit`."""
IDLE_CONTENDERS = ("stock", "optuna", "ours")
"""Those that have a cost beyond the training."""
ROOT = Path(__file__).parent.parent
_POLL_S = 0.1
_LOOK_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One contender, once."""

    contender: str
    round: int
    """From 1."""
    work: str
    """What was trained, in words."""
    trials: int
    slots: int
    """Trainings at once; 1 for the sequential loop, which has all cores to itself."""
    seed: int
    wall_s: float
    """From process start to process end."""
    train_time_s: float
    """Sum over the trials of training alone."""
    overhead_s: float
    """(wall × slots − training) / trials."""
    val_accuracy: float
    """Mean over the trials, after the last epoch."""
    test_accuracy: float
    driver_mib_100: float
    """Resident memory of the contender's first process when 100 of its trials were finished; NaN where not known."""
    driver_mib_500: float
    """The same for 500."""
    driver_mib_last: float
    """When the last was."""
    cpu: str
    cpu_cores: int
    memory_gib: float
    cores_busy_before: float
    """That other work took in the two seconds before it began: more than a few tenths of one spoil the run."""
    python: str
    torch: str
    ray: str
    optuna: str
    git_commit: str | None


@dataclass(frozen=True)
class Cell:
    """One training of one run."""

    contender: str
    round: int
    model: str
    batch_size: int
    optimizer: str
    lr: float
    seed: int
    train_time_s: float
    val_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class Work:
    """What all contenders are to do."""

    words: str
    experiment: dict[str, Any]
    """Ours, without name and seed; JSON is YAML."""
    cells: list[dict[str, Any]]
    """The same in a list, the longest first."""
    epochs: int
    splits: Splits | None
    """None where nothing is trained."""


def grid(splits: Splits, dataset: dict[str, Any], axes: dict[str, list[Any]], epochs: int, words: str) -> Work:
    """A full grid over `axes`: model, batch_size, optimizer and lr."""
    cells: list[dict[str, Any]] = [{}]
    for field, values in axes.items():
        cells = [cell | {field: value} for cell in cells for value in values]
    for model in axes["model"]:
        if not models.is_network(model):
            raise ProfilingError(f"--models {model!r}: the course's loop trains networks alone")
        models.check(TrainConfig(model=model), splits.channels, len(splits.classes), splits.image_size)

    def length(cell: dict[str, Any]) -> tuple[int, int, bool]:
        cost = macs(TrainConfig(**cell), splits.channels, len(splits.classes), splits.image_size)
        return -(cost or 0), cell["batch_size"], cell["optimizer"] == "sgd"

    experiment = {
        "dataset": dataset,
        "space": {field: {"grid": values} for field, values in axes.items()},
        "train": {"epochs": epochs},
        "resources": {"cpu": 1},
    }
    return Work(words, experiment, sorted(cells, key=length), epochs, splits)


def idle(trials: int) -> Work:
    """Trials with next to nothing to train: of ours, which has no empty model, an svm on 14 digits; of the others,
    a function that returns at once."""
    experiment = {
        "dataset": {"name": "digits", "limit": 20, "image_size": 8},
        "space": {"model": "svm", "C": {"grid": [float(number + 1) for number in range(trials)]}},
        "resources": {"cpu": 1},
    }
    return Work(f"{trials} idle trials", experiment, [{"number": number} for number in range(trials)], 1, None)


def measure(work: Work, contender: str, round_: int, folder: Path) -> tuple[Run, list[Cell]]:
    """Run one contender to its end.  `folder` is empty and its own.

    Raises ProfilingError where it fails or trains less than all cells.
    """
    seed, slots = 41 + round_, machine.cpu_cores()
    task = _task(work, seed, slots, folder)
    busy = _cores_busy(_LOOK_S)
    wall_s, trained, memory = _run(contender, work, task, folder)
    if len(trained) != len(work.cells):
        raise ProfilingError(f"{contender}: {len(trained)} of {len(work.cells)} trials have a result")
    train_time_s = sum(one.train_time_s for one in trained)
    own_slots = 1 if contender == "sequential" else slots
    run = Run(
        contender=contender, round=round_, work=work.words, trials=len(trained), slots=own_slots, seed=seed,
        wall_s=wall_s, train_time_s=train_time_s,
        overhead_s=(wall_s * own_slots - train_time_s) / len(trained),
        val_accuracy=_mean([one.val_accuracy for one in trained]),
        test_accuracy=_mean([one.test_accuracy for one in trained]),
        driver_mib_100=memory.get(100, math.nan), driver_mib_500=memory.get(500, math.nan),
        driver_mib_last=memory.get(len(trained), math.nan),
        cpu=machine.cpu_name(), cpu_cores=slots, memory_gib=machine.memory_gib(), cores_busy_before=busy,
        python=sys.version.split()[0], torch=machine.version("torch"), ray=machine.version("ray"),
        optuna=machine.version("optuna"), git_commit=machine.git_commit(),
    )  # fmt: skip
    if work.splits is None:
        return run, []
    times = ("train_time_s", "val_accuracy", "test_accuracy")
    return run, [
        Cell(contender, round_, **one.cell, seed=seed, **{name: getattr(one, name) for name in times})
        for one in trained
    ]


def _cores_busy(seconds: float) -> float:
    """How many cores' worth of time all processes took on average, while this one waited."""
    share_percent: float = psutil.cpu_percent(interval=seconds)
    return share_percent / 100 * machine.cpu_cores()


def _task(work: Work, seed: int, slots: int, folder: Path) -> Task:
    results = str(folder / "results.jsonl")
    experiment = work.experiment | {"name": "ours"}
    task = Task(epochs=work.epochs, seed=seed, slots=slots, cells=work.cells, results=results)
    if (splits := work.splits) is not None:
        data = folder / "data.npz"
        write_data(splits, data)
        task = replace(
            task,
            data=str(data),
            classes=len(splits.classes),
            image_size=splits.image_size,
            mean=splits.mean,
            std=splits.std,
        )
        experiment["train"] = experiment["train"] | {"seed": seed}
    task.write(folder / "task.json")
    (folder / "ours.yaml").write_text(json.dumps(experiment))
    return task


def _run(contender: str, work: Work, task: Task, folder: Path) -> tuple[float, list[Trained], dict[int, float]]:
    """Seconds, results, and resident MiB of the first process when so many trials were finished."""
    ours = contender == "ours"
    path = str(folder / "task.json")
    command = {
        "ours": ["tune_jobs", "search", str(folder / "ours.yaml"), "--storage", str(folder)],
        "stock": ["tune_jobs.stock_tune", path],
    }.get(contender, ["profiling.harness_contenders", contender, path])
    # Each starts a Ray of its own, whatever cluster runs here or did.
    environment = os.environ | {"RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    done = folder / "ours" / "trials.jsonl" if ours else Path(task.results)
    memory: dict[int, float] = {}
    with (folder / "log").open("w") as log:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            finished, offset = 0, 0
            while process.poll() is None:
                if done.exists():
                    with done.open() as lines:
                        lines.seek(offset)
                        new = [line for line in lines if line.endswith("\n")]
                        offset += sum(len(line.encode()) for line in new)
                    finished += cells_done(new) if ours else len(new)
                    for mark in (100, 500, len(work.cells)):
                        if finished >= mark:
                            memory.setdefault(mark, psutil.Process(process.pid).memory_info().rss / 2**20)
                time.sleep(_POLL_S)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        wall_s = time.perf_counter() - began
    if process.returncode:
        lines_ = (folder / "log").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise ProfilingError(f"{contender}: ended with exit code {process.returncode}: {lines_[-1]}")
    return wall_s, _of_ledger(done, work) if ours else read_results(done), memory


def _of_ledger(ledger: Path, work: Work) -> list[Trained]:
    """What a run of ours wrote: the last epoch and the result of each trial."""
    configs: dict[str, dict[str, Any]] = {}
    last: dict[str, float] = {}
    found = []
    for event in map(json.loads, ledger.read_text().splitlines()):
        trial = event["trial"]
        if "config" in event:
            configs[trial] = event["config"]
        elif event["event"] == "epoch":
            last[trial] = event["val_accuracy"]
        elif event.get("state") == "COMPLETE":
            result = event["result"]
            if work.splits is None:
                found.append(replace(done_nothing({}), train_time_s=result["train_time_s"]))
            else:
                cell = {field: configs[trial][field] for field in work.cells[0]}
                found.append(Trained(cell, result["train_time_s"], last[trial], result["test_accuracy"]))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rounds(
    works: Sequence[Work], contenders: Sequence[str], count: int, folder: Path, tell: Callable[[Run, list[Cell]], None]
) -> None:
    """All contenders on all works, interleaved; `tell` hears of each run as it ends."""
    for work in works:
        for round_ in range(1, count + 1):
            first = (round_ - 1) % len(contenders)
            for contender in [*contenders[first:], *contenders[:first]]:
                own = folder / f"{works.index(work)}-{round_}-{contender}"
                own.mkdir()
                tell(*measure(work, contender, round_, own))


def write(runs: Sequence[Run], cells: Sequence[Cell], path: Path) -> None:
    """`path` (.parquet), the cells' beside it as `…-cells.parquet`, and both as .csv, each whole or as it was."""
    import pandas as pd

    tables = {path: pd.DataFrame([asdict(run) for run in runs])}
    if cells:
        tables[path.with_name(f"{path.stem}-cells{path.suffix}")] = pd.DataFrame([asdict(cell) for cell in cells])
    for where, table in tables.items():
        for suffix in (".parquet", ".csv"):
            write_table(table, where.with_suffix(suffix))

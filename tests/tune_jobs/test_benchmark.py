"""The device benchmark through real Ray, as a person starts it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

from datasets import DatasetConfig, load_splits
from models import TrainConfig
from models.training import fit
from profiling import rows
from profiling.devices import Case
from tune_jobs.benchmark import Kind, kinds, plan

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.conftest import App

CASES = [Case("mlp", "sgd", 8, 16, precision, 3, 2) for precision in ("auto", "fp16")]
SVM = Case("svm", None, 8, None, "auto", None, 1)


def node(alive: bool = True, h100: bool = False, **resources: float) -> dict[str, Any]:
    resources |= {"accelerator_type:H100": 1.0} if h100 else {}
    return {"Alive": alive, "NodeID": f"node {resources}", "Resources": {"memory": 1e9, **resources}}


def test_kinds_are_living_nodes_with_cpus_one_of_each() -> None:
    nodes = [
        node(CPU=8.0),
        node(CPU=8.0, extra=1.0),
        node(CPU=16.0, GPU=2.0, h100=True),
        node(CPU=0.0),
        node(alive=False, CPU=64.0),
    ]
    found = kinds(nodes)
    assert found == {Kind(8, 0, ""): nodes[0]["NodeID"], Kind(16, 2, "H100"): nodes[2]["NodeID"]}
    assert [str(kind) for kind in found] == ["8 CPUs", "16 CPUs 2 H100"]
    assert [kind.threads(device) for kind in found for device in ("cpu", "cuda:0") if kind.gpus] == [16, 8]


def test_plan_puts_each_row_where_it_can_run() -> None:
    nodes = [Kind(8, 0, ""), Kind(16, 2, "H100")]
    found = [(task.kind.cpus, task.device, task.case) for task in plan([*CASES, SVM], ("cpu", "cuda:0"), nodes)]
    auto, fp16 = CASES
    assert found == [
        (8, "cpu", auto), (8, "cpu", SVM),
        (16, "cpu", auto), (16, "cpu", SVM), (16, "cuda:0", auto), (16, "cuda:0", fp16),
    ]  # fmt: skip
    assert plan(CASES, ("cuda:0",), nodes[:1]) == []
    assert len({task.key for task in plan([*CASES, SVM], ("cpu", "cuda:0"), nodes)}) == 6


ASKED = ["benchmark", "--dataset", "digits", "--limit", "300", "--image-size", "8", "--models", "baseline,svm"]


def record(run: Path) -> list[dict[str, Any]]:
    """The lines of rows.jsonl, without those that are empty or cut."""
    path = run / "rows.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}}")]


@pytest.fixture(scope="module")
def whole(app: App) -> subprocess.CompletedProcess[str]:
    """Three rows, undisturbed."""
    return app(*ASKED, "--name", "whole")


@pytest.mark.cluster
def test_benchmark_measures_the_rows_of_profiling_alone_on_the_node(
    app: App, whole: subprocess.CompletedProcess[str]
) -> None:
    assert (whole.returncode, whole.stderr) == (0, ""), whole.stdout
    run = app.storage / "whole"
    found = rows.read(run / "benchmark.parquet")
    cpus = os.cpu_count() or 1
    assert [(row.machine, row.compute, row.model, row.optimizer) for row in found] == [
        (f"{cpus} CPUs", "cpu", "baseline", "sgd"), (f"{cpus} CPUs", "cpu", "baseline", "adam"),
        (f"{cpus} CPUs", "cpu", "svm", None),
    ]  # fmt: skip
    assert all(row.complete for row in found)
    assert [row.threads for row in found] == [cpus, cpus, 1]
    splits = load_splits(DatasetConfig(name="digits", image_size=8, limit=300))
    before = torch.get_num_threads()
    torch.set_num_threads(cpus)
    try:
        config = TrainConfig(model="baseline", optimizer="adam", epochs=1, batch_size=16, lr=1e-3, seed=42)
        fresh = fit(config, splits, torch.device("cpu"), lambda _: None).result
    finally:
        torch.set_num_threads(before)
    assert found[1].test_accuracy == fresh.test_accuracy
    assert json.loads((run / "environment.json").read_text())["data_sha256"] == splits.sha256
    assert [repr(row) for row in rows.read(run / "benchmark.csv")] == [repr(row) for row in found]
    lines = whole.stdout.splitlines()
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]
    assert lines[-1] == f"run directory: {run}"
    assert any("no GPU was measured" in line for line in lines)


@pytest.mark.slow
@pytest.mark.cluster
def test_benchmark_again_measures_nothing_and_another_one_is_refused(
    app: App, whole: subprocess.CompletedProcess[str]
) -> None:
    run = app.storage / "whole"
    before = (run / "rows.jsonl").read_bytes(), (run / "benchmark.csv").read_bytes()
    again = app(*ASKED, "--name", "whole")
    assert again.returncode == 0
    assert "3 rows, 3 of them finished already" in again.stdout
    assert (run / "benchmark.csv").read_bytes() == before[1]
    assert len(record(run)) == 3
    refused = app(*ASKED, "--name", "whole", "--batch-size", "32")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: run whole exists with another benchmark (batch_sizes: [16] -> [32]); give this one another --name\n",
    )


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_benchmark_broken_off_is_taken_up_without_measuring_twice(app: App, how: str) -> None:
    asked = [*ASKED, "--optimizers", "sgd,adam,adamw", "--name", how]
    run = app.storage / how
    process = app.start(*asked)
    try:
        wait_for(lambda: bool(record(run)), process)
        if how == "kill":
            started = psutil.Process(process.pid).children(recursive=True)
            for one in [*started, psutil.Process(process.pid)]:
                if one.is_running():
                    one.kill()
            process.communicate(timeout=60)
        else:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (4, ""), out
            assert "rows left; the same command takes it up again" in out
    finally:
        process.kill()
    first = record(run)
    assert 1 <= len(first) < 4
    with (run / "rows.jsonl").open("a") as half:
        half.write('{"task": "cut by a cra')

    again = app(*asked)
    assert again.returncode == 0, again.stderr
    assert f"4 rows, {len(first)} of them finished already" in again.stdout
    after = record(run)
    assert after[: len(first)] == first
    assert len({line["task"] for line in after}) == len(after) == 4
    found = rows.read(run / "benchmark.parquet")
    assert [row.optimizer for row in found] == ["sgd", "adam", "adamw", None]


@pytest.mark.slow
@pytest.mark.cluster
def test_benchmark_row_that_fails_has_its_reason_and_is_tried_again(app: App) -> None:
    """Ray is told of a GPU that is not there."""
    asked = [*ASKED, "--models", "mlp", "--steps", "2", "--repeats", "2", "--optimizers", "sgd", "--name", "lost"]
    code = (
        "import ray\n"
        "ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)\n"
        "from tune_jobs.__main__ import app\n"
        f"app({asked})\n"
    )
    app.home.joinpath("lost.py").write_text(code)
    for _ in range(2):
        ran = app.script(app.home / "lost.py")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        cpu, card = rows.read(app.storage / "lost" / "benchmark.parquet")
        assert cpu.complete
        assert cpu.machine == card.machine == "2 CPUs 1 GPU"
        assert (card.compute, card.state) == ("cuda:0", "FAIL")
        assert card.reason == "RuntimeError: Ray counts a GPU on this node, PyTorch sees none"
    assert [json.loads(line["task"])[1] for line in record(app.storage / "lost")] == ["cpu", "cuda:0", "cuda:0"]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from datasets import DatasetConfig, load_splits
from models import TrainConfig
from models.training import fit
from profiling import ProfilingError, devices, memory, options, peak, rows
from profiling.__main__ import app
from profiling.flops import macs, training_flops
from profiling.memory import Peak

ROOT = Path(__file__).parent.parent.parent
DIGITS = ["devices", "--dataset", "digits", "--limit", "200", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not measured, which takes a process each, and the peak on small matrices alone."""
    monkeypatch.setattr("profiling.memory.measure", lambda *_: Peak(1.0, math.nan))
    monkeypatch.setitem(peak.SIDES, "cpu", (128,))


def run(*arguments: str) -> tuple[int, str, str]:
    ran = CliRunner().invoke(app, [*DIGITS, *arguments], env={"COLUMNS": "400"})
    return ran.exit_code, ran.stdout, ran.stderr


def test_devices_default_is_the_reports_benchmark() -> None:
    from profiling import options
    from profiling.asked import benchmark

    assert (str(devices.BATCH_SIZE), devices.DATASET) == (options.BATCH_SIZE, options.DATASET)  # the reports'
    asked = benchmark(
        models_=options.MODELS, optimizers=options.OPTIMIZERS, image_sizes=options.IMAGE_SIZE,
        batch_sizes=options.BATCH_SIZE, precisions="auto", steps=None, repeats=None, dataset=options.DATASET,
        limit=None,
    )  # fmt: skip
    assert [(case.model, case.optimizer) for case in asked.cases] == [
        ("resnet18", "sgd"), ("resnet18", "adam"), ("resnet50", "sgd"), ("resnet50", "adam"),
    ]  # fmt: skip
    for case in asked.cases:
        config = case.config
        assert (config.epochs, config.batch_size, config.lr, case.image_size) == (1, 16, 1e-3, 28)
        assert (case.steps, case.repeats) == (None, 1)


def test_devices_whole_epoch_has_the_numbers_of_the_same_training(tmp_path: Path) -> None:
    code, out, err = run(
        "--models",
        "baseline,svm",
        "--optimizers",
        "adam",
        "--precision",
        "fp32",
        "--output",
        str(tmp_path / "r.parquet"),
    )
    assert (code, err) == (0, ""), out
    network, svm = rows.read(tmp_path / "r.parquet")
    splits = load_splits(DatasetConfig(name="digits", limit=200))
    config = TrainConfig(model="baseline", optimizer="adam", epochs=1, batch_size=16, lr=1e-3, seed=42, amp=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = fit(config, splits, torch.device("cpu"), lambda _: None).result
    finally:
        torch.set_num_threads(threads)
    assert network.state == "COMPLETE"
    assert network.test_accuracy == expected.test_accuracy
    assert (network.images, network.threads, network.precision) == (140, 1, "fp32")
    assert (network.estimated, network.steps, network.repeats) == (False, None, 1)
    assert math.isnan(network.spread)
    assert network.images_per_s == pytest.approx(140_000 / network.train_time_ms)
    assert network.step_time_ms == pytest.approx(network.train_time_ms / 9)  # 8 whole batches and one of 12
    assert network.macs == macs(config, 1, 10, 28)
    assert network.training_flops == training_flops(config, 1, 10, 28)
    assert network.achieved_flop_per_s == pytest.approx(network.training_flops * network.images_per_s)
    assert network.peak_share == pytest.approx(network.achieved_flop_per_s / network.peak_flop_per_s)
    assert 0 < network.peak_share < 1
    assert network.peak_memory_mib > 1
    assert network.speedup == 1.0
    assert network.torch == torch.__version__
    assert (svm.optimizer, svm.batch_size, svm.precision, svm.threads) == (None, None, "fp64", 1)
    assert svm.test_accuracy > 0.5
    assert svm.macs is not None
    assert svm.macs % 784 == 0
    assert "no accelerator was measured" in out
    assert "no GPU was measured" in out


@pytest.mark.usefixtures("quick")
def test_devices_steps_give_an_estimated_epoch_with_the_spread(tmp_path: Path) -> None:
    sets = ["--models", "mlp", "--optimizers", "sgd,adam", "--batch-size", "8,32", "--image-size", "8,28"]
    code, out, _ = run(*sets, "--steps", "3", "--repeats", "4", "--output", str(tmp_path / "r.parquet"))
    assert code == 0, out
    found = rows.read(tmp_path / "r.parquet")
    assert [(row.image_size, row.batch_size, row.optimizer) for row in found] == [
        (size, batch, optimizer) for size in (8, 28) for batch in (8, 32) for optimizer in ("sgd", "adam")
    ]
    for row in found:
        assert row.estimated
        assert (row.steps, row.repeats) == (3, 4)
        assert row.spread >= 0
        assert math.isnan(row.test_accuracy)
        assert row.batch_size is not None
        assert row.train_time_ms == pytest.approx(140 / row.batch_size * row.step_time_ms)
    assert "~ an epoch estimated from the timed steps" in out


def test_devices_row_that_fails_keeps_its_reason_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    with monkeypatch.context() as patched:
        patched.setattr("profiling.memory.measure", none_left)
        code, out, err = run("--models", "mlp,svm", "--optimizers", "sgd", "--output", str(tmp_path / "r.parquet"))
    assert (code, err) == (0, ""), out
    failed, svm = rows.read(tmp_path / "r.parquet")
    assert failed.state == "FAIL"
    assert failed.reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    assert math.isnan(failed.train_time_ms)
    assert svm.complete


def test_devices_row_keeps_its_reason_where_the_card_answers_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind an illegal memory access."""

    def measured(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def emptied() -> None:
        raise torch.AcceleratorError("CUDA error: out of answers")

    monkeypatch.setattr(devices, "_measure_network", measured)
    monkeypatch.setattr("profiling.machine.device_name", lambda _: "no real GPU")
    monkeypatch.setattr("profiling.machine.device_memory_mib", lambda _: 1000.0)
    monkeypatch.setattr("torch.cuda.device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr("torch.cuda.empty_cache", emptied)
    case = devices.Case("mlp", "sgd", 8, 16, "fp32", 2, 1)
    splits = load_splits(DatasetConfig(name="digits", limit=200))
    row = devices.measure(case, splits, "digits", torch.device("cuda:0"), torch.get_num_threads())
    assert (row.state, row.reason) == ("FAIL", "AcceleratorError: CUDA error: an illegal memory access was encountered")


def test_devices_card_with_a_driver_too_old_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts it all the same."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert not any(name.startswith("cuda") for name in devices.present())


def test_devices_nothing_measured_is_exit_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "LR", 1e38)
    code, _, err = run(
        "--models", "mlp", "--optimizers", "sgd", "--precision", "fp32", "--output", str(tmp_path / "r.parquet")
    )
    assert (code, err) == (3, "error: no row could be measured\n")
    (row,) = rows.read(tmp_path / "r.parquet")
    assert row.reason is not None
    assert "DivergedError: the training loss is nan in epoch 1" in row.reason


@pytest.mark.usefixtures("quick")
def test_devices_compare_puts_two_machines_side_by_side(tmp_path: Path) -> None:
    few = ["--models", "mlp", "--optimizers", "sgd", "--steps", "2"]
    code, out, _ = run(*few, "--output", str(tmp_path / "a.parquet"))
    assert code == 0, out
    code, out, _ = run(*few, "--output", str(tmp_path / "b.parquet"), "--compare", str(tmp_path / "a.csv"))
    assert code == 0
    assert "ours/theirs" in out
    code, out, _ = run(
        *few, "--batch-size", "4", "--output", str(tmp_path / "c.parquet"), "--compare", str(tmp_path / "a.csv")
    )
    assert "nothing to compare" in out


def test_devices_interrupted_keeps_the_rows_that_are_finished(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    command = [sys.executable, "-m", "profiling", *DIGITS, "--models", "mlp,baseline,stabilized", "--output", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not path.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 4, (out, err)
    finished = len(rows.read(path))
    assert 1 <= finished < 6
    assert err == f"error: interrupted; {finished} of 6 rows are finished, in {path}\n"
    assert "top operators" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--models", "mpl"], "--models 'mpl': there are resnet18, "),
        (["--optimizers", "lion"], "--optimizers 'lion': there are sgd, adam, adamw"),
        (["--precision", "fp8"], "--precision 'fp8': there are auto, fp32, bf16, fp16"),
        (["--device", "tpu"], "--device 'tpu': there are cpu"),
        (["--dataset", "folder"], "--dataset 'folder': there are digits, fashion_mnist, mnist"),
        (
            ["--models", "svm", "--steps", "3"],
            "--models svm: has no training steps; only `devices` without --steps measures it",
        ),
        (["--models", "simple_cnn", "--image-size", "4"], "simple_cnn cannot train on 1×4×4 images"),
        (["--output", "rows.csv"], "--output rows.csv: the rows' file ends in .parquet"),
        (["--compare", "none.csv"], "none.csv: there is no such file"),
        (["--precision", "fp16"], "nothing to measure: an svm runs on the CPU alone, fp16 on accelerators alone"),
        (["--limit", "1000000"], "dataset.limit: 1,000,000 images asked, digits has 1,797"),
    ],
)
def test_devices_wrong_input_is_one_line_and_exit_2(arguments: list[str], line: str) -> None:
    code, _, err = run("--models", "mlp", *arguments)
    assert code == 2
    assert err.startswith("error: " + line)
    assert err.count("\n") == 1


def test_fp16_rows_are_for_accelerators_and_svms_for_the_cpu() -> None:
    fp16, svm = (
        devices.Case(name, None if name == "svm" else "sgd", 8, 16, precision, None, 1)
        for name, precision in (("mlp", "fp16"), ("svm", "auto"))
    )
    cpu, cuda = torch.device("cpu"), torch.device("cuda:0")
    assert [devices.runs_on(case, where) for case in (fp16, svm) for where in (cpu, cuda)] == [False, True, True, False]


def test_memory_command_prints_a_row_a_config() -> None:
    ran = CliRunner().invoke(
        app, ["memory", "--models", "mlp,baseline", "--optimizers", "adam", "--image-size", "8", "--device", "cpu"]
    )
    assert ran.exit_code == 0, ran.stderr
    assert [line.split()[:5] for line in ran.stdout.splitlines()[1:]] == [
        ["cpu", "mlp", "adam", "8", "16"], ["cpu", "baseline", "adam", "8", "16"],
    ]  # fmt: skip
    assert all(line.split()[5] in ("fp32", "bf16") for line in ran.stdout.splitlines()[1:])
    refused = CliRunner().invoke(app, ["memory", "--models", "svm"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: --models svm: has no training steps")


def test_memory_interrupted_prints_the_rows_that_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(config: TrainConfig, *_: object) -> Peak:
        measured.append(config.model)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return Peak(100.0, 0.0)

    monkeypatch.setattr(memory, "measure", measure)
    ran = CliRunner().invoke(
        app, ["memory", "--models", "mlp,baseline,stabilized", "--optimizers", "adam", "--image-size", "8"]
    )
    assert ran.exit_code == 4
    assert measured == ["mlp", "baseline"]
    assert [line.split()[1] for line in ran.stdout.splitlines()[1:]] == ["mlp"]


def test_memory_of_a_config_that_fails_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(config: TrainConfig, *_: object) -> Peak:
        if not config.amp or config.model == "stabilized":
            raise ProfilingError(f"memory of {config.model}: DefaultCPUAllocator: can't allocate memory")
        return Peak(100.0, math.nan, precision="bf16")

    monkeypatch.setattr(memory, "measure", measure)
    asked = ["memory", "--optimizers", "sgd", "--image-size", "8", "--device", "cpu", "--precision", "fp32,bf16"]
    ran = CliRunner().invoke(app, [*asked, "--models", "mlp"], env={"COLUMNS": "400"})
    assert (ran.exit_code, ran.stderr) == (0, "")
    failed, measured = ran.stdout.splitlines()[1:]
    assert failed.split()[5:8] == ["fp32", "–", "–"]
    assert failed.endswith("memory of mlp: DefaultCPUAllocator: can't allocate memory")
    assert measured.split()[5:8] == ["bf16", "100", "–"]
    ran = CliRunner().invoke(app, [*asked, "--models", "stabilized"], env={"COLUMNS": "400"})
    assert (ran.exit_code, ran.stderr) == (3, "error: no row could be measured\n")
    assert len(ran.stdout.splitlines()) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_devices_gpu_row_has_memory_peak_and_speedup(tmp_path: Path) -> None:
    arguments = ["devices", "--dataset", "digits", "--models", "resnet18", "--optimizers", "sgd", "--steps", "5"]
    ran = CliRunner().invoke(app, [*arguments, "--device", "cpu,cuda:0", "--output", str(tmp_path / "r.parquet")])
    assert ran.exit_code == 0, ran.stderr
    _, card = rows.read(tmp_path / "r.parquet")
    assert card.complete, card.reason
    assert 0 < card.peak_memory_mib < card.card_memory_mib < card.device_memory_mib
    assert 0 < card.peak_share < 1
    assert card.speedup > 0
    assert "GPU busy" in str(card.top_operators)


def test_devices_of_more_threads_than_a_process_gets_is_refused() -> None:
    """PyTorch itself dies of so many, and takes the machine's with it."""
    ran = CliRunner().invoke(app, ["devices", "--models", "nosuch", "--threads", str(options.MOST_THREADS + 1)])
    assert ran.exit_code == 2
    assert "'--threads'" in ran.stderr
    assert "1024" in ran.stderr

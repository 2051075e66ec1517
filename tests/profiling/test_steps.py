from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from datasets import DatasetConfig, Splits, load_splits
from datasets.config import SplitSizes
from models import TrainConfig
from models.result import DivergedError, EpochMetrics
from profiling import ProfilingError, fresh, memory, operators, steps
from profiling.fresh import Shape

CPU = torch.device("cpu")
Report = Callable[[EpochMetrics], None]


@pytest.fixture(scope="module")
def splits() -> Splits:
    """40 + 8 + 8 digits of 8×8."""
    sizes = SplitSizes(train=40, val=8, test=8)
    return load_splits(DatasetConfig(name="digits", image_size=8, split=sizes))


def test_few_takes_whole_batches_and_images_again_where_they_run_out(splits: Splits) -> None:
    data = steps.few(splits, steps=3, batch_size=16)
    assert (len(data.train), len(data.val), len(data.test)) == (48, 2, 2)
    assert torch.equal(data.train.images[:40], splits.train.images)
    assert torch.equal(data.train.images[40:], splits.train.images[:8])
    assert torch.equal(data.train.labels[40:], splits.train.labels[:8])
    assert (data.mean, data.std, data.classes) == (splits.mean, splits.std, splits.classes)


def test_timed_is_of_one_step_and_leaves_the_first_epoch_out(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    class Epoch:
        def __init__(self, seconds: float) -> None:
            self.epoch_time_s = seconds

    def fit(config: TrainConfig, data: Splits, device: torch.device, report: object, checkpoint: None) -> None:
        assert (config.epochs, len(data.train)) == (4, 5 * 16)
        for seconds in (99.0, 1.0, 2.0, 3.0):
            report(Epoch(seconds))  # type: ignore[operator]

    monkeypatch.setattr(steps, "fit", fit)
    timing, _ = steps.timed(TrainConfig(model="mlp", batch_size=16), splits, CPU, steps=5, repeats=3)
    assert timing.times_s == (0.2, 0.4, 0.6)


def test_timed_trains_the_model_of_the_config(splits: Splits) -> None:
    timing, fitted = steps.timed(TrainConfig(model="mlp", batch_size=16, amp=False), splits, CPU, steps=2, repeats=3)
    assert len(timing.times_s) == 3
    assert min(timing.times_s) > 0
    assert (fitted.result.epochs, fitted.result.precision) == (4, "fp32")


@pytest.mark.parametrize("apart", [False, True])
def test_operators_name_what_a_step_does(apart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config, shape = TrainConfig(model="baseline", batch_size=16, amp=False), Shape(1, 10, 8)
    ask, asked_of = fresh.ask, []

    def on_the_cpu(module: str, asked: dict[str, Any], what: str) -> dict[str, Any]:
        asked_of.append(asked["device"])
        return ask(module, {**asked, "device": "cpu"}, what)

    monkeypatch.setattr(fresh, "ask", on_the_cpu)
    told = operators.top(config, shape, torch.device("cuda:1") if apart else CPU, threads=1)
    assert asked_of == ["cuda:1"] * apart  # what CUPTI leaves in a process would slow the rows that it times
    shares = [int(part.rsplit(" ", 1)[1].removesuffix("%")) for part in told.split(", ")]
    assert len(shares) == 4
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 102  # rounded
    assert "convolution" in told


def test_operators_of_a_training_that_fails_leave_the_profiler_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(config: TrainConfig, data: Splits, device: torch.device, report: Report, checkpoint: None) -> None:
        for epoch in (1, 2):
            report(EpochMetrics(epoch, 1.0, 1.0, 0.5, 0.1))
        assert torch.autograd.profiler._is_profiler_enabled
        raise DivergedError(3, "training", math.nan)

    config = TrainConfig(model="mlp", batch_size=16, amp=False)
    with monkeypatch.context() as patched:
        patched.setattr(steps, "fit", fit)
        with pytest.raises(DivergedError):
            operators.top(config, Shape(1, 10, 8), CPU, threads=1)
    assert not torch.autograd.profiler._is_profiler_enabled
    assert operators.top(config, Shape(1, 10, 8), CPU, threads=1)


def test_memory_grows_with_the_weights_and_the_optimizers_state() -> None:
    """81 MiB of weights at least; sgd keeps gradients and momentum beside them, adam one more."""
    shape = Shape(1, 10, 28)
    wide = {"model": "mlp", "hidden_layers": 2, "hidden_units": 4200, "batch_size": 2, "amp": False}
    weights_mib = (784 * 4200 + 4200 * 4200 + 4200 * 10) * 4 / 2**20
    sgd, adam = (
        memory.measure(TrainConfig(**wide, optimizer=name), shape, CPU, threads=1).peak_memory_mib
        for name in ("sgd", "adam")
    )
    assert 2.8 * weights_mib < sgd < 4.5 * weights_mib
    assert sgd + 0.7 * weights_mib < adam < sgd + 1.5 * weights_mib


def test_memory_of_a_child_that_dies_is_its_last_words() -> None:
    with pytest.raises(ProfilingError, match=r"memory of mlp: .*allocate"):
        memory.measure(TrainConfig(model="mlp", hidden_units=10**9), Shape(1, 10, 100), CPU, threads=1)

"""The fixed benchmark of the reports: models trained on the CPU and on every accelerator, a row each."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import models
from datasets import Splits
from models import TrainConfig
from models.batches import steps_of
from models.precision import choose_precision
from models.result import TrainResult
from models.training import fit
from profiling import ProfilingError, machine, memory, operators, peak, steps
from profiling.flops import macs, training_flops
from profiling.fresh import Shape
from profiling.rows import Row
from profiling.timing import Timing

LR = 1e-3
SEED = 42
BATCH_SIZE = 16
DATASET = "fashion_mnist"
"""The published reports'."""
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
WARM_UP_STEPS = 5
"""Before a whole epoch is timed."""


@dataclass(frozen=True)
class Case:
    """One row to be measured, on whatever device."""

    model: str
    optimizer: str | None
    """None for an svm, as `batch_size` and `steps`."""
    image_size: int
    batch_size: int | None
    precision: str
    """auto, fp32, bf16 or fp16."""
    steps: int | None
    """Steps timed in a row; None times whole epochs."""
    repeats: int

    @property
    def config(self) -> TrainConfig:
        given: dict[str, Any] = {"model": self.model, "epochs": 1, "lr": LR, "seed": SEED}
        if self.optimizer is not None:
            given |= {"optimizer": self.optimizer, "batch_size": self.batch_size}
        if self.precision != "auto":
            given |= {"amp": self.precision != "fp32"}
            given |= {"amp_dtype": self.precision} if given["amp"] else {}
        return TrainConfig(**given)


def cases(
    names: Sequence[str],
    optimizers: Sequence[str],
    image_sizes: Sequence[int],
    batch_sizes: Sequence[int],
    precisions: Sequence[str],
    steps_asked: int | None,
    repeats: int,
) -> list[Case]:
    """All combinations.  An svm has one a size; it has no steps, and is refused where steps are asked for."""
    found = []
    for size, batch, precision, name, optimizer in itertools.product(
        image_sizes, batch_sizes, precisions, names, optimizers
    ):
        if models.is_network(name):
            found.append(Case(name, optimizer, size, batch, precision, steps_asked, repeats))
        elif steps_asked is not None:
            raise ProfilingError(f"--models {name}: has no training steps; only `devices` without --steps measures it")
        else:
            found.append(Case(name, None, size, None, "auto", None, repeats))
    return list(dict.fromkeys(found))


def check(asked: Iterable[Case], splits: Splits) -> None:
    """Raise ModelError where a model cannot take these images or a batch size."""
    for case in asked:
        models.check(case.config, splits.channels, len(splits.classes), case.image_size, len(splits.train))


def present() -> list[str]:
    """The CPU and every accelerator of this machine that PyTorch can use."""
    # A card is counted even where its driver is too old for this PyTorch.
    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cards, *(["mps"] if torch.backends.mps.is_available() else [])]


def choose(asked: str) -> list[torch.device]:
    """Devices by commas; `cuda` is every card, `all` everything there is.  Raises ProfilingError for one not here."""
    here = present()
    chosen: list[str] = []
    for word in asked.split(","):
        found = [name for name in here if word in ("all", name, name.split(":")[0])]
        if not found:
            raise ProfilingError(f"--device {word!r}: there are {', '.join(here)}, and all")
        chosen += found
    return [torch.device(name) for name in dict.fromkeys(chosen)]


def runs_on(case: Case, device: torch.device) -> bool:
    """Whether there is such a row: an svm is fitted on the CPU alone, fp16 is for accelerators alone."""
    if device.type == "cpu":
        return case.precision != "fp16"
    return models.is_network(case.model)


def plan(cases_: Sequence[Case], chosen: Sequence[torch.device]) -> list[tuple[Case, torch.device]]:
    """The rows, device by device.  Raises ProfilingError where there is none."""
    found = [(case, device) for device in chosen for case in cases_ if runs_on(case, device)]
    if not found:
        raise ProfilingError("nothing to measure: an svm runs on the CPU alone, fp16 on accelerators alone")
    return found


def measure(
    case: Case, splits: Splits, dataset: str, device: torch.device, threads: int, host: str | None = None
) -> Row:
    """Measure one row, with so many threads.  What goes wrong (memory, a loss that diverges) becomes its reason.

    The device should have nothing else to do meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    splits = replace(splits, image_size=case.image_size)
    row = unmeasured(case, splits, dataset, device, threads, host or platform.node())
    try:
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            if models.is_network(case.model):
                return _measure_network(row, case, splits, device)
            return _measure_svm(row, case, splits, device)
    except (RuntimeError, ValueError, MemoryError, OSError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return replace(row, reason=reason, time_utc=_now())
    finally:
        torch.set_num_threads(before)
        if device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # behind some errors every call fails; the first one is the reason
                torch.cuda.empty_cache()


def _measure_network(row: Row, case: Case, splits: Splits, device: torch.device) -> Row:
    config = case.config
    precision = choose_precision(config, device)
    shape = Shape(splits.channels, len(splits.classes), splits.image_size)
    # What can go wrong without much loss comes first: an epoch may take hours.
    needed = memory.measure(config, shape, device, row.threads)
    top_operators = operators.top(config, shape, device, row.threads)
    peak_flop_per_s = peak.flop_per_s(device, precision)
    timing, result = _time(case, config, splits, device)
    clock_mhz = machine.clock_mhz(device)
    images = len(splits.train)
    step_images = config.batch_size if case.steps else images / steps_of(images, config.batch_size)
    images_per_s = step_images / timing.median_s
    operations = training_flops(config, shape.channels, shape.classes, shape.image_size)
    achieved = operations * images_per_s
    return replace(
        row,
        state="COMPLETE",
        test_accuracy=math.nan if case.steps else result.test_accuracy,
        train_time_ms=1000 * images / images_per_s,
        step_time_ms=1000 * timing.median_s,
        spread=timing.spread if case.repeats > 1 else math.nan,
        images_per_s=images_per_s,
        macs=macs(config, shape.channels, shape.classes, shape.image_size),
        training_flops=operations,
        achieved_flop_per_s=achieved,
        peak_flop_per_s=peak_flop_per_s,
        peak_share=achieved / peak_flop_per_s,
        top_operators=top_operators,
        peak_memory_mib=needed.peak_memory_mib,
        card_memory_mib=needed.card_memory_mib,
        precision=result.precision,
        device_clock_mhz=math.nan if clock_mhz is None else clock_mhz,
        time_utc=_now(),
    )


def _time(case: Case, config: TrainConfig, splits: Splits, device: torch.device) -> tuple[Timing, TrainResult]:
    """Of one step, and what a training gave.  Whole epochs are warmed up by a few steps."""
    if case.steps is not None:
        timing, fitted = steps.timed(config, splits, device, case.steps, case.repeats)
        return timing, fitted.result
    steps.run(config, steps.few(splits, WARM_UP_STEPS, config.batch_size), device, 1, lambda _: None)
    results = [fit(config, splits, device, lambda _: None).result for _ in range(case.repeats)]
    batches = steps_of(len(splits.train), config.batch_size)
    return Timing(tuple(result.train_time_s / batches for result in results)), results[0]


def _measure_svm(row: Row, case: Case, splits: Splits, device: torch.device) -> Row:
    """Its fit is one epoch.  It has neither steps nor a count of operations, and libsvm's memory is not measured."""
    results = [fit(case.config, splits, device, lambda _: None).result for _ in range(case.repeats)]
    timing = Timing(tuple(result.train_time_s for result in results))
    clock_mhz = machine.clock_mhz(device)
    return replace(
        row,
        state="COMPLETE",
        test_accuracy=results[0].test_accuracy,
        train_time_ms=1000 * timing.median_s,
        spread=timing.spread if case.repeats > 1 else math.nan,
        images_per_s=len(splits.train) / timing.median_s,
        macs=results[0].macs,
        precision=results[0].precision,
        threads=results[0].threads,
        device_clock_mhz=math.nan if clock_mhz is None else clock_mhz,
        time_utc=_now(),
    )


def unmeasured(case: Case, splits: Splits, dataset: str, device: torch.device, threads: int, host: str) -> Row:
    """What is known of a row beforehand; it stands as failed until it is measured."""
    return Row(
        machine=host,
        compute=str(device),
        model=case.model,
        optimizer=case.optimizer,
        image_size=case.image_size,
        batch_size=case.batch_size,
        lr=math.nan if case.optimizer is None else LR,
        seed=None if case.optimizer is None else SEED,
        asked_precision=case.precision,
        dataset=dataset,
        images=len(splits.train),
        state="FAIL",
        reason=None,
        test_accuracy=math.nan,
        train_time_ms=math.nan,
        estimated=case.steps is not None,
        steps=case.steps,
        repeats=case.repeats,
        step_time_ms=math.nan,
        spread=math.nan,
        images_per_s=math.nan,
        macs=None,
        training_flops=None,
        achieved_flop_per_s=math.nan,
        peak_flop_per_s=math.nan,
        peak_share=math.nan,
        top_operators=None,
        peak_memory_mib=math.nan,
        card_memory_mib=math.nan,
        device_memory_mib=machine.device_memory_mib(device),
        precision=None,
        threads=threads,
        speedup=math.nan,
        device_name=machine.device_name(device),
        device_clock_mhz=math.nan,
        cpu=machine.cpu_name(),
        cpu_cores=machine.cpu_cores(),
        memory_gib=machine.memory_gib(),
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=machine.version("torchvision"),
        cuda=torch.version.cuda if device.type == "cuda" else None,
        git_commit=machine.git_commit(),
        time_utc=_now(),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

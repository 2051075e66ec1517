"""Peak memory of training, in a process of its own, where nothing else has left a mark."""

from __future__ import annotations

import gc
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch

import models
from models import TrainConfig
from models.evaluation import images_at_once
from models.precision import choose_precision
from profiling import ProfilingError, fresh, resident, steps
from profiling.fresh import Shape

CLASSES = 10
STEPS = 3
"""The optimizer's state is there from the second on."""


@dataclass(frozen=True)
class Peak:
    """Memory of a training, in MiB; NaN where it cannot be told."""

    peak_memory_mib: float
    """On CUDA, the most that tensors held; on a CPU, the most that the process grew by: weights, gradients, the
    optimizer's state, activations and scratch space."""
    card_memory_mib: float
    """What the card had less of while the process lived: with the CUDA context and the allocator's reserve, as long as
    nobody else uses the card.  NaN on a CPU."""
    reserved_memory_mib: float = math.nan
    """The most that PyTorch's allocator had taken from the card: without the context.  NaN on a CPU."""
    main_memory_mib: float = math.nan
    """The most that the process grew by in main memory, from before its libraries were loaded by a training."""
    precision: str = ""
    """The one that ran; empty where none did."""


def measure(config: TrainConfig, shape: Shape, device: torch.device, threads: int, evaluation: bool = False) -> Peak:
    """Train a few steps on noise in a fresh process.

    `evaluation`: as a trial does, evaluate a batch as large as a training's, keep the best weights, make a checkpoint,
    and train on a last batch that is not full, which beside a CUDA graph takes memory of its own.

    Raises ProfilingError with the child's last words if it dies.
    """
    free_before_mib = _free_mib(device)
    asked = {
        "config": config.model_dump(),
        "shape": asdict(shape),
        "device": str(device),
        "threads": threads,
        "evaluation": evaluation,
    }
    told = fresh.ask("profiling.memory", asked, f"memory of {config.model}")
    free_mib = told.pop("free_mib")
    return Peak(card_memory_mib=free_before_mib - free_mib, **told)


@dataclass(frozen=True)
class Needed:
    """What training one config needed on one device."""

    config: TrainConfig
    image_size: int
    device: torch.device
    peak: Peak
    reason: str | None = None
    """Why it could not be measured; the peak is NaN then."""

    @property
    def precision(self) -> str:
        """The one that ran, or else the one that was asked for."""
        return self.peak.precision or (self.config.amp_dtype if self.config.amp else "fp32")


def peaks(work: Sequence[tuple[TrainConfig, int, torch.device]], channels: int) -> Iterator[Needed]:
    """One by one, `measure` for each (config, image size, device), for ten classes.

    With torch's present number of threads.  One that fails, as where memory runs out, keeps its reason, and the others
    go on.  Raises ModelError, before anything runs, where a model cannot take the size.
    """
    for config, image_size, _ in work:
        models.check(config, channels, CLASSES, image_size)
    threads = torch.get_num_threads()
    for config, image_size, device in work:
        shape = Shape(channels, CLASSES, image_size)
        try:
            found = Needed(config, image_size, device, measure(config, shape, device, threads))
        except ProfilingError as error:
            found = Needed(config, image_size, device, Peak(math.nan, math.nan), str(error))
        yield found


def _child() -> None:
    """What the fresh process does: words on stdin, words on stdout."""
    asked = fresh.asked()
    config, shape = TrainConfig(**asked["config"]), Shape(**asked["shape"])
    device = torch.device(asked["device"])
    torch.set_num_threads(asked["threads"])
    began_mib = _resident_mib()
    if device.type == "cuda":
        fresh.make_current(device)
    _train(TrainConfig(model="mlp", batch_size=2, amp=config.amp), Shape(1, 2, 4), device)  # libraries load here
    gc.collect()
    reserved_mib = math.nan
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        _train(config, shape, device, asked["evaluation"])
        peak_mib = torch.cuda.max_memory_allocated(device) / 2**20
        reserved_mib = torch.cuda.max_memory_reserved(device) / 2**20
    elif device.type == "cpu":
        resident.forget_peak()
        base_mib = _resident_mib()
        _train(config, shape, device, asked["evaluation"])
        peak_mib = _peak_mib() - base_mib
    else:
        peak_mib = math.nan
    told = {
        "peak_memory_mib": peak_mib,
        "reserved_memory_mib": reserved_mib,
        "main_memory_mib": _peak_mib() - began_mib,
        "precision": choose_precision(config, device),
        "free_mib": _free_mib(device),
    }
    fresh.answer(told)


def _train(config: TrainConfig, shape: Shape, device: torch.device, evaluation: bool = False) -> None:
    train = shape.noise(STEPS * config.batch_size + evaluation * (config.batch_size - 1))
    noise = shape.splits(train)
    if not evaluation:
        steps.run(config, steps.few(noise, STEPS, config.batch_size), device, 1, lambda _: None)
        return
    batch = shape.noise(images_at_once(shape.image_size))
    steps.run(config, replace(noise, val=batch, test=batch), device, 2, lambda _: None, _checkpoint)


def _checkpoint(_: int, state: Callable[[], dict[str, Any]]) -> None:
    """What a trial has of one in memory while it is written."""
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    buffer.getvalue()


def _free_mib(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] / 2**20 if device.type == "cuda" else math.nan


def _resident_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


def _peak_mib() -> float:
    found = resident.peak_mib()
    if found is None:
        raise ProfilingError("this system does not tell a process's peak of main memory")
    return found


if __name__ == "__main__":
    _child()

"""Where the time of a training step goes, by operator."""

from __future__ import annotations

import os
from dataclasses import asdict

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from models import TrainConfig
from models.result import EpochMetrics
from profiling import fresh, steps
from profiling.fresh import Shape

# Kineto otherwise writes notes on every start and stop, and on a missing GPU, to stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

STEPS = {"cpu": 5, "cuda": 50}
"""In an epoch, at whose end two images are evaluated: beside a GPU's short steps that is to be next to nothing."""
TOP = 4
KERNEL_NAME = 60
"""Characters of a CUDA kernel's name; all of its template arguments would fill pages."""


def top(config: TrainConfig, shape: Shape, device: torch.device, threads: int) -> str:
    """What takes most of a training step on random images, with shares, as a line of text.

    On a CPU operators, of the CPU's time.  On CUDA kernels, of the GPU's time, after the share of the time in which the
    GPU had work at all: a small one says that the host cannot issue the kernels fast enough.  That is in a process of
    its own: once it has been used, CUPTI slows all that its process launches (pytorch/pytorch#144455).

    Raises ProfilingError where that process dies.
    """
    if device.type != "cuda":
        return _top(config, shape, device)
    asked = {"config": config.model_dump(), "shape": asdict(shape), "device": str(device), "threads": threads}
    return str(fresh.ask("profiling.operators", asked, f"operators of {config.model}")["top"])


def _child() -> None:
    """What the fresh process does."""
    asked = fresh.asked()
    device = torch.device(asked["device"])
    torch.set_num_threads(asked["threads"])
    if device.type == "cuda":
        fresh.make_current(device)
    fresh.answer({"top": _top(TrainConfig(**asked["config"]), Shape(**asked["shape"]), device)})


def _top(config: TrainConfig, shape: Shape, device: torch.device) -> str:
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    profiler = profile(activities=activities)
    epochs: list[EpochMetrics] = []

    def report(metrics: EpochMetrics) -> None:
        epochs.append(metrics)
        if metrics.epoch == 2:
            profiler.start()  # the first epoch warms up, the second one is timed without
        elif metrics.epoch == 3:
            profiler.stop()

    noise = shape.splits(shape.noise(STEPS.get(device.type, 5) * config.batch_size))
    try:
        steps.run(config, steps.few(noise, STEPS.get(device.type, 5), config.batch_size), device, 3, report)
    except (RuntimeError, KeyboardInterrupt):
        if len(epochs) == 2:
            profiler.stop()  # left on, it would record the next row's timed work, and slow it
        raise
    times_us: dict[str, float] = {}
    for event in profiler.key_averages():
        if on_cuda and event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            # Kernels, not the operators that launched them: a CUDA graph has none, and both would count twice.
            name = event.key[:KERNEL_NAME]
            times_us[name] = times_us.get(name, 0.0) + event.self_device_time_total
        elif not on_cuda:
            times_us[event.key] = times_us.get(event.key, 0.0) + event.self_cpu_time_total
    total_us = sum(times_us.values())
    if not total_us:
        return ""
    largest = sorted(times_us.items(), key=lambda item: -item[1])[:TOP]
    shares = ", ".join(f"{name.removeprefix('aten::')} {spent / total_us:.0%}" for name, spent in largest)
    busy = f"GPU busy {min(1.0, total_us / 1e6 / epochs[1].epoch_time_s):.0%}: " if on_cuda else ""
    return busy + shares


if __name__ == "__main__":
    _child()

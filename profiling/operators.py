"""Where the time of a training step goes, by operator."""

from __future__ import annotations

import os

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from datasets import Splits
from models import TrainConfig
from models.result import EpochMetrics
from profiling import steps

# Kineto otherwise writes notes on every start and stop, and on a missing GPU, to stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

STEPS = {"cpu": 5, "cuda": 50}
"""In an epoch, at whose end two images are evaluated: beside a GPU's short steps that is to be next to nothing."""
TOP = 4
KERNEL_NAME = 60
"""Characters of a CUDA kernel's name; all of its template arguments would fill pages."""


def top(config: TrainConfig, splits: Splits, device: torch.device) -> str:
    """What takes most of a training step, with shares, as a line of text.

    On a CPU operators, of the CPU's time.  On CUDA kernels, of the GPU's time, after the share of the time in which the
    GPU had work at all: a small one says that the host cannot issue the kernels fast enough.
    """
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    profiler = profile(activities=activities)
    epochs: list[EpochMetrics] = []

    def report(metrics: EpochMetrics) -> None:
        epochs.append(metrics)
        if metrics.epoch == 1:
            profiler.start()  # the first epoch warms up
        else:
            profiler.stop()

    try:
        steps.run(config, steps.few(splits, STEPS.get(device.type, 5), config.batch_size), device, 2, report)
    except (RuntimeError, KeyboardInterrupt):
        if len(epochs) == 1:
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
    busy = f"GPU busy {min(1.0, total_us / 1e6 / epochs[-1].epoch_time_s):.0%}: " if on_cuda else ""
    return busy + shares

"""Rows that are made up, and say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from profiling.rows import Row

MADE_UP: dict[str, Any] = {
    "machine": "made-up", "compute": "cpu", "model": "mlp", "optimizer": "sgd", "image_size": 28, "batch_size": 16,
    "lr": 1e-3, "seed": 42,
    "asked_precision": "auto", "dataset": "fashion_mnist", "images": 49_000, "state": "COMPLETE", "reason": None,
    "test_accuracy": math.nan, "train_time_ms": 49_000.0, "estimated": True, "steps": 10, "repeats": 3,
    "step_time_ms": 16.0, "spread": 0.1, "images_per_s": 1000.0, "macs": 79_400, "training_flops": 319_600,
    "achieved_flop_per_s": 3.196e8, "peak_flop_per_s": 1e11, "peak_share": 3.196e-3, "top_operators": "mm 50%",
    "peak_memory_mib": 10.0, "card_memory_mib": math.nan, "device_memory_mib": 1000.0, "precision": "fp32",
    "threads": 1, "speedup": math.nan, "device_name": "no real CPU", "device_clock_mhz": math.nan,
    "cpu": "no real CPU", "cpu_cores": 1, "memory_gib": 1.0, "python": "3.11.0", "torch": "2.11.0",
    "torchvision": "0.26.0", "cuda": None, "git_commit": None, "time_utc": "2000-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.fixture
def made_up() -> Callable[..., Row]:
    """(**fields) -> a row that nobody measured."""

    def make(**fields: Any) -> Row:
        return Row(**(MADE_UP | fields))

    return make


@pytest.fixture
def gpu(made_up: Callable[..., Row]) -> Callable[..., Row]:
    """(**fields) -> a row of a GPU that does not exist, of 1,000 MiB."""

    def make(**fields: Any) -> Row:
        return made_up(**({"compute": "cuda:0", "device_name": "no real GPU", "card_memory_mib": 300.0} | fields))

    return make

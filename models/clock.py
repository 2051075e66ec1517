"""One clock for training and for what is measured of it."""

from __future__ import annotations

import time

import torch


def clock(device: torch.device) -> float:
    """Monotonic seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()

"""The device that a request for GPUs means on this machine."""

from __future__ import annotations

import torch


def choose_device(gpu: float) -> torch.device:
    """The GPU where one is asked for and there, else the CPU; a row says which it was."""
    if gpu and torch.cuda.is_available():
        return torch.device("cuda")
    if gpu and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")

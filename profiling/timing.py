"""One clock: warmed up, synchronised with the device, told as a median with its spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.clock import clock


@dataclass(frozen=True)
class Timing:
    """Repeats of one piece of work."""

    times_s: tuple[float, ...]
    """Each repeat's, in their order; at least one."""

    @property
    def median_s(self) -> float:
        return statistics.median(self.times_s)

    @property
    def spread(self) -> float:
        """From the fastest repeat to the slowest, as a share of the median; 0 for a single one."""
        return (max(self.times_s) - min(self.times_s)) / self.median_s


def measure(work: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 1) -> Timing:
    """Time `repeats` calls, after `warm_up` calls that are not timed."""
    for _ in range(warm_up):
        work()
    times_s = []
    for _ in range(repeats):
        start = clock(device)
        work()
        times_s.append(clock(device) - start)
    return Timing(tuple(times_s))

"""What a device can reach at most, measured: a large matrix product."""

from __future__ import annotations

import torch

from models.precision import Precision, full_float32
from profiling.timing import measure

SIDES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 16384), "mps": (2048, 4096)}
"""Sides of the square matrices tried; which one is fastest depends on caches and on the number of cores."""
REPEATS = 5
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def flop_per_s(device: torch.device, precision: Precision) -> float:
    """The highest rate of a product of square matrices in this precision, with torch's present number of threads.

    A multiply-accumulate is two operations.  fp32 on CUDA is without TF32, as in `fit`.
    """
    rates = []
    with full_float32(device):
        for side in SIDES[device.type]:
            generator = torch.Generator(device).manual_seed(side)
            values = torch.rand(side, side, generator=generator, device=device).to(DTYPES[precision])
            out = torch.empty_like(values)
            timing = measure(lambda a=values, b=out: torch.mm(a, a, out=b), device, REPEATS, warm_up=2)  # type: ignore[misc]
            rates.append(2 * side**3 / min(timing.times_s))
    del values, out
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what is timed next has the card as it would be
    return max(rates)

"""The number format of a training: mixed precision where the device is good at it."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from models.config import ModelError, TrainConfig

Precision = Literal["fp64", "fp32", "bf16", "fp16"]

BF16_PAYS_FROM = 1.2
"""On a CPU bf16 is taken where its matrix products are so many times as fast as float32's.

Measured on one thread of a Xeon (Emerald Rapids) whose AMX the virtual machine hides, they are 0.5 to 0.65 times as
fast, also beside three other processes on two cores, and a ResNet-18's step in bf16 takes 1.35 times as long as in
float32.  A Zen 4 reached 220 GFLOP/s in bf16, about twice of what its float32 units can do; there it was not measured
with these small matrices yet.
"""


def choose_precision(config: TrainConfig, device: torch.device) -> Precision:
    """What `amp` means on this device.

    auto: bf16 on CUDA from compute capability 8, and on CPUs with AVX512-BF16 or AMX whose products are faster in it,
    which is measured once a process; fp16 on older CUDA; else fp32.
    Raises ModelError for fp16 on a CPU, where nothing is gained by it.
    """
    if not config.amp:
        return "fp32"
    if config.amp_dtype == "bf16":
        return "bf16"
    if config.amp_dtype == "fp16":
        if device.type == "cpu":
            raise ModelError("amp_dtype: fp16 needs a GPU; on a CPU give auto or bf16")
        return "fp16"
    if device.type == "cuda":
        return "bf16" if _has_bf16(device) else "fp16"
    return "bf16" if device.type == "cpu" and _has_bf16(device) and bf16_speed() >= BF16_PAYS_FROM else "fp32"


def as_before(config: TrainConfig, precision: object, device: torch.device) -> TrainConfig:
    """The config with the precision that `auto` came to before in place of `auto`, where this device has it too.

    What auto comes to depends on the machine, and the numbers depend on it.
    """
    if not config.amp or config.amp_dtype != "auto":
        return config
    if precision == "fp32":
        return config.model_copy(update={"amp": False})
    if (precision == "bf16" and _has_bf16(device)) or (precision == "fp16" and device.type == "cuda"):
        return config.model_copy(update={"amp_dtype": precision})
    return config


def _has_bf16(device: torch.device) -> bool:
    """Whether it has instructions for it; without them a product can take a hundred times as long."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


@functools.cache
def bf16_speed() -> float:
    """How many times as fast as in float32 this CPU multiplies matrices in bf16, on one thread.

    From the processor time of the fastest of seven turns each, which other work on the machine changes little;
    10 to 30 ms, once a process.
    """
    square = torch.rand(256, 256, dtype=torch.float32, device="cpu", generator=torch.Generator().manual_seed(0))
    kinds = square, square.bfloat16()
    fastest_s = [float("inf"), float("inf")]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for turn in range(8):
            for kind, factor in enumerate(kinds):
                began = time.thread_time()
                torch.mm(torch.mm(factor, factor), factor)
                if turn:  # the first one warms up
                    fastest_s[kind] = min(fastest_s[kind], time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return fastest_s[0] / fastest_s[1]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """torch.autocast in this precision; switched off for fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def memory_format(precision: Precision, device: torch.device) -> torch.memory_format:
    """What convolutions are fastest in.

    channels_last for the reduced precisions, and for float32 on a CPU: there a step of our convolutional networks takes
    3 to 50 % longer without it (Xeon, one thread, with AVX512 and with AVX2 alone).
    """
    is_last = precision != "fp32" or device.type == "cpu"
    return torch.channels_last if is_last else torch.contiguous_format


def in_memory_format(images: Tensor, precision: Precision) -> Tensor:
    """Images N×C×H×W as this precision's convolutions work on them."""
    return images.contiguous(memory_format=memory_format(precision, images.device))


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """On CUDA, float32 is float32 within, for convolutions and matrix products; put back afterwards.

    By PyTorch's default convolutions round their inputs to TF32's 10 bits and matrix products do not, so that a
    convolution calculated as a product (`models.taps`) would be of another precision than its neighbours.  Who wants
    speed has `amp`: each card with TF32 has bf16.

    Set for each operation: PyTorch's older switches (allow_tf32, set_float32_matmul_precision) cannot be asked within.
    """
    if device.type != "cuda":
        yield
        return
    switches = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


@contextlib.contextmanager
def tiny_as_zero(device: torch.device) -> Iterator[None]:
    """On a CPU, numbers nearer to 0 than 1.2e-38 (float32's subnormal ones) count as 0 within, in this thread.

    The moments that an optimizer keeps for a weight without gradients (of a unit that never fires, say) halve every few
    steps, until they stay subnormal for ever, and processors calculate many times slower with those.  Measured on a
    Xeon, a ResNet-18 with adam: an epoch from the 800th step on takes up to 1.4 times as long as the first ones.  The
    weights came out the same to the last bit there, and so did those of a small CNN and of an mlp.

    Threads that PyTorch starts within inherit it, on Linux, and keep it; those that it has already do not have it.
    float64 loses what is nearer to 0 than 2.2e-308.
    """
    before = _tiny_is_zero()
    try:
        if device.type == "cpu":
            torch.set_flush_denormal(True)  # False, and nothing changed, where the processor has no such mode
        yield
    finally:
        torch.set_flush_denormal(before)


def _tiny_is_zero() -> bool:
    return bool(torch.full((), torch.finfo(torch.float32).tiny, dtype=torch.float32, device="cpu") / 2 == 0)

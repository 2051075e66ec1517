"""The number format of a training: mixed precision where the device is good at it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from models.config import ModelError, TrainConfig

Precision = Literal["fp64", "fp32", "bf16", "fp16"]


def choose_precision(config: TrainConfig, device: torch.device) -> Precision:
    """What `amp` means on this device.

    auto: bf16 on CUDA from compute capability 8 and on CPUs with AVX512-BF16 or AMX, fp16 on older CUDA, else fp32.
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
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"
    return "fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """torch.autocast in this precision; switched off for fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def in_memory_format(images: Tensor, precision: Precision) -> Tensor:
    """Images N×C×H×W as this precision's convolutions work on them: channels_last for the reduced ones."""
    return images if precision == "fp32" else images.contiguous(memory_format=torch.channels_last)

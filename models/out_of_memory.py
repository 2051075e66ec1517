"""How it looks when memory runs out."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on a card, by Python, or by PyTorch on a CPU.

    What no class says is told by words: of the CUDA runtime and its libraries, which allocate past PyTorch's allocator
    where others have filled the card, of PyTorch on a Mac and on a CPU.
    """
    if isinstance(error, torch.OutOfMemoryError) or is_of_main_memory(error):
        return True
    is_of_torch = isinstance(error, RuntimeError | torch.cuda.DeferredCudaCallError)
    return is_of_torch and any(words in str(error) for words in _OF_A_CARD)


_OF_A_CARD = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "GET was unable to find an engine to execute this computation",  # all that cuDNN has need more than is left
    "Unable to find a valid cuDNN algorithm to run convolution",
    "MPS backend out of memory",
)


def is_of_main_memory(error: BaseException) -> bool:
    """Whether it was main memory that could not be allocated: more of a card would not help."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)

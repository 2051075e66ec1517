"""The device that a request means on this machine, and how much of it the process may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

from datasets.reasons import in_a_line
from models.out_of_memory import is_of_main_memory
from profiling import resident
from tune_jobs.resources import MIB, Request

CONTEXT_MIB = 512.0
"""What a CUDA context takes of a card, beside what PyTorch's allocator takes, which is all that PyTorch can limit
(pytorch/pytorch#58466).  An estimate, measured on no card: from 300 to 500 MiB are told of since kernels are loaded
lazily, and it may be more on Hopper and newer."""


class Card(Protocol):
    """A GPU as this process has it.  Tests put one of their own in its place."""

    device: torch.device
    total_mib: float

    def limit(self, fraction: float) -> None:
        """Let PyTorch allocate so much of the card's memory in this process and no more; 1 for all."""

    def start_counting(self) -> None:
        """Free what the last trial left and count the peak anew."""

    def peak_mib(self) -> float:
        """Most memory that was reserved since."""


class CudaCard:
    """The first CUDA device that the process sees."""

    def __init__(self) -> None:
        self.device = torch.device("cuda")
        self.total_mib = torch.cuda.get_device_properties(self.device).total_memory / MIB

    def limit(self, fraction: float) -> None:
        torch.cuda.set_per_process_memory_fraction(float(fraction))  # which refuses a 1

    def start_counting(self) -> None:
        # torch 2.11 keeps one of 32 MiB for each stream that a product ran on, and a trial takes a new stream.
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak_mib(self) -> float:
        return torch.cuda.max_memory_reserved(self.device) / MIB


def find_card() -> Card | None:
    """This process's GPU, where it has one."""
    return CudaCard() if torch.cuda.is_available() else None


class Place:
    """Where one trial computes: its device, with its share of it, and the memory it takes there."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.device = torch.device("cpu")
        self.card: Card | None = None
        self._is_counted = False
        """Whether the peak of main memory is this trial's, and not an earlier one's of this process."""

    def take(self) -> None:
        """Threads as many as the CPUs asked for.  Without a GPU asked for, the process sees none from now on; with a
        fraction of one, it may take that fraction of its memory.  Raises what running out of memory raises where
        others have filled the card."""
        torch.set_num_threads(self.request.threads)
        self._is_counted = resident.forget_peak()
        if not self.request.gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it unset, and all GPUs of the node could be seen
            return
        self.card = find_card()
        if self.card is None:
            self.device = choose_device(1)
            return
        self.device = self.card.device
        assert self.request.gpu != "auto"
        self.card.limit(_for_tensors(min(1.0, self.request.gpu), self.card.total_mib))
        self.card.start_counting()

    def share(self, requests: Sequence[Request]) -> None:
        """Compute for all of these from now on, with what they ask for together."""
        torch.set_num_threads(max(1, int(sum(request.cpu for request in requests) + 1e-9)))
        if self.card is not None:
            asked = sum(request.gpu for request in requests if request.gpu != "auto")
            self.card.limit(_for_tensors(min(1.0, asked), self.card.total_mib))

    def beside(self) -> AbstractContextManager[object]:
        """What is copied from the card inside does not wait for what is computed there meanwhile."""
        return torch.cuda.stream(torch.cuda.Stream(self.device)) if self.device.type == "cuda" else nullcontext()

    def peak_mib(self) -> float | None:
        """Most memory taken since: of the card what was reserved, else of the whole process; None if not known."""
        return self._main_mib() if self.card is None else self.card.peak_mib()

    def out_of_memory(self, error: BaseException) -> str:
        """The reason in a line: what was asked for, what there was, what was used."""
        on_card = self.card is not None and not is_of_main_memory(error)
        peak = self.peak_mib() if on_card else self._main_mib()
        used = "" if peak is None else f", {peak:.0f} MiB in use at most"
        of = f" of {self.card.total_mib:.0f} MiB" if self.card is not None and on_card else ""
        return f"out of memory: asked for {self.request}{of}{used} ({in_a_line(error)[:200]})"

    def _main_mib(self) -> float | None:
        return resident.peak_mib() if self._is_counted else None


def choose_device(gpu: float | str) -> torch.device:
    """The GPU where one is asked for and there, else the CPU; a row says which it was."""
    if gpu and torch.cuda.is_available():
        return torch.device("cuda")
    if gpu and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _for_tensors(share: float, total_mib: float) -> float:
    """The fraction of a card that PyTorch may allocate so that with its context the process stays within its share.

    Of a share too small for that it is half, for where there is room on the card anyhow.
    """
    return 1.0 if share == 1 else max(share - CONTEXT_MIB / total_mib, share / 2)

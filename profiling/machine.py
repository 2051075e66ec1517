"""What a figure was measured on: hardware, clocks, versions, commit.  Without PyTorch but for a CUDA device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch


def cpu_name() -> str:
    """As the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_cores() -> int:
    """Logical cores."""
    return os.cpu_count() or 1


def memory_gib() -> float:
    return round(psutil.virtual_memory().total / 2**30, 1)


def version(library: str) -> str:
    """Of an installed distribution."""
    return importlib.metadata.version(library)


COMMIT_VARIABLE = "TUNE_JOBS_GIT_COMMIT"


def git_commit() -> str | None:
    """The checked-out commit of this application, with "+changes" where the tree differs from it.

    A job's working directory is no clone: `submit` says there from which commit it was sent.
    """
    if sent := os.environ.get(COMMIT_VARIABLE):
        return sent
    root = Path(__file__).parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or not a clone


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def device_name(device: torch.device) -> str:
    """The GPU's or the CPU's name."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_name()  # of Apple's chips, where the GPU is a part, too


def device_memory_mib(device: torch.device) -> float:
    """A CUDA device's own memory, or the machine's."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(device).total_memory / 2**20)
    return psutil.virtual_memory().total / 2**20


def clock_mhz(device: torch.device) -> float | None:
    """The clock now: of the CPU's cores on average, or of a GPU's multiprocessors; None where it is not told."""
    if device.type == "cuda":
        return _cuda_clock_mhz(device)
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):  # where the platform has no such file or call
        return None
    return None if frequency is None or not frequency.current else float(frequency.current)


def _cuda_clock_mhz(device: torch.device) -> float | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    import torch

    card = f"GPU-{torch.cuda.get_device_properties(device).uuid}"  # indices are renumbered by CUDA_VISIBLE_DEVICES
    query = [tool, f"--id={card}", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        return float(told)
    except (OSError, subprocess.SubprocessError, ValueError):  # as "[N/A]", which some cards say
        return None

"""What a result was obtained with: versions, hardware, commit, data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision", "ray", "scikit-learn", "numpy", "pandas")

COMMIT_VARIABLE = "TUNE_JOBS_GIT_COMMIT"


def environment() -> dict[str, Any]:
    """JSON values.  What cannot be known here (no git, no GPU) is null or empty."""
    import psutil
    import torch

    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "git_commit": git_commit(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "command": ["python", "-m", "tune_jobs", *sys.argv[1:]],
    }


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


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

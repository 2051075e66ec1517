"""What a result was obtained with: versions, hardware, commit, data."""

from __future__ import annotations

import platform
import sys
from typing import Any

LIBRARIES = (
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "scikit-learn",
    "numpy",
    "scipy",
    "statsmodels",
    "pandas",
    "fvcore",
)


def environment() -> dict[str, Any]:
    """JSON values.  What cannot be known here (no git, no GPU that PyTorch can use) is null or empty."""
    import torch

    from profiling import machine

    # With a driver too old for this PyTorch there are cards to count, and none to ask for its name.
    cards = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
    return {
        "python": platform.python_version(),
        "versions": {name: machine.version(name) for name in LIBRARIES},
        "git_commit": machine.git_commit(),
        "platform": platform.platform(),
        "cpu": machine.cpu_name(),
        "cpu_cores": machine.cpu_cores(),
        "memory_gib": machine.memory_gib(),
        "gpus": [torch.cuda.get_device_name(index) for index in cards],
        "command": ["python", "-m", "tune_jobs", *sys.argv[1:]],
    }

"""The most main memory that this process had."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def forget_peak() -> bool:
    """Count the peak anew from here; whether this system can: Linux (proc(5), /proc/pid/clear_refs)."""
    clear = Path("/proc/self/clear_refs")
    if not os.access(clear, os.W_OK):
        return False
    clear.write_text("5")
    return True


def peak_mib() -> float | None:
    """Since it was forgotten, else since the process began; None where this system does not tell it.

    Linux's VmHWM is this program's own; getrusage's figure starts there with that of the process before exec.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes there
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)

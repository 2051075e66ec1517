"""Values in words, the same in the terminal and in the report."""

from __future__ import annotations

import math
from typing import Any


def percent(share: float) -> str:
    """A share from 0 to 1; a dash where there is none."""
    return "–" if math.isnan(share) else f"{share:.2%}"


def fixed(value: float, digits: int = 2) -> str:
    """With so many digits after the point; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def short(value: Any) -> str:
    """A value of a config or an epoch, a real number to four digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float | None) -> str:
    """As a person says it; a dash where there is none."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"

"""Numbers in JSON, which knows none that is not finite."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """The value with null in place of each number that is not finite, also within mappings and lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def number(value: float | None) -> float:
    """What was read, NaN in place of null."""
    return math.nan if value is None else value

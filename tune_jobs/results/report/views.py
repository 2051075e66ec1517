"""What part of an axis a figure opens on: a few hopeless trials would press all the others into one line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

REACH = 3
"""Interquartile ranges beyond the quartiles, from where Tukey calls a value far out."""
WORTH = 2
"""Nothing is left out unless what stays is shown so many times larger."""


@dataclass(frozen=True)
class View:
    """Where a value lies outside, and how much of the axis is shown without those."""

    worst: float
    """The far-out ones are beyond it."""
    poor: Literal["below", "above"]
    ends: tuple[float, float]

    def has(self, value: float) -> bool:
        return value >= self.worst if self.poor == "below" else value <= self.worst

    def told(self, out: int, noun: str) -> str:
        """The end of a caption, on so many that are not, or not quite, to be seen."""
        many = f"{out} {noun}s lie" if out > 1 else f"1 {noun} lies"
        return f" {many} {self.poor} the view, far from the rest: a double click shows all."


def range_of(view: View | None) -> dict[str, Any]:
    """For plotly, whose double click shows the whole axis; nothing where all is shown."""
    return {} if view is None else {"range": list(view.ends)}


def opened(values: Iterable[float], poor: Literal["below", "above"]) -> View | None:
    """Without what is far out on the poor side; None where all can be shown."""
    found = np.array([value for value in values if math.isfinite(value)])
    if len(found) < 4:
        return None
    low, high = (float(end) for end in np.quantile(found, (0.25, 0.75)))
    reach = REACH * (high - low)
    worst = low - reach if poor == "below" else high + reach
    kept = found[found >= worst] if poor == "below" else found[found <= worst]
    span = float(kept.max() - kept.min())
    if reach == 0 or span == 0 or float(found.max() - found.min()) < WORTH * span:
        return None
    return View(worst, poor, (float(kept.min()) - 0.06 * span, float(kept.max()) + 0.06 * span))

"""One thing that the rows say, and how its figures are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.statistics import LEVEL


@dataclass(frozen=True)
class Finding:
    """One thing to know."""

    kind: Literal["clear", "unclear", "note"]
    """clear: told from chance.  unclear: not distinguishable, or too little to say.  note: a fact or a hint."""
    lead: str
    text: str


def points(difference: float, sign: bool = False) -> str:
    """A difference of accuracies, in percentage points."""
    return f"{100 * difference:{'+' if sign else ''}.2f}".replace("-", "−")


def wilson(loaded: Loaded, accuracy: float) -> tuple[float, float]:
    """95 % interval of a share of the validation images (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint

    images = loaded.val_images
    low, high = proportion_confint(round(accuracy * images), images, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)

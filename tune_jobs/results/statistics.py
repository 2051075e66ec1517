"""Intervals and comparisons over seeds.

All from scipy and statsmodels: Student's t for the interval of a mean, the paired t-test over seeds for a difference,
Holm's correction (Holm 1979) for several comparisons with one config.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Of the intervals; differences count where the corrected p is below 1 − LEVEL."""


@dataclass(frozen=True)
class Summary:
    """Scores of one config over seeds.  With one score the spread and the interval are NaN."""

    n: int
    mean: float
    std: float
    """Sample standard deviation, n − 1 below."""
    low: float
    high: float
    """Ends of the interval of the mean."""


def summarise(scores: Sequence[float], least: float = 0.0) -> Summary:
    """Mean, spread and the t interval of the mean; at least one score, none below `least` nor above 1.

    0 is the least of accuracies, −1 of their differences.  An interval that reaches beyond is cut there: over two or
    three seeds it can.
    """
    n, mean = len(scores), float(np.mean(scores))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    from scipy import stats  # over a second, which a search that begins need not wait for

    std = float(np.std(scores, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / math.sqrt(n)
    return Summary(n, mean, std, max(mean - half, least), min(mean + half, 1.0))


def prediction(summary: Summary, images: int) -> float:
    """How far one more score, of so many images, lies from the mean by chance, 95 %: half the t prediction interval.
    NaN for fewer than two.  The spread is taken to be at least that of rounding to whole images."""
    if summary.n < 2:
        return math.nan
    from scipy import stats

    spread = max(summary.std, 1 / (images * math.sqrt(12)))
    return float(stats.t.ppf((1 + LEVEL) / 2, summary.n - 1)) * spread * math.sqrt(1 + 1 / summary.n)


@dataclass(frozen=True)
class Comparison:
    """One config held against the first."""

    difference: float
    """Its mean less the first's, over the seeds that both have."""
    p: float
    """Of the paired t-test, corrected for all comparisons made; NaN where fewer than two seeds are shared."""
    tied: bool
    """Whether the data do not tell the two apart.  With too few seeds nothing is told apart."""


def compare(scores: Mapping[str, Mapping[int, float]], first: str, images: int) -> dict[str, Comparison]:
    """Every other config against `first`; `scores` are config -> seed -> accuracy over so many images."""
    others = [name for name in scores if name != first]
    differences = {name: _paired(scores[name], scores[first]) for name in others}
    p_values = {name: p_value(found, images) for name, found in differences.items()}
    known = [name for name in others if not math.isnan(p_values[name])]
    if known:
        from statsmodels.stats.multitest import multipletests

        corrected = multipletests([p_values[name] for name in known], method="holm")[1]
        p_values |= dict(zip(known, (float(p) for p in corrected), strict=True))
    return {
        name: Comparison(
            float(np.mean(differences[name])) if differences[name] else math.nan,
            p_values[name],
            not p_values[name] < 1 - LEVEL,
        )
        for name in others
    }


def _paired(scores: Mapping[int, float], others: Mapping[int, float]) -> list[float]:
    return [scores[seed] - others[seed] for seed in scores if seed in others]


def p_value(differences: list[float], images: int) -> float:
    """Two-sided, of the paired t-test on the differences of two accuracies over so many images; NaN for fewer than two.

    The spread is taken to be at least that of rounding two accuracies to whole images: a difference of one image that
    happens to be the same over two seeds says nothing, while two svms, which have no spread, can still be told apart.
    """
    n = len(differences)
    if n < 2:
        return math.nan
    from scipy import stats

    spread = max(float(np.std(differences, ddof=1)), 1 / (images * math.sqrt(6)))
    t = float(np.mean(differences)) / (spread / math.sqrt(n))
    return float(2 * stats.t.sf(abs(t), n - 1))

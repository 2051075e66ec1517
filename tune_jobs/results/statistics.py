"""Intervals and comparisons over seeds.

All from scipy and statsmodels: Student's t for the interval of a mean, the paired t-test over seeds for a difference,
Holm's correction (Holm 1979) for several comparisons, Tukey's studentized range for the largest gap among several
means, a test of two shares for what the images alone leave to chance.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Of the intervals; differences count where the corrected p is below 1 − LEVEL."""


def p_cell(p: float) -> str:
    """As a table has it: none is 0."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_in_words(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return f"p {p_cell(p)}" if p < 0.001 else f"p = {p_cell(p)}"


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


def summarise(scores: Sequence[float], least: float = 0.0, overlap: float = 0.0, level: float = LEVEL) -> Summary:
    """Mean, spread and the t interval of the mean; at least one score, none below `least` nor above 1.

    0 is the least of accuracies, −1 of their differences.  An interval that reaches beyond is cut there: over two or
    three seeds it can.  `overlap` is as in `p_value`.
    """
    n, mean = len(scores), float(np.mean(scores))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    from scipy import stats  # over a second, which a search that begins need not wait for

    std = float(np.std(scores, ddof=1)) if len(set(scores)) > 1 else 0.0  # and not what rounding leaves
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * std * math.sqrt(1 / n + overlap)
    return Summary(n, mean, std, max(mean - half, least), min(mean + half, 1.0))


def of_the_highest(scores: Sequence[float], among: int, overlap: float = 0.0) -> Summary:
    """Of scores that were picked for having the highest mean among so many: all their intervals together hold at LEVEL
    (Bonferroni), and so that of the one picked does."""
    return summarise(scores, overlap=overlap, level=1 - (1 - LEVEL) / among)


def half_interval(summary: Summary, images: int) -> float:
    """Half the t interval of the mean of scores of so many images, not cut at 0 or 1; NaN for fewer than two.

    The spread is taken to be at least that of rounding to whole images.
    """
    if summary.n < 2:
        return math.nan
    from scipy import stats

    spread = max(summary.std, 1 / (images * math.sqrt(12)))
    return float(stats.t.ppf((1 + LEVEL) / 2, summary.n - 1)) * spread / math.sqrt(summary.n)


def half_prediction(summary: Summary, images: int, repeats: int) -> float:
    """Half the t interval within which the mean of so many more scores lies from the mean of these; NaN for fewer than
    two.  One score varies by more than a mean does.

    Scores of splits of their own have images in common, which does not widen it: what they share moves this mean and
    one more such score alike.  (It does widen the interval of the mean itself.)
    """
    return half_interval(summary, images) * math.sqrt(1 + summary.n / repeats)


@dataclass(frozen=True)
class Comparison:
    """One config held against the first."""

    difference: float
    """Its mean less the first's, over the seeds that both have."""
    p: float
    """Of the paired t-test, or of two shares where neither depends on a seed; corrected for all comparisons made.  NaN
    where fewer than two seeds are shared."""
    tied: bool
    """Whether the data do not tell the two apart.  With too few seeds nothing is told apart."""
    p_images: float = math.nan
    """Of two shares of the images, by the means over the seeds; corrected for all pairs.  NaN over splits of their own,
    and where an earlier version wrote it."""


def compare(
    scores: Mapping[str, Mapping[int, float]],
    first: str,
    images: int,
    *,
    seedless: Collection[str],
    overlap: float | None,
) -> dict[str, Comparison]:
    """Every other config against `first`; `scores` are config -> seed -> accuracy over so many images.

    `first` was chosen by looking at these scores, so that all pairs count in Holm's correction.  `seedless` are those
    whose scores depend on no seed.  With `overlap`, validation images for each one trained on, each seed has a split of
    its own; without, all have the same images.
    """
    differences = {pair: _paired(scores[pair[0]], scores[pair[1]]) for pair in itertools.combinations(scores, 2)}
    by_images = {
        (one, other): math.nan if overlap is not None else p_of_shares(_mean(scores[one]), _mean(scores[other]), images)
        for one, other in differences
    }
    p_values = {
        (one, other): by_images[one, other]
        if one in seedless and other in seedless and overlap is None
        else p_value(found, images, overlap or 0.0)
        for (one, other), found in differences.items()
    }
    p_values, by_images = (dict(zip(known, holm(list(known.values())), strict=True)) for known in (p_values, by_images))
    found = {}
    for one, other in differences:
        if first in (one, other):
            name, sign = (other, -1) if one == first else (one, 1)
            mean = sign * float(np.mean(differences[one, other])) if differences[one, other] else math.nan
            p = p_values[one, other]
            found[name] = Comparison(mean, p, not p < 1 - LEVEL, by_images[one, other])
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Each corrected for all that are known (Holm 1979); NaN stays NaN."""
    known = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    found = list(p_values)
    if known:
        from statsmodels.stats.multitest import multipletests

        corrected = multipletests([p_values[index] for index in known], method="holm")[1]
        for index, p in zip(known, corrected, strict=True):
            found[index] = float(p)
    return found


def _mean(scores: Mapping[int, float]) -> float:
    return float(np.mean(list(scores.values())))


def _paired(scores: Mapping[int, float], others: Mapping[int, float]) -> list[float]:
    return [scores[seed] - others[seed] for seed in scores if seed in others]


def p_value(differences: list[float], images: int, overlap: float = 0.0) -> float:
    """Two-sided, of the paired t-test on the differences of two accuracies over so many images; NaN for fewer than two.

    The spread is taken to be at least that of rounding two accuracies to whole images: a difference of one image that
    happens to be the same over two seeds says nothing.  Where each was trained and scored on a split of its own, those
    have most images in common: `overlap`, the number scored by for each one trained on, widens the mean's error as
    Nadeau & Bengio 2003 (Machine Learning 52) do.
    """
    n = len(differences)
    if n < 2:
        return math.nan
    from scipy import stats

    spread = max(float(np.std(differences, ddof=1)), 1 / (images * math.sqrt(6)))
    t = float(np.mean(differences)) / (spread * math.sqrt(1 / n + overlap))
    return float(2 * stats.t.sf(abs(t), n - 1))


def largest_gap(table: NDArray[Any], images: int) -> tuple[float, float]:
    """p of the largest difference between the means of the columns of a table of accuracies, blocks by values, and half
    its 95 % interval: Tukey's studentized range in a randomized block design (Tukey 1949, Biometrics 5).

    It allows for the highest and the lowest being picked by looking; for two values it is the paired t-test.  The
    spread, of what the additive table of blocks and values leaves over, is at least that of rounding to whole images.
    At least two blocks and values; NaN where the values are alike in each block.
    """
    blocks, values = table.shape
    if np.ptp(table, axis=1).max() == 0:
        return math.nan, math.nan
    from scipy import stats

    means = table.mean(axis=0)
    rest = table - table.mean(axis=1, keepdims=True) - means + table.mean()
    degrees = (blocks - 1) * (values - 1)
    spread = max(math.sqrt(float((rest**2).sum()) / degrees), 1 / (images * math.sqrt(12)))
    error = spread / math.sqrt(blocks)
    p = float(stats.studentized_range.sf(float(np.ptp(means)) / error, values, degrees))
    return min(max(p, 0.0), 1.0), _studentized_range(values, degrees) * error


@functools.cache
def _studentized_range(values: int, degrees: int) -> float:
    """Its quantile at LEVEL: a tenth of a second's integration."""
    from scipy import stats

    return float(stats.studentized_range.ppf(LEVEL, values, degrees))


def p_of_means(one: Summary, other: Summary, images: int) -> float:
    """Two-sided, of Welch's t-test on the means of two configs whose seeds have nothing to do with each other; NaN
    where one has fewer than two scores.  The spread of each is at least that of rounding to whole images."""
    if min(one.n, other.n) < 2:
        return math.nan
    from scipy import stats

    spreads = [max(summary.std, 1 / (images * math.sqrt(12))) for summary in (one, other)]
    result = stats.ttest_ind_from_stats(one.mean, spreads[0], one.n, other.mean, spreads[1], other.n, equal_var=False)
    return float(result.pvalue)


def p_of_shares(one: float, other: float, images: int) -> float:
    """Two-sided, of two shares of so many images.  That both models saw the same images is not used, which makes the
    test careful."""
    counts = round(one * images), round(other * images)
    if counts[0] == counts[1]:
        return 1.0
    from statsmodels.stats.proportion import test_proportions_2indep

    # Agresti and Caffo's half-added counts stay finite at shares of 0 and 1; ratios, which it gives too, do not.
    with np.errstate(divide="ignore", invalid="ignore"):
        result = test_proportions_2indep(counts[0], images, counts[1], images, compare="diff", method="agresti-caffo")
    return float(result.pvalue)

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tune_jobs.results.statistics import (
    compare,
    half_interval,
    half_prediction,
    largest_gap,
    p_cell,
    p_in_words,
    p_of_shares,
    p_value,
    summarise,
)


def test_summarise_is_students_interval() -> None:
    scores = [0.90, 0.92, 0.91, 0.89, 0.93]
    found = summarise(scores)
    assert found.n == 5
    assert found.mean == pytest.approx(0.91)
    assert found.std == pytest.approx(0.015811, abs=1e-6)
    low, high = stats.t.interval(0.95, 4, loc=0.91, scale=stats.sem(scores))
    assert [found.low, found.high] == pytest.approx([low, high])


def test_summarise_ends_where_scores_end() -> None:
    found = summarise([0.80, 0.90])
    assert found.low == pytest.approx(stats.t.interval(0.95, 1, loc=0.85, scale=0.05)[0])
    assert found.high == 1.0
    apart = summarise([0.01, 0.40], -1.0)
    assert (apart.low, apart.high) == (-1.0, 1.0)


def test_summarise_of_the_same_scores_has_no_spread_at_all() -> None:
    found = summarise([0.986072423398329] * 3)
    assert (found.std, found.low, found.high) == (0.0, found.mean, found.mean)


def test_summarise_one_score_has_no_spread() -> None:
    found = summarise([0.9])
    assert found.mean == 0.9
    assert all(math.isnan(value) for value in (found.std, found.low, found.high))


def by_seed(*scores: float) -> dict[int, float]:
    return dict(enumerate(scores))


def test_compare_is_the_paired_t_test_with_holms_correction() -> None:
    first = by_seed(0.90, 0.92, 0.94, 0.91, 0.93)
    near = by_seed(0.905, 0.915, 0.935, 0.915, 0.92)
    far = by_seed(0.80, 0.83, 0.83, 0.81, 0.84)
    found = compare({"a": first, "b": near, "c": far}, "a", 10_000, seedless=(), overlap=None)
    p_near = stats.ttest_rel(list(near.values()), list(first.values())).pvalue
    p_far = stats.ttest_rel(list(far.values()), list(first.values())).pvalue
    p_between = stats.ttest_rel(list(far.values()), list(near.values())).pvalue
    smallest, middle = sorted([p_far, p_between])  # all three pairs count: the first was chosen by its scores
    assert found["c"].p == pytest.approx(3 * smallest if p_far == smallest else max(3 * smallest, 2 * middle))
    assert found["b"].p == pytest.approx(max(p_near, 3 * smallest, 2 * middle))
    assert (found["b"].tied, found["c"].tied) == (True, False)
    assert found["c"].difference == pytest.approx(-0.098)


def test_compare_pairs_by_seed() -> None:
    """Seeds differ more than the configs do: unpaired, nothing could be told."""
    first = by_seed(0.50, 0.60, 0.70, 0.80)
    below = {seed: score - 0.01 - 0.001 * (seed % 2) for seed, score in reversed(first.items())}
    assert not compare({"a": first, "b": below}, "a", 10_000, seedless=(), overlap=None)["b"].tied


@pytest.mark.parametrize(("difference", "images", "tied"), [(0.0, 100, True), (0.01, 100, True), (0.2, 100, False)])
def test_compare_without_spread_allows_for_whole_images(difference: float, images: int, tied: bool) -> None:
    first = by_seed(0.9, 0.9)
    found = compare(
        {"a": first, "b": {seed: score - difference for seed, score in first.items()}},
        "a",
        images,
        seedless=(),
        overlap=None,
    )
    assert found["b"].tied is tied


def test_compare_one_shared_seed_tells_nothing_apart() -> None:
    found = compare({"a": {0: 0.9, 1: 0.9}, "b": {1: 0.1, 2: 0.1}}, "a", 100, seedless=(), overlap=None)
    assert math.isnan(found["b"].p)
    assert found["b"].tied


def test_compare_of_two_that_depend_on_no_seed_is_of_the_images_alone() -> None:
    """One image of 180 would be apart by a t-test over any five equal pairs."""
    first, other = by_seed(*[174 / 180] * 5), by_seed(*[173 / 180] * 5)
    assert p_value([1 / 180] * 5, 180) < 0.01
    found = compare({"a": first, "b": other}, "a", 180, seedless={"a", "b"}, overlap=None)["b"]
    assert found.p == pytest.approx(p_of_shares(174 / 180, 173 / 180, 180))
    assert found.p > 0.5
    assert not compare({"a": first, "b": by_seed(*[0.5] * 5)}, "a", 180, seedless={"a", "b"}, overlap=None)["b"].tied


def test_compare_of_one_that_depends_on_no_seed_and_one_that_does_is_over_the_seeds() -> None:
    seeded, seedless = by_seed(0.90, 0.92, 0.91), by_seed(*[0.88] * 3)
    found = compare({"a": seeded, "b": seedless}, "a", 100, seedless={"b"}, overlap=None)["b"]
    assert found.p == pytest.approx(p_value([0.02, 0.04, 0.03], 100))
    assert found.p < 0.1 < p_of_shares(0.91, 0.88, 100)


def test_compare_corrects_what_the_images_say_for_all_pairs_too() -> None:
    scores = {"a": by_seed(0.90, 0.91, 0.92), "b": by_seed(0.88, 0.89, 0.90), "c": by_seed(0.80, 0.81, 0.82)}
    found = compare(scores, "a", 2000, seedless=(), overlap=None)
    alone = [p_of_shares(0.91, other, 2000) for other in (0.89, 0.81)]
    assert alone[0] < 0.05 < 2 * alone[0]
    assert found["b"].p_images == pytest.approx(alone[0])  # Holm: the largest of three stands as it is
    assert found["c"].p_images == pytest.approx(3 * alone[1])
    near = compare(scores | {"c": by_seed(0.881, 0.89, 0.9)}, "a", 2000, seedless=(), overlap=None)
    assert near["b"].p_images > 2 * alone[0] - 1e-9
    split = compare(scores, "a", 2000, seedless=(), overlap=0.1)
    assert all(math.isnan(one.p_images) for one in split.values())


def test_compare_over_splits_of_their_own_two_that_depend_on_no_seed_are_compared_over_the_splits() -> None:
    first, other = by_seed(0.90, 0.92, 0.94), by_seed(0.80, 0.83, 0.83)
    found = compare({"a": first, "b": other}, "a", 100, seedless={"a", "b"}, overlap=0.1)["b"]
    assert found.p == pytest.approx(p_value([0.10, 0.09, 0.11], 100, 0.1))


def test_compare_over_splits_of_their_own_allows_for_what_they_have_in_common() -> None:
    differences = [0.010, 0.012, 0.008, 0.011, 0.009]
    t = stats.ttest_1samp(differences, 0).statistic
    widened = t * math.sqrt((1 / 5) / (1 / 5 + 1 / 7))
    assert p_value(differences, 10_000, 1 / 7) == pytest.approx(2 * stats.t.sf(widened, 4))
    first = by_seed(*[0.9] * 5)
    other = {seed: 0.9 - differences[seed] for seed in first}
    assert compare({"a": first, "b": other}, "a", 10_000, seedless=(), overlap=1 / 7)["b"].p == pytest.approx(
        p_value(differences, 10_000, 1 / 7)
    )


@pytest.mark.parametrize(
    ("one", "other", "images", "differ"), [(1, 0.5, 40, True), (1, 0.9, 10, False), (0, 0, 9, False)]
)
def test_shares_of_none_and_of_all_compare_without_a_warning(
    one: float, other: float, images: int, differ: bool
) -> None:
    assert (p_of_shares(one, other, images) < 0.05) == differ
    assert p_of_shares(other, one, images) == pytest.approx(p_of_shares(one, other, images))


def test_half_interval_is_that_of_the_mean_and_not_cut() -> None:
    scores = [0.98, 0.99, 1.0]
    low, high = stats.t.interval(0.95, 2, loc=0.99, scale=stats.sem(scores))
    assert half_interval(summarise(scores), 1000) == pytest.approx((high - low) / 2)
    assert half_interval(summarise([0.9, 0.9]), 100) == pytest.approx(
        stats.t.ppf(0.975, 1) / (100 * math.sqrt(12)) / math.sqrt(2)
    )
    assert math.isnan(half_interval(summarise([0.9]), 100))


def test_half_prediction_covers_one_more_score() -> None:
    draws = np.random.default_rng(0).normal(0.9, 0.01, (4000, 6))
    inside = [abs(row[5] - row[:5].mean()) <= half_prediction(summarise(row[:5].tolist()), 10_000, 1) for row in draws]
    assert sum(inside) / 4000 == pytest.approx(0.95, abs=0.01)
    found = summarise([0.98, 0.99, 1.0])
    assert half_prediction(found, 1000, 3) == pytest.approx(math.sqrt(2) * half_interval(found, 1000))
    assert math.isnan(half_prediction(summarise([0.9]), 100, 1))


def test_p_value_of_equal_differences_has_the_spread_of_rounding_two_accuracies() -> None:
    t = 0.01 * math.sqrt(2) * (100 * math.sqrt(6))
    assert p_value([0.01, 0.01], 100) == pytest.approx(2 * stats.t.sf(t, 1))


def test_p_in_words_is_never_nought() -> None:
    assert [p_cell(p) for p in (0.0, 0.00099, 0.001, 0.0049, math.nan)] == ["< 0.001", "< 0.001", "0.001", "0.005", "–"]
    assert [p_in_words(p) for p in (0.0001, 0.0049)] == ["p < 0.001", "p = 0.005"]


@pytest.mark.parametrize("other", [[0.81, 0.84, 0.79, 0.83], [0.79, 0.81, 0.77, 0.80]])
def test_largest_gap_of_two_values_is_the_paired_t_test(other: list[float]) -> None:
    one = [0.80, 0.82, 0.78, 0.81]  # from the second by a point in each block: both have the spread of rounding
    table, differences = np.array([one, other]).T, [b - a for a, b in zip(one, other, strict=True)]
    p, half = largest_gap(table, 1000)
    assert p == pytest.approx(p_value(differences, 1000), abs=1e-6)
    spread = max(float(np.std(differences, ddof=1)), 1 / (1000 * math.sqrt(6)))
    assert half == pytest.approx(stats.t.ppf(0.975, 3) * spread / 2, rel=1e-6)


def test_largest_gap_of_three_values_allows_for_the_picking() -> None:
    draw = np.random.default_rng(0)
    tables = 0.8 + draw.normal(0, 0.01, (400, 6, 3)) + draw.normal(0, 0.05, (400, 6, 1))
    found = [largest_gap(table, 10_000) for table in tables]
    gaps = [float(np.ptp(table.mean(axis=0))) for table in tables]
    assert sum(p < 0.05 for p, _ in found) / 400 == pytest.approx(0.05, abs=0.03)
    assert [p < 0.05 for p, _ in found] == [gap > half for gap, (_, half) in zip(gaps, found, strict=True)]


def test_largest_gap_of_values_that_are_alike_in_each_block_is_not_tested() -> None:
    assert all(map(math.isnan, largest_gap(np.array([[0.8] * 3, [0.9] * 3]), 100)))


def test_largest_gap_without_spread_allows_for_whole_images() -> None:
    """A single image in each of two blocks says nothing; ten do."""
    one, ten = (np.array([[0.80, 0.80 + gap, 0.80], [0.85, 0.85 + gap, 0.85]]) for gap in (0.01, 0.1))
    assert largest_gap(one, 100)[0] > 0.05 > largest_gap(ten, 100)[0]

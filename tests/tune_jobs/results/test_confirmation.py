from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune_jobs.confirm import _fresh_seeds
from tune_jobs.results.confirmation import Confirmation, Confirmed, dump, half_width
from tune_jobs.results.statistics import Summary


@pytest.mark.parametrize(
    ("mean", "low", "high", "half"),
    [
        (0.90, 0.88, 0.92, 0.02),
        (0.99, 0.9646, 1.0, 0.0254),
        (0.01, 0.0, 0.0354, 0.0254),
        (0.9, None, None, None),
        (0.9, 0.9, 0.9, None),
    ],
)
def test_half_width_is_that_of_the_side_that_is_not_cut(
    mean: float, low: float | None, high: float | None, half: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "confirm.json"
    assert half_width(path) is None
    val = Summary(5, mean, 0.01, *(math.nan if end is None else end for end in (low, high)))
    first = Confirmed("00000", {}, mean, val, 1.0, None, None)
    path.write_text(dump(Confirmation([1, 2], False, 100, [first], val, "00000", 0.0)))
    assert half_width(path) == (None if half is None else pytest.approx(half))


@pytest.mark.parametrize(("used", "first"), [([1, 7], 1007), ([None], 1000), ([2**63 - 1, 1], 2)])
def test_fresh_seeds_are_none_that_the_search_used_and_none_beyond_what_a_seed_may_be(
    used: list[int | None], first: int
) -> None:
    rows: list[Any] = [SimpleNamespace(seed=seed) for seed in used]
    assert _fresh_seeds(rows, 3) == [first, first + 1, first + 2]

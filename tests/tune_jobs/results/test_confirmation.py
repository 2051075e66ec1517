from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune_jobs.confirm import _fresh_seeds
from tune_jobs.console import confirmation_lines
from tune_jobs.results.confirmation import Confirmation, Confirmed, dump, half_width, interval, load
from tune_jobs.results.statistics import Comparison, Summary


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
    assert load(path) is None
    val = Summary(5, mean, 0.01, *(math.nan if end is None else end for end in (low, high)))
    first = Confirmed("00000", {}, mean, val, 1.0, None, None)
    path.write_text(dump(Confirmation([1, 2], False, 100, [first], val, "00000", 0.0)))
    found = load(path)
    assert found is not None
    assert half_width(found) == (None if half is None else pytest.approx(half))


@pytest.mark.parametrize(("splits", "said"), [(False, True), (True, False)])
def test_an_svm_says_nothing_of_the_choosing_on_the_same_split_alone(splits: bool, said: bool) -> None:
    val = Summary(3, 0.87, 0.0, 0.87, 0.87)
    only = Confirmed("00000", {"model": "svm"}, 0.88, val, 1.0, None, None, reads_seed=False)
    *_, line = confirmation_lines(Confirmation([1, 2, 3], splits, 100, [only], val, "00000", 0.01))
    assert ("so this says nothing of the choosing" in line) == said


def test_an_interval_without_spread_is_said_so() -> None:
    assert interval(Summary(3, 0.87, 0.01, 0.86, 0.88)) == "86.00 to 88.00"
    assert interval(Summary(3, 0.87, 0.0, 0.87, 0.87)) == "no spread"
    assert interval(Summary(1, 0.87, math.nan, math.nan, math.nan)) == "–"


def test_a_confirmation_of_an_earlier_version_has_no_scores_and_the_firsts_test_alone(tmp_path: Path) -> None:
    path, val = tmp_path / "confirm.json", Summary(2, 0.9, 0.01, 0.88, 0.92)
    configs = [Confirmed("00000", {}, 0.9, val, 1.0, None, None), another(val)]
    written = json.loads(dump(Confirmation([1, 2], False, 100, configs, val, "00000", 0.0)))
    for config in written["configs"]:
        del config["scores"], config["test"]
    path.write_text(json.dumps(written))
    found = load(path)
    assert found is not None
    assert [found.test_accuracy(config) for config in found.configs] == [val, None]
    assert found.configs[0].scores == []


def another(val: Summary) -> Confirmed:
    return Confirmed("00001", {}, 0.8, val, 1.0, None, Comparison(-0.1, 0.5, True))


@pytest.mark.parametrize(("used", "first"), [([1, 7], 1007), ([None], 1000), ([2**63 - 1, 1], 2)])
def test_fresh_seeds_are_none_that_the_search_used_and_none_beyond_what_a_seed_may_be(
    used: list[int | None], first: int
) -> None:
    rows: list[Any] = [SimpleNamespace(seed=seed) for seed in used]
    assert _fresh_seeds(rows, 3) == [first, first + 1, first + 2]

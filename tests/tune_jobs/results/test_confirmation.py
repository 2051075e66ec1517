from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from tune_jobs.confirm import _fresh_seeds
from tune_jobs.console import confirmation_lines
from tune_jobs.errors import UsageError
from tune_jobs.results.confirmation import Confirmation, Confirmed, conclude, dump, half_width, interval, load
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.report.confirmed import shown
from tune_jobs.results.selection import candidates
from tune_jobs.results.statistics import Comparison, Summary, p_value
from tune_jobs.results.table import Row, rows


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
        del config["scores"], config["test"], config["search_repeats"]
        if config["versus_first"]:
            del config["versus_first"]["p_images"]
    path.write_text(json.dumps(written))
    found = load(path)
    assert found is not None
    assert [found.test_accuracy(config) for config in found.configs] == [val, None]
    assert found.configs[0].scores == []
    assert found.configs[0].search_repeats == 1


def another(val: Summary) -> Confirmed:
    return Confirmed("00001", {}, 0.8, val, 1.0, None, Comparison(-0.1, 0.5, True))


@pytest.mark.parametrize(("used", "first"), [([1, 7], 1007), ([None], 1000), ([2**63 - 1, 1], 2)])
def test_fresh_seeds_are_none_that_the_search_used_and_none_beyond_what_a_seed_may_be(
    used: list[int | None], first: int
) -> None:
    rows: list[Any] = [SimpleNamespace(seed=seed) for seed in used]
    assert _fresh_seeds(rows, 3) == [first, first + 1, first + 2]


def row(own_id: str, accuracy: float, test: float = 0.5, time_s: float = 1.0, state: str = "COMPLETE") -> Row:
    number = int(own_id.split("-")[0])
    (blank,) = rows([TrialRecord(own_id, {"model": "mlp", "lr": number, "seed": number}, state)])
    return replace(blank, val_accuracy=accuracy, test_accuracy=test, train_time_s=time_s)


SEARCHED = [row("00005", 0.95), row("00003", 0.93), row("00008", 0.92)]
"""Best first: those that are trained again, as 0, 1 and 2."""


IMAGES, FEW = {"train": 7000, "val": 1000, "test": 2000}, {"train": 700, "val": 100, "test": 200}


def again(number: int, *scores: float, **fields: Any) -> list[Row]:
    found = [row(f"{number:05d}-{fold}", score, **fields) for fold, score in enumerate(scores)]
    return [replace(one, config=one.config | {"lr": SEARCHED[number].config["lr"]}) for one in found]


@pytest.mark.parametrize("splits", [False, True])
def test_conclude_ranks_by_the_fresh_means_and_holds_all_against_the_best_of_them(splits: bool) -> None:
    trained = again(0, 0.90, 0.92, test=0.89, time_s=0.1) + again(1, 0.94, 0.95, test=0.91)
    trained += again(2, 0.94, 0.95, time_s=0.5)
    found = conclude(candidates(SEARCHED), trained[::-1], [7, 8], splits, IMAGES)
    assert [config.trial for config in found.configs] == ["00008", "00003", "00005"]  # of a tie the quicker
    assert [config.search_val_accuracy for config in found.configs] == [0.92, 0.93, 0.95]
    assert [config.scores for config in found.configs] == [[0.94, 0.95], [0.94, 0.95], [0.90, 0.92]]
    assert found.winner == "00005"
    assert found.optimism == pytest.approx(0.95 - 0.91)
    assert (found.test.mean, found.test) == (0.5, found.configs[0].test)
    first, _, last = (config.versus_first for config in found.configs)
    assert first is None
    assert last is not None
    assert last.difference == pytest.approx(-0.035)
    alone = conclude(candidates(SEARCHED), again(0, 0.90, 0.92) + again(1, 0.94, 0.95), [7, 8], splits, IMAGES)
    held = alone.configs[1].versus_first
    assert held is not None
    assert held.p == pytest.approx(p_value([0.04, 0.03], 1000, 1 / 7 if splits else 0.0))
    assert found.left_out == {}
    assert alone.left_out == {"00008": "some without an accuracy of 0"}


@pytest.mark.parametrize("splits", [False, True])
def test_the_first_was_picked_as_the_highest_and_its_interval_is_said_with_that_counted_in(splits: bool) -> None:
    trained = again(0, 0.90, 0.91, 0.92) + again(1, 0.86, 0.87, 0.88) + again(2, 0.80, 0.82, 0.84)
    found = conclude(candidates(SEARCHED), trained, [7, 8, 9], splits, IMAGES)
    half = stats.t.ppf(1 - 0.05 / 3 / 2, 2) * 0.01 * math.sqrt(1 / 3 + (1 / 7 if splits else 0))
    said = (
        "trial 00005 was picked as the highest of 3: with that counted in (Bonferroni) its 95 % interval is "
        f"{100 * (0.91 - half):.2f} to {min(100 * (0.91 + half), 100):.2f} %, and its mean is likely somewhat too high"
    )
    assert confirmation_lines(found)[1] == said
    assert shown(found).notes[1] == said
    narrower = stats.t.ppf(0.975, 2) / stats.t.ppf(1 - 0.05 / 6, 2)
    assert found.configs[0].val.high - 0.91 == pytest.approx(half * narrower)  # the table's stays
    earlier = replace(found, configs=[replace(found.configs[0], scores=[]), *found.configs[1:]])
    for other in (replace(found, configs=found.configs[:1]), earlier):
        assert not [line for line in confirmation_lines(other) if "picked" in line]


@pytest.mark.parametrize(("splits", "half", "of_test"), [(False, 0.0089, 0.0089), (True, 0.0117, 0.0139)])
def test_intervals_over_splits_allow_for_the_images_that_these_have_in_common(
    splits: bool, half: float, of_test: float
) -> None:
    scores = [0.900, 0.912, 0.893, 0.907, 0.903]
    trained = [replace(one, test_accuracy=one.val_accuracy) for one in again(0, *scores)]
    (config,) = conclude(candidates(SEARCHED), trained, list(range(5)), splits, IMAGES).configs
    assert config.val.mean == pytest.approx(0.903)
    assert config.val.high - config.val.mean == pytest.approx(half, abs=5e-5)
    assert config.test is not None
    assert config.test.high - config.test.mean == pytest.approx(of_test, abs=5e-5)


def test_conclude_leaves_out_what_is_not_complete_the_winner_too() -> None:
    trained = [*again(0, 0.90), *again(0, 0.9, 0.9, state="FAIL")[1:], *again(1, 0.94, 0.95)]
    found = conclude(candidates(SEARCHED[:2]), trained, [7, 8], False, IMAGES)
    assert [config.trial for config in found.configs] == ["00003"]
    assert (found.winner, found.left_out) == ("00005", {"00005": "1 FAIL of 2"})
    assert math.isnan(found.optimism)


def test_conclude_knows_how_many_trainings_the_searchs_score_is_of() -> None:
    (one, *_), other = candidates(SEARCHED), replace(SEARCHED[1], id="00003-1")
    repeated = replace(one, rows=(SEARCHED[1], other))
    found = conclude([repeated, one], again(0, 0.9, 0.8) + again(1, 0.8, 0.7), [7, 8], False, IMAGES)
    assert [config.search_repeats for config in found.configs] == [2, 1]


def test_worse_is_corrected_for_all_pairs_by_the_images_too() -> None:
    """Two points of 2,000 images are p = 0.035 for one pair; of three configs two such gaps are left to chance."""
    trained = [*again(0, 0.91, 0.911, 0.91), *again(1, 0.89, 0.891, 0.89), *again(2, 0.891, 0.891, 0.89)]
    found = conclude(candidates(SEARCHED), trained, [7, 8, 9], False, {"train": 7000, "val": 2000, "test": 2000})
    assert [found.verdict(config) for config in found.configs] == ["first", *["worse on these images"] * 2]
    versus = [config.versus_first and replace(config.versus_first, p_images=math.nan) for config in found.configs]
    earlier = [replace(config, versus_first=one) for config, one in zip(found.configs, versus, strict=True)]
    assert {found.verdict(config) for config in earlier[1:]} == {"worse"}  # an earlier version's were not corrected


def test_a_confirmation_knows_a_config_under_any_seed_and_what_it_refutes() -> None:
    trained = [*again(0, 0.900, 0.901, 0.900), *again(1, 0.94, 0.95, 0.94), *again(2, 0.5, 0.5, 0.51)]
    found = conclude(candidates(SEARCHED), trained, [7, 8, 9], False, FEW)
    first, near, far = found.configs
    assert [found.verdict(config) for config in found.configs] == ["first", "worse on these images", "worse"]
    assert [found.refutes(one) for one in SEARCHED] == [True, False, True]
    assert replace(found, splits=True).verdict(near) == "worse"  # the seeds' images are others each time
    other_seed = replace(SEARCHED[0], id="00077", config=SEARCHED[0].config | {"seed": 77})
    assert found.of(other_seed) is near
    other_repeat = replace(SEARCHED[2], id="00008-1", config={})
    assert found.of(other_repeat) is far
    assert found.of(replace(SEARCHED[0], id="00077", config={"model": "svm"})) is None
    assert found.of(SEARCHED[1]) is first


@pytest.mark.parametrize(
    ("splits", "reads_seed", "said"),
    [
        (True, False, "paired t-test over seeds"),
        (False, False, "test of two shares of the images"),
        (False, True, "paired t-test over seeds"),
    ],
)
def test_a_confirmation_names_the_test_that_was_made(splits: bool, reads_seed: bool, said: str) -> None:
    val = Summary(2, 0.9, 0.01, 0.88, 0.92)
    first = Confirmed("00000", {}, 0.9, val, 1.0, None, None, reads_seed)
    other = replace(another(val), reads_seed=False)
    found = Confirmation([1, 2], splits, 100, [first, other], val, "00000", 0.0)
    assert found.test_of([other]) == said


def test_a_confirmation_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "confirm.json"
    found = conclude(candidates(SEARCHED), again(0, 0.9) + again(1, 0.8), [7], False, FEW)  # one seed: p is NaN
    path.write_text(dump(found))
    read = load(path)
    assert read is not None
    assert read.configs[1].versus_first is not None
    assert math.isnan(read.configs[1].versus_first.p)
    assert repr(read) == repr(found)  # NaN is not equal to itself


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"configs": []}'])
def test_a_damaged_confirmation_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "confirm.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"confirm\.json: is damaged \(.*\); remove it, and confirm again$"):
        load(path)


def test_a_confirmation_of_no_configs_is_damaged(tmp_path: Path) -> None:
    path, val = tmp_path / "confirm.json", Summary(2, 0.9, 0.01, 0.88, 0.92)
    path.write_text(dump(Confirmation([1], False, 100, [], val, "00000", 0.0)))
    with pytest.raises(UsageError, match=r"is damaged \(it compares no configs\)"):
        load(path)

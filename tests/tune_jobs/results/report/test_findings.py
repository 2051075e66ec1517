from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.results.confirmation import conclude, dump
from tune_jobs.results.report.findings import Finding, _shares_differ, findings, points
from tune_jobs.results.report.loaded import load
from tune_jobs.results.rundir import RunDir

GRID = {"space": {"optimizer": {"grid": ["sgd", "adam"]}, "lr": {"grid": [0.1, 0.01, 0.001]}}}


def grid(gap: float) -> list[Trial]:
    return [
        ({"model": "mlp", "optimizer": o, "lr": lr}, "COMPLETE", [0.5, 0.8 + gap * (o == "adam") + 0.001 * i], {})
        for i, (o, lr) in enumerate(itertools.product(("sgd", "adam"), (0.1, 0.01, 0.001)))
    ]


def by_lead(run: RunDir) -> dict[str, Finding]:
    return {finding.lead: finding for finding in findings(load(run))}


def test_points_have_a_sign_that_is_a_minus() -> None:
    assert (points(-0.0123), points(0.0123, sign=True)) == ("−1.23", "+1.23")


@pytest.mark.parametrize(
    ("one", "other", "images", "differ"), [(1, 0.5, 40, True), (1, 0.9, 10, False), (0, 0, 9, False)]
)
def test_shares_of_none_and_of_all_compare_without_a_warning(
    one: float, other: float, images: int, differ: bool
) -> None:
    assert _shares_differ(one, other, images) == differ
    assert _shares_differ(other, one, images) == differ


def test_sentences_follow_the_numbers(make_run: MakeRun) -> None:
    large, none = (
        by_lead(make_run(grid(0.1), GRID, name="large")),
        by_lead(make_run(grid(0.0), GRID, val=50, name="none")),
    )
    assert large["optimizer matters"].kind == "clear"
    assert (
        "adam lies 10.30 points above sgd on average over 3 matched pairs, ahead in 3"
        in large["optimizer matters"].text
    )
    assert none["optimizer: not distinguishable"].kind == "unclear"
    assert not [finding for finding in none.values() if finding.kind == "clear"]
    assert "More epochs may help" in large
    assert "5 of the 5 other complete configs" in none["The best may not be the best"].text


def test_best_at_the_end_of_its_axis_is_told(make_run: MakeRun) -> None:
    text = by_lead(make_run(grid(0.1), GRID))["lr is at the edge"].text
    assert "at the lowest end of what was searched (0.001 to 0.1)" in text
    assert text.endswith("What the field does is not distinguishable, so that may be chance.")


def test_failures_are_counted_by_class(sampled: Callable[[int], RunDir]) -> None:
    assert "3 of 120 trials FAILed (3 diverged)" in by_lead(sampled(120))["Failures"].text


@pytest.mark.parametrize(
    ("fresh", "lead", "kind", "said"),
    [
        (
            [0.90, 0.91, 0.92],
            "The winner's score holds up",
            "note",
            "1.00 points too low, no more than single",
        ),
        ([0.80, 0.81, 0.82], "The search flattered its winner", "clear", "9.00 points too high, more than single"),
        ([0.97, 0.98, 0.99], "The search undersold its winner", "clear", "8.00 points too low, more than single"),
        ([0.80, 0.80, 0.80], "The search flattered its winner", "clear", "lie apart (±0.14 around the mean"),
        ([0.80], "What choosing the highest score added", "note", "10.00 points too high."),
    ],
)
def test_score_of_the_winner_is_held_against_the_spread_of_single_trainings(
    make_run: MakeRun, fresh: list[float], lead: str, kind: str, said: str
) -> None:
    run = make_run([({"model": "mlp", "lr": 0.1}, "COMPLETE", [0.9], {})])
    again = make_run(
        [({"model": "mlp", "lr": 0.1}, "COMPLETE", [score], {"number": 0, "fold": fold})
         for fold, score in enumerate(fresh)], name="again",
    )  # fmt: skip
    found = conclude(load(run).candidates, load(again).rows, [1, 2, 3], False, 1000)
    run.confirmation.write_text(dump(found))
    told = by_lead(run)[lead]
    assert told.kind == kind
    assert said in told.text


def test_tests_of_configs_that_a_sampler_chose_are_a_guide(sampled: Callable[[int], RunDir]) -> None:
    told = by_lead(sampled(60))["A sampler chose the configs"]
    assert "tpe chose later ones by earlier scores" in told.text


def test_one_trial_and_none_say_nothing_wrong(make_run: MakeRun) -> None:
    config = {"model": "mlp", "lr": 0.1}
    assert not [f for f in findings(load(make_run([(config, "COMPLETE", [0.5], {})], name="one"))) if f.kind == "clear"]
    failed: Trial = (config, "FAIL", [], {"failure": "error", "reason": "no"})
    assert [finding.lead for finding in findings(load(make_run([failed], name="failed")))] == ["Failures"]
    assert findings(load(make_run([], name="empty"))) == []

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.results.confirmation import conclude, dump
from tune_jobs.results.report.findings import Finding, findings, points
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


def confirmed(make_run: MakeRun, fresh: list[list[float]], splits: bool = False, model: str = "mlp") -> RunDir:
    """A run of as many configs as there are lists, each confirmed by its fresh scores; one below 0 has FAILed."""
    configs = [
        {"model": model, "lr": 0.1 * (n + 1)} | ({"seed": 1} if model == "mlp" else {}) for n in range(len(fresh))
    ]
    run = make_run([(config, "COMPLETE", [0.9 - 0.01 * n], {}) for n, config in enumerate(configs)])
    failed = {"failure": "diverged", "reason": "no"}
    again = make_run(
        [
            (configs[n], "FAIL" if score < 0 else "COMPLETE", [max(score, 0)],
             {"number": n, "fold": fold} | (failed if score < 0 else {}))
            for n, scores in enumerate(fresh) for fold, score in enumerate(scores)
        ], name="again",
    )  # fmt: skip
    seeds = list(range(len(fresh[0])))
    run.confirmation.write_text(dump(conclude(load(run).candidates, load(again).rows, seeds, splits, 1000, 7000)))
    return run


@pytest.mark.parametrize(
    ("fresh", "lead", "kind", "said"),
    [
        ([0.89, 0.91, 0.92], "The winner's score", "note", "0.67 points too low, which the mean's own interval covers"),
        ([0.80, 0.81, 0.82], "The search flattered its winner", "clear", "9.00 points too high, more than the mean's"),
        ([0.97, 0.98, 0.99], "The search undersold its winner", "clear", "8.00 points too low, more than the mean's"),
        ([0.80, 0.80, 0.80], "The search flattered its winner", "clear", "leaves open (±0.07, 95 %)"),
        ([0.80], "The winner's score", "note", "10.00 points too high."),
    ],
)
def test_score_of_the_winner_is_held_against_the_interval_of_its_mean(
    make_run: MakeRun, fresh: list[float], lead: str, kind: str, said: str
) -> None:
    run = confirmed(make_run, [fresh])
    told = by_lead(run)[lead]
    assert load(run).noise.by == ("seeds" if len(set(fresh)) > 1 else "images")
    assert told.kind == kind
    assert said in told.text
    assert told.text.endswith("what it owes to them is in both figures.")


def test_score_of_a_winner_on_fresh_splits_is_not_of_the_images_it_was_chosen_on(make_run: MakeRun) -> None:
    told = by_lead(confirmed(make_run, [[0.80, 0.81, 0.82]], splits=True))["The search flattered its winner"]
    assert told.text.endswith("95 %).")


def test_an_svm_trained_again_says_nothing_of_the_choosing(make_run: MakeRun) -> None:
    found = by_lead(confirmed(make_run, [[0.9, 0.9, 0.9], [0.899, 0.899, 0.899]], model="svm"))
    assert "(test of two shares of the images, Holm's correction)" in found["Tied at the top"].text
    told = found["The winner's score"]
    assert told.text.endswith("the same, as it depends on no seed: that says nothing of what the choosing added.")


@pytest.mark.parametrize(
    ("gap", "splits", "lead", "kind"),
    [
        (0.1, False, "Really apart", "clear"),
        (0.01, False, "Apart on these images", "unclear"),
        (0.01, True, "Really apart", "clear"),
        (0.0, False, "Tied at the top", "unclear"),
    ],
)
def test_configs_are_really_apart_where_the_images_tell_them_apart_too(
    make_run: MakeRun, gap: float, splits: bool, lead: str, kind: str
) -> None:
    first = [0.900, 0.901, 0.902, 0.901]
    found = by_lead(confirmed(make_run, [first, [score - gap for score in first]], splits))
    assert found[lead].kind == kind
    assert {"Really apart", "Apart on these images", "Tied at the top"} & set(found) == {lead}


def test_a_config_that_failed_under_a_fresh_seed_is_told_and_stays_the_winner(make_run: MakeRun) -> None:
    run = confirmed(make_run, [[0.9, -1.0, 0.9], [0.88, 0.87, 0.86]])
    loaded = load(run)
    assert loaded.confirmation is not None
    assert loaded.confirmation.winner == "00000"
    assert math.isnan(loaded.confirmation.optimism)
    found = by_lead(run)
    assert "trial 00000: 1 FAIL of 3" in found["Not all could be trained again"].text
    assert not [lead for lead in found if "winner" in lead]


def test_tests_of_configs_that_a_sampler_chose_are_a_guide(sampled: Callable[[int], RunDir]) -> None:
    told = by_lead(sampled(60))["A sampler chose the configs"]
    assert "tpe chose later ones by earlier scores" in told.text


def test_one_trial_and_none_say_nothing_wrong(make_run: MakeRun) -> None:
    config = {"model": "mlp", "lr": 0.1}
    assert not [f for f in findings(load(make_run([(config, "COMPLETE", [0.5], {})], name="one"))) if f.kind == "clear"]
    failed: Trial = (config, "FAIL", [], {"failure": "error", "reason": "no"})
    assert [finding.lead for finding in findings(load(make_run([failed], name="failed")))] == ["Failures"]
    assert findings(load(make_run([], name="empty"))) == []

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun, Trial, train_again
from tune_jobs.results.confirmation import conclude, dump
from tune_jobs.results.report import text
from tune_jobs.results.report.compared import lines
from tune_jobs.results.report.finding import Finding, points
from tune_jobs.results.report.findings import findings
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


def test_a_test_of_more_than_two_values_says_of_what_it_is(make_run: MakeRun, sampled: Callable[[int], RunDir]) -> None:
    matched = by_lead(make_run(grid(0.1), GRID, name="matched"))["lr: not distinguishable"].text
    assert "after Holm's correction (Tukey's test of the largest gap among 3 values)." in matched
    drawn = by_lead(sampled(120))
    assert re.search(
        r"points; any difference among the 3: p < 0\.001 after Holm's correction\.", drawn["lr matters"].text
    )
    of_two = drawn["model: not distinguishable where both trained"].text
    assert "any difference" not in of_two  # it is of the best against the worst


@pytest.mark.parametrize(
    ("epochs", "last", "n", "schedule", "told"),
    [
        (3, 6, 8, "constant", True), (3, 3, 3, "constant", True), (3, 3, 4, "constant", False),
        (2, 4, 4, "constant", False), (2, 5, 5, "constant", True), (9, 4, 8, "constant", False),
        (3, 8, 8, "cosine", False), (3, 8, 8, "onecycle", False),
    ],
)  # fmt: skip
def test_more_epochs_may_help_where_more_than_chance_were_best_in_their_last(
    make_run: MakeRun, epochs: int, last: int, n: int, schedule: str, told: bool
) -> None:
    trials: list[Trial] = [
        ({"model": "mlp", "lr": 0.01 * (i + 1), "lr_schedule": schedule}, "COMPLETE",
         [0.5] * (epochs - 2) + ([0.6, 0.7] if i < last else [0.7, 0.6]), {})
        for i in range(n)
    ]  # fmt: skip
    found = by_lead(make_run(trials)).get("More epochs may help")
    assert (found is not None) == told
    assert found is None or f"{last} of {n} complete networks" in found.text
    assert found is None or "they may still have been improving when training ended" in found.text


def test_best_at_the_end_of_its_axis_is_told(make_run: MakeRun) -> None:
    told = by_lead(make_run(grid(0.1), GRID))["lr is at the edge"].text
    assert "at the lowest end of what was searched (0.001 to 0.1)" in told
    assert told.endswith("What the field does is not distinguishable, so that may be chance.")


@pytest.mark.parametrize(
    ("field", "axis", "best", "told"),
    [
        ("lr", {"grid": [1e-4, 1e-3, 1e-2, 1e-1]}, 1e-3, ""),
        ("lr", {"grid": [1e-4, 1e-3, 1e-2, 1e-1]}, 1e-4, "at the lowest end"),
        ("lr", {"grid": [1e-4, 1e-3, 1e-2, 1e-1]}, 1e-1, "at the highest end"),
        ("weight_decay", {"grid": [0.0, 1e-4, 1e-2]}, 0.0, ""),
        ("weight_decay", {"grid": [0.0, 1e-4, 1e-2]}, 1e-2, "at the highest end"),
        ("hidden_layers", {"grid": [1, 2]}, 1, ""),
        ("seed", {"grid": [1, 2]}, 2, ""),
        ("lr", {"grid": [1e-4, 1e-3]}, 1e-2, ""),
        ("lr", {"loguniform": [1e-4, 1e-1]}, 1.2e-4, "at the lowest end"),
        ("lr", {"uniform": [1e-4, 1e-1]}, 1e-3, "at the lowest end"),
        ("lr", {"loguniform": [1e-4, 1e-1]}, 1e-3, ""),
    ],
)
def test_an_edge_is_the_end_of_a_list_or_near_that_of_a_range_and_no_bound_of_the_field(
    make_run: MakeRun, field: str, axis: dict[str, list[float]], best: float, told: str
) -> None:
    search = {"method": "grid"} if "grid" in axis else {"method": "random", "trials": 1}
    document = {"space": {field: axis}, "train": {"model": "mlp"}, "search": search}
    found = by_lead(make_run([({"model": "mlp", field: best}, "COMPLETE", [0.9], {})], document))
    edge = found.get(f"{field} is at the edge")
    assert (told in edge.text) if edge and told else edge is None and not told


def test_a_cheaper_one_is_none_that_the_confirmation_refuted(make_run: MakeRun) -> None:
    trials: list[Trial] = [
        ({"model": "mlp", "lr": 0.1}, "COMPLETE", [0.9], {"train_time_s": 9000.0}),
        ({"model": "mlp", "lr": 0.2}, "COMPLETE", [0.899], {"train_time_s": 100.0}),
    ]
    run = make_run(trials)
    assert "trained in 1.7 min, 90.0 times faster" in by_lead(run)["A cheaper one"].text
    train_again(make_run, run, trials, [[0.90, 0.901, 0.902], [0.70, 0.701, 0.702]])
    assert "A cheaper one" not in by_lead(run)


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
    images = load(run).environment["images"]
    found = conclude(load(run).candidates, load(again).rows, seeds, splits, images)
    run.confirmation.write_text(dump(found))
    return run


@pytest.mark.parametrize(
    ("fresh", "lead", "kind", "said"),
    [
        ([0.89, 0.91, 0.92], "The winner's score", "note", "0.67 points too low, no more than one score varies by"),
        ([0.86, 0.87, 0.88], "The winner's score", "note", "too high, no more than one score varies by (±4.97, 95 %)"),
        ([0.80, 0.81, 0.82], "The search flattered its winner", "clear", "9.00 points too high, more than one score"),
        ([0.97, 0.98, 0.99], "The search undersold its winner", "clear", "8.00 points too low, more than one score"),
        ([0.80, 0.80, 0.80], "The search flattered its winner", "clear", "varies by (±0.14, 95 %)"),
        ([0.80], "The winner's score", "note", "10.00 points too high."),
    ],
)
def test_score_of_the_winner_is_held_against_what_one_score_varies_by(
    make_run: MakeRun, fresh: list[float], lead: str, kind: str, said: str
) -> None:
    run = confirmed(make_run, [fresh])
    told = by_lead(run)[lead]
    assert (load(run).noise.seeds is not None) == (len(set(fresh)) > 1)
    assert told.kind == kind
    assert said in told.text
    assert told.text.endswith("what it owes to them is in both figures.")


@pytest.mark.parametrize(("splits", "lead", "said"), [
    (False, "The search flattered its winner", "too high, more than a mean of 12 scores varies by (±2.78, 95 %)"),
    (True, "The winner's score", "too high, no more than one score varies by (±4.97, 95 %)"),
])  # fmt: skip
def test_score_that_is_a_mean_of_repeats_varies_by_less_on_the_same_split(
    make_run: MakeRun, splits: bool, lead: str, said: str
) -> None:
    run = confirmed(make_run, [[0.86, 0.87, 0.88]], splits)
    found = load(run).confirmation
    assert found is not None
    assert found.configs[0].search_repeats == 1
    run.confirmation.write_text(dump(replace(found, configs=[replace(found.configs[0], search_repeats=12)])))
    assert said in by_lead(run)[lead].text


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


def test_a_confirmation_of_other_configs_is_not_taken_for_the_named_one(make_run: MakeRun) -> None:
    run = confirmed(make_run, [[0.9, 0.91, 0.9], [0.8, 0.81, 0.8]])
    assert "Confirmed below." in text.markdown([run])
    found = load(run).confirmation
    assert found is not None
    run.confirmation.write_text(dump(replace(found, configs=found.configs[1:])))
    told = by_lead(run)["The best is not confirmed"]
    assert told.text.startswith("Trial 00000, which the run names now, is not among those trained again (00001)")
    assert "those below are of other configs" in text.markdown([run])
    (line,) = lines([("made", load(run))])
    assert (line.accuracy, line.test_accuracy) == pytest.approx((0.9, 0.89))
    assert math.isnan(line.low)


def test_the_named_config_is_said_to_be_refuted_and_has_its_own_fresh_scores(make_run: MakeRun) -> None:
    run = confirmed(make_run, [[0.7, 0.71, 0.7], [0.8, 0.81, 0.8]])
    assert "Refuted below: worse than trial 00001." in text.markdown([run])
    (line,) = lines([("made", load(run))])
    assert (line.accuracy, line.test_accuracy) == pytest.approx((2.11 / 3, 2.11 / 3 - 0.01))


def test_repeats_without_a_confirmation_have_an_interval(make_run: MakeRun) -> None:
    config = {"model": "mlp", "lr": 0.1, "seed": 1}
    repeats: list[Trial] = [
        (config | {"lr": lr}, "COMPLETE", [lr + 0.01 * fold], {"number": number, "fold": fold, "train_time_s": fold})
        for number, lr in enumerate((0.5, 0.4)) for fold in range(3)
    ]  # fmt: skip
    run = make_run(repeats)
    told = by_lead(run)["The best over its repeats"].text
    assert told.startswith(
        "Over the 3 seeds of its repeats it has 51.00% on average (48.52 to 53.48 %, 95 % interval)."
    )
    assert "validation accuracy 51.00%" in text.markdown([run])
    assert "test accuracy 50.00%, means of 3 repeats" in text.markdown([run])


def test_noise_is_told_of_the_images_and_where_it_was_measured_of_seeds(make_run: MakeRun) -> None:
    alone = by_lead(make_run(grid(0.0), GRID, name="alone"))["What counts as noise"].text
    assert alone.endswith("is 1.25 points by the choice of 1,000 validation images (binomial).")
    repeats: list[Trial] = [
        (config | {"seed": fold}, state, [best + 0.01 * fold], {"number": number, "fold": fold})
        for number, (config, state, (_, best), _) in enumerate(grid(0.0)) for fold in range(3)
    ]  # fmt: skip
    both = by_lead(make_run(repeats, GRID | {"repeats": 3}, name="both"))["What counts as noise"].text
    assert both.endswith(
        "by the choice of 1,000 validation images (binomial), and 1.00 over seeds, by the spread over the repeats of 6 "
        "configs."
    )


def test_tests_of_configs_that_a_sampler_chose_are_a_guide(sampled: Callable[[int], RunDir]) -> None:
    told = by_lead(sampled(60))["A sampler chose the configs"]
    assert "tpe chose later ones by earlier scores" in told.text


def test_one_trial_and_none_say_nothing_wrong(make_run: MakeRun) -> None:
    config = {"model": "mlp", "lr": 0.1}
    assert not [f for f in findings(load(make_run([(config, "COMPLETE", [0.5], {})], name="one"))) if f.kind == "clear"]
    failed: Trial = (config, "FAIL", [], {"failure": "error", "reason": "no"})
    assert [finding.lead for finding in findings(load(make_run([failed], name="failed")))] == ["Failures"]
    assert findings(load(make_run([], name="empty"))) == []

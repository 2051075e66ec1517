from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from tests.tune_jobs.results.report.conftest import MakeRun, Trial, train_again
from tune_jobs.results.confirmation import dump
from tune_jobs.results.report import studied
from tune_jobs.results.report.effects import Effect, Group, effects
from tune_jobs.results.report.loaded import load
from tune_jobs.results.report.outcomes import outcomes
from tune_jobs.results.rundir import RunDir

OPTIMIZERS, LRS, BATCHES = ("sgd", "adam"), (0.1, 0.01, 0.001), (16, 32)
GRID = {
    "space": {"optimizer": {"grid": list(OPTIMIZERS)}, "lr": {"grid": list(LRS)}, "batch_size": {"grid": list(BATCHES)}}
}


def grid(accuracy: Callable[[str, float, int], float]) -> list[Trial]:
    return [
        ({"model": "mlp", "optimizer": o, "lr": lr, "batch_size": b}, "COMPLETE", [accuracy(o, lr, b)], {})
        for o, lr, b in itertools.product(OPTIMIZERS, LRS, BATCHES)
    ]


def found(run: RunDir) -> dict[str, Effect]:
    loaded = load(run)
    return {effect.field: effect for effect in effects(loaded, outcomes(loaded))}


def test_grid_effect_is_the_mean_of_matched_differences(make_run: MakeRun) -> None:
    jitter = random.Random(0)
    scores = {
        key: 0.8 + 0.1 * (key[0] == "adam") + jitter.gauss(0, 0.01)
        for key in itertools.product(OPTIMIZERS, LRS, BATCHES)
    }
    run = make_run(grid(lambda o, lr, b: scores[o, lr, b]), GRID)
    effect = found(run)["optimizer"]
    differences = [scores["adam", lr, b] - scores["sgd", lr, b] for lr, b in itertools.product(LRS, BATCHES)]
    test = stats.ttest_1samp(differences, 0)
    assert effect.matched
    assert effect.apart
    assert [group.label for group in effect.groups] == ["adam", "sgd"]
    assert (effect.n, effect.wins) == (6, 6)
    assert effect.difference == pytest.approx(sum(differences) / 6)
    assert (effect.low, effect.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert effect.p == pytest.approx(3 * test.pvalue)  # Holm: the smallest of three
    assert effect.share > 0.9
    assert not found(run)["batch_size"].apart
    assert not found(run)["lr"].apart


def test_grid_effect_that_turns_round_says_with_what(make_run: MakeRun) -> None:
    run = make_run(grid(lambda o, lr, _b: 0.9 - 0.2 * (o == "sgd" and lr == 0.001)), GRID)
    effect = found(run)["optimizer"]
    assert effect.by == "lr"
    assert effect.splits[0].label == "0.001"
    assert {(split.label, split.n) for split in effect.splits} == {("0.001", 2), ("0.1", 2), ("0.01", 2)}
    assert effect.splits[0].difference == pytest.approx(0.2)


def of_three(cells: list[tuple[float, float, float]]) -> tuple[list[Trial], dict[str, Any]]:
    """A grid over three activations in so many cells."""
    activations = ("relu", "tanh", "gelu")
    trials: list[Trial] = [
        ({"model": "mlp", "activation": name, "lr": 0.001 * (n + 1)}, "COMPLETE", [score], {})
        for n, cell in enumerate(cells) for name, score in zip(activations, cell, strict=True)
    ]  # fmt: skip
    return trials, {"space": {"activation": {"grid": list(activations)}}, "train": {"model": "mlp"}}


def test_grid_effect_of_three_values_is_not_told_from_one_cell_that_lies_far_out(make_run: MakeRun) -> None:
    """By ranks the second is the best in seven of eight cells; by its mean the first is, ahead in one."""
    effect = found(make_run(*of_three([(0.80, 0.82, 0.81)] * 7 + [(0.90, 0.50, 0.55)])))["activation"]
    assert [group.label for group in effect.groups] == ["relu", "tanh", "gelu"]
    assert (effect.n, effect.wins) == (8, 1)
    assert effect.difference == pytest.approx(0.035)
    assert not effect.apart
    assert effect.low < 0 < effect.high


def test_grid_effect_of_three_values_has_an_interval_and_needs_two_cells(make_run: MakeRun) -> None:
    effect = found(make_run(*of_three([(0.80, 0.90, 0.85), (0.70, 0.81, 0.75)])))["activation"]
    assert effect.apart
    assert effect.difference == pytest.approx(0.105)
    assert 0 < effect.low < effect.difference < effect.high


def test_noise_alone_makes_nothing_apart(make_run: MakeRun) -> None:
    told = 0
    for seed in range(20):
        jitter = random.Random(seed)
        run = make_run(grid(lambda _o, _lr, _b: jitter.gauss(0.9, 0.01)), GRID, name=f"noise{seed}")  # noqa: B023
        told += sum(effect.apart for effect in found(run).values())
    assert told <= 2  # 5 % a run are to be expected


def test_a_difference_below_the_noise_of_the_images_is_not_told_apart(make_run: MakeRun) -> None:
    trials = grid(lambda o, lr, b: 0.9 + 0.004 * (o == "adam") + 0.00001 * BATCHES.index(b) * LRS.index(lr))
    assert not found(make_run(trials, GRID, val=100, name="few"))["optimizer"].apart
    assert found(make_run(trials, GRID, val=1_000_000, name="many"))["optimizer"].apart


def test_cells_that_lack_a_value_are_left_out_of_its_pairs(make_run: MakeRun) -> None:
    trials = grid(lambda _o, _lr, _b: 0.9)
    trials[0] = (trials[0][0], "FAIL", [], {"failure": "error", "reason": "?"})
    assert found(make_run(trials, GRID))["optimizer"].n == 5


def test_seeds_that_are_an_axis_are_paired_too(make_run: MakeRun) -> None:
    trials: list[Trial] = [
        ({"model": "mlp", "optimizer": o, "seed": seed}, "COMPLETE", [0.8 + 0.01 * seed + 0.05 * (o == "adam")], {})
        for o, seed in itertools.product(OPTIMIZERS, (1, 2, 3))
    ]
    document = {"space": {"optimizer": {"grid": list(OPTIMIZERS)}, "seed": {"grid": [1, 2, 3]}}}
    effects_ = found(make_run(trials, document))
    assert list(effects_) == ["optimizer"]
    assert effects_["optimizer"].n == 3
    assert effects_["optimizer"].difference == pytest.approx(0.05)


def test_sampled_range_is_compared_by_thirds_and_all_trials_by_the_epochs_that_they_share(
    sampled: Callable[[int], RunDir],
) -> None:
    loaded = load(sampled(120))
    basis = outcomes(loaded)
    assert "2 epochs" in basis.basis
    assert len(basis.scores) == sum(row.state in ("COMPLETE", "PRUNED") for row in loaded.rows)
    by_field = {effect.field: effect for effect in effects(loaded, basis)}
    lr = by_field["lr"]
    assert not lr.matched
    assert lr.apart
    assert len(lr.groups) == 3
    assert float(lr.groups[0].label.split(" to ")[0]) > 1e-4  # the middle third is best
    assert math.isnan(lr.low)
    assert not by_field["hidden_units"].apart


def test_repeats_give_the_noise(make_run: MakeRun) -> None:
    trials: list[Trial] = []
    for number, lr in enumerate(LRS):
        for fold, accuracy in enumerate((0.88, 0.90, 0.92)):
            more: dict[str, Any] = {"fold": fold, "number": number}
            trials.append(({"model": "mlp", "lr": lr, "seed": fold}, "COMPLETE", [accuracy], more))
    noise = load(make_run(trials, {"space": {"lr": {"grid": list(LRS)}}, "repeats": 3})).noise
    assert noise.seeds == pytest.approx(0.02)
    assert noise.degrees == 6
    assert noise.images == pytest.approx(math.sqrt(0.9 * 0.1 / 1000))
    assert noise.of_difference(8) == pytest.approx(math.sqrt(0.9 * 0.1 / 1000 + 2 * 0.02**2 / 8))


def test_seeds_that_are_measured_do_not_put_the_images_out_of_account(make_run: MakeRun) -> None:
    """1.38 points over eight pairs, of 100 images: three points are one standard error of a share of those."""
    draw = random.Random(0)
    trials: list[Trial] = [
        ({"model": "mlp", "optimizer": o, "hidden_units": 16 + n, "seed": fold}, "COMPLETE", [
            0.9 + 0.0138 * (o == "adam") + 0.005 * (-1, 0, 1)[fold] + draw.gauss(0, 0.0001)],
         {"fold": fold, "number": 2 * n + (o == "adam")})
        for n in range(8) for o in OPTIMIZERS for fold in range(3)
    ]  # fmt: skip
    loaded = load(make_run(trials, {"repeats": 3}, val=100))
    assert loaded.noise.seeds == pytest.approx(0.005, abs=0.0005)
    (effect,) = (one for one in effects(loaded, outcomes(loaded)) if one.field == "optimizer")
    assert (effect.n, effect.wins) == (8, 8)
    assert effect.p < 0.05
    assert not effect.apart


@pytest.mark.parametrize("splits", [False, True])
def test_a_confirmation_over_splits_is_not_the_spread_over_seeds_alone(make_run: MakeRun, splits: bool) -> None:
    trials: list[Trial] = [({"model": "mlp", "seed": 1}, "COMPLETE", [0.9], {})]
    run = make_run(trials)
    train_again(make_run, run, trials, [[0.88, 0.9, 0.92]])
    found = load(run).confirmation
    assert found is not None
    run.confirmation.write_text(dump(replace(found, splits=splits)))
    noise = load(run).noise
    assert (noise.seeds, noise.degrees) == ((None, 0) if splits else (pytest.approx(0.02), 2))


def test_repeats_of_what_reads_no_seed_give_no_noise(make_run: MakeRun) -> None:
    """Four networks and four svms: the svms' spread of nothing is not that of a network's score."""
    trials: list[Trial] = []
    for number in range(8):
        for fold, accuracy in enumerate((0.88, 0.90, 0.92) if number < 4 else (0.9, 0.9, 0.9)):
            config = {"model": "mlp", "lr": number + 1, "seed": fold} if number < 4 else {"model": "svm", "C": number}
            trials.append((config, "COMPLETE", [accuracy], {"fold": fold, "number": number}))
    noise = load(make_run(trials, {"repeats": 3})).noise
    assert noise.seeds == pytest.approx(0.02)
    assert "4 configs" in noise.source


def test_what_mattered_says_of_which_fields_the_shares_are_of_ranks() -> None:
    def effect(field: str, matched: bool) -> Effect:
        groups = [Group("a", 3, 0.9), Group("b", 3, 0.8)]
        return Effect(field, matched, groups, 0.1, math.nan, math.nan, 3, 3, 0.01, 0.01, 0.4)

    title, caption = studied._of_shares([effect("lr", True), effect("momentum", True)])
    assert title == "share of the variance, %"
    assert caption.endswith("interactions and noise have what is left (20 %).")
    assert studied._of_shares([effect("lr", False)])[0] == "share of the variance of ranks, %"
    title, caption = studied._of_shares([effect("lr", True), effect("momentum", False)])
    assert title == "share of the variance, %"
    assert "of momentum, without matched cells, the share of the variance between the scores' ranks" in caption
    assert "(eta squared of the Kruskal-Wallis tests)" in caption


def test_share_of_a_sampled_field_is_eta_squared_of_its_ranks(make_run: MakeRun) -> None:
    """By the ranks themselves: the share between groups, less what k − 1 groups have by chance."""
    draw = random.Random(0)
    configs = [("relu", 0.82), ("tanh", 0.81), ("gelu", 0.80)] * 6
    trials: list[Trial] = [
        ({"model": "mlp", "activation": name, "lr": draw.uniform(0.001, 0.1)}, "COMPLETE", [draw.gauss(mean, 0.02)], {})
        for name, mean in configs
    ]
    scores = [accuracy for _, _, (accuracy,), _ in trials]
    ranks = stats.rankdata(scores)
    groups = [ranks[n::3] for n in range(3)]
    h = 12 / (18 * 19) * sum(sum(group) ** 2 / 6 for group in groups) - 3 * 19
    assert found(make_run(trials))["activation"].share == pytest.approx((h - 2) / 15)

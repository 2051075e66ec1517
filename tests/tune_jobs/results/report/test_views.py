"""What a figure opens on where a few trials are hopeless, and what it says of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.results.report.effects import effects
from tune_jobs.results.report.figures import figures
from tune_jobs.results.report.loaded import load
from tune_jobs.results.report.outcomes import outcomes
from tune_jobs.results.report.trade_offs import trade_offs
from tune_jobs.results.report.views import opened, range_of

GOOD = [88.0, 88.5, 89.0, 89.5, 90.0]


def test_opened_leaves_out_what_is_far_out_on_the_poor_side_alone() -> None:
    view = opened([*GOOD, 10.0, math.nan], "below")
    assert view is not None
    low, high = view.ends
    assert 87 < low < 88
    assert 90 < high < 91
    assert [view.has(value) for value in (10.0, 88.0, 99.0)] == [False, True, True]
    assert view.told(1, "config") == " 1 config lies below the view, far from the rest: a double click shows all."
    assert range_of(view) == {"range": [low, high]}
    losses = opened([-value for value in (*GOOD, 10.0)], "above")
    assert losses is not None
    assert losses.ends == (-high, -low)
    assert losses.told(2, "trial").startswith(" 2 trials lie above")


@pytest.mark.parametrize("values", [GOOD, [*GOOD, 87.0], [89.0] * 9 + [10.0], [10.0, 89.0, 90.0], [1.0] * 4, []])
def test_opened_shows_all_where_nothing_is_far_out_or_the_rest_has_no_spread(values: list[float]) -> None:
    assert opened(values, "below") is None
    assert range_of(None) == {}


def test_figures_of_accuracy_open_on_the_rest_and_count_what_is_outside(make_run: MakeRun) -> None:
    trials: list[Trial] = [
        ({"model": "mlp", "lr": lr, "batch_size": 16}, "COMPLETE", [top - 0.01, top], {"train_time_s": 1 + lr})
        for lr, top in ((0.1, 0.88), (0.02, 0.885), (0.03, 0.89), (0.04, 0.895), (0.05, 0.9), (0.06, 0.1))
    ]
    space = {"lr": {"uniform": [0.01, 0.1]}}
    loaded = load(make_run(trials, {"space": space, "search": {"method": "random", "trials": 6}}))
    found = {figure.key: figure for figure in figures(loaded, effects(loaded, outcomes(loaded)))}
    for key, said in (
        ("accuracy", "1 trial lies below"),
        ("history", "1 config lies below"),
        ("time", "1 config lies"),
    ):
        assert said in found[key].caption
        low, high = found[key].spec["layout"]["yaxis"]["range"]
        assert 80 < low < high < 100
    assert "the view" not in found["loss"].caption
    assert "range" not in found["loss"].spec["layout"]["yaxis"]
    assert "svm" not in found["time"].caption


def test_trade_off_with_one_config_ahead_of_all_has_no_line(make_run: MakeRun) -> None:
    trials: list[Trial] = [
        ({"model": "mlp", "lr": lr}, "COMPLETE", [top], {"train_time_s": time_s, "macs": macs})
        for lr, top, time_s, macs in ((0.1, 0.8, 1.0, 20), (0.2, 0.9, 2.0, 10))
    ]
    found = {figure.key: figure for figure in figures(load(make_run(trials)), [])}
    assert "none does better than trial 00001 in either" in found["macs"].caption
    assert [trace["name"] for trace in found["macs"].spec["data"]] == ["mlp"]
    assert "the line joins those" in found["time"].caption
    assert [trace["name"] for trace in found["time"].spec["data"]] == ["mlp", "Pareto front"]


def test_fields_drawn_from_a_range_are_numbers_or_parts_and_those_of_one_value_are_left_out(make_run: MakeRun) -> None:
    trials: list[Trial] = [
        ({"model": "mlp", "lr": 10**-power, "batch_size": size}, "COMPLETE", [0.5 + power / 100], {})
        for power, size in zip((1.0, 1.5, 2.0, 2.5, 3.0, 3.5), (16, 32, 16, 32, 16, 32), strict=True)
    ]
    trials.append(({"model": "svm", "C": 1.0}, "FAIL", [], {"failure": "error", "reason": "no"}))
    space = {
        "model": {"choice": ["mlp", "svm"]}, "lr": {"loguniform": [1e-4, 1e-1]}, "batch_size": {"choice": [16, 32]},
        "C": {"uniform": [0.1, 10]},
    }  # fmt: skip
    loaded = load(
        make_run(trials, {"space": space, "search": {"method": "random", "trials": 7}, "train": {"epochs": 1}})
    )
    found = {figure.key: figure for figure in figures(loaded, [])}
    axes = found["heat"].spec["axes"]
    assert axes["lr"]["labels"] == ["0.0003162 to 0.003162", "0.01 to 0.1"]
    assert axes["lr"]["of"] == [0 if candidate.rows[0].config["lr"] < 0.005 else 1 for candidate in loaded.candidates]
    assert axes["batch_size"]["labels"] == ["16", "32"]
    drawn = {one["label"]: one for one in found["parallel"].spec["data"][0]["dimensions"]}
    assert list(drawn) == ["lr", "batch_size", "accuracy, %"]
    assert drawn["lr"]["ticktext"] == ["0.0001", "0.001", "0.01", "0.1"]
    assert sorted(drawn["lr"]["values"]) == [-3.5, -3.0, -2.5, -2.0, -1.5, -1.0]


@pytest.mark.parametrize(
    ("seconds", "scale"),
    [
        ([1.0, 9.0], {}),
        ([0.4, 8.0], {"type": "log", "tickvals": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]}),
        ([0.1, 9000.0], {"type": "log", "dtick": 1}),
    ],
)
def test_a_time_axis_names_several_values(seconds: list[float], scale: dict[str, Any], make_run: MakeRun) -> None:
    """Between 0.4 and 8 there is but one power of ten."""
    run = make_run([({"model": "mlp", "lr": s}, "COMPLETE", [0.5 + s / 1e5], {"train_time_s": s}) for s in seconds])
    figure = next(figure for figure in trade_offs(load(run)) if figure.key == "time")
    drawn = figure.spec["layout"]["xaxis"]
    assert {name: value for name, value in drawn.items() if name != "title"} == scale

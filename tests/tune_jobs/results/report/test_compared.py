"""Runs held against each other: tests of what the confirmations found, and words where there is nothing to test by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun
from tune_jobs.results.confirmation import conclude, dump
from tune_jobs.results.report.compared import lines
from tune_jobs.results.report.loaded import Loaded, load
from tune_jobs.results.statistics import Comparison

FRESH = [0.900, 0.901, 0.902, 0.901]


def confirmed(
    make_run: MakeRun, name: str, fresh: list[float], splits: bool = False, model: str = "mlp", first: int = 1042
) -> Loaded:
    """A run of one config, confirmed by these scores."""
    config: dict[str, Any] = {"model": model, "lr": 0.1} | ({"seed": 1} if model == "mlp" else {})
    run = make_run([(config, "COMPLETE", [0.9], {})], name=name)
    again = make_run(
        [(config, "COMPLETE", [s], {"number": 0, "fold": f}) for f, s in enumerate(fresh)], name=f"{name}-a"
    )
    seeds = list(range(first, first + len(fresh)))
    found = conclude(load(run).candidates, load(again).rows, seeds, splits, load(run).environment["images"])
    run.confirmation.write_text(dump(found))
    return load(run)


def verdicts(*runs: Loaded) -> list[str]:
    return [line.verdict for line in lines([(loaded.run.name, loaded) for loaded in runs])][1:]


@pytest.mark.parametrize(
    ("gap", "splits", "said"),
    [
        (0.1, False, "−10.00 points to the first run, really apart (t-test paired over seeds, p < 0.001)"),
        (
            0.01,
            False,
            "−1.00 points to the first run, apart on these 1,000 images, which alone leave such a gap to chance",
        ),
        (0.01, True, "−1.00 points to the first run, really apart (t-test paired over seeds"),
        (0.0, False, "+0.00 points to the first run, not distinguishable (t-test paired over seeds, p = 1.000)"),
    ],
)
def test_runs_are_really_apart_where_the_images_tell_them_apart_too(
    make_run: MakeRun, gap: float, splits: bool, said: str
) -> None:
    first = confirmed(make_run, "one", FRESH, splits)
    (verdict,) = verdicts(first, confirmed(make_run, "two", [score - gap for score in FRESH], splits))
    assert verdict.startswith(said)


@pytest.mark.parametrize(
    ("test", "splits", "said"),
    [
        (0.89, False, "apart by validation, but the 2,000 test images leave such a gap to chance"),
        (0.90, False, "apart by validation, but the other way round on the 2,000 test images"),
        (0.79, False, "really apart"), (math.nan, False, "really apart"), (None, False, "really apart"),
        (0.89, True, "really apart"),
    ],
)  # fmt: skip
def test_runs_are_really_apart_where_the_test_images_do_not_leave_it_to_chance(
    make_run: MakeRun, test: float | None, splits: bool, said: str
) -> None:
    """Each config was chosen on the validation images."""
    first = confirmed(make_run, "one", FRESH, splits)
    other = confirmed(make_run, "two", [score - 0.1 for score in FRESH], splits)
    assert other.confirmation is not None
    (config,) = other.confirmation.configs
    assert config.test is not None
    summary = None if test is None else replace(config.test, mean=test)
    config = replace(config, test=summary, versus_first=Comparison(-0.1, 0.01, False))
    found = replace(other.confirmation, configs=[config])
    (verdict,) = verdicts(first, replace(other, confirmation=found))
    assert verdict.startswith(f"−10.00 points to the first run, {said}")


def test_runs_over_other_seeds_are_not_paired(make_run: MakeRun) -> None:
    first = confirmed(make_run, "one", FRESH)
    (verdict,) = verdicts(first, confirmed(make_run, "two", [score - 0.1 for score in FRESH], first=1))
    assert "really apart (Welch's t-test over seeds" in verdict
    earlier = confirmed(make_run, "earlier", FRESH)
    assert earlier.confirmation is not None
    earlier.run.confirmation.write_text(
        dump(replace(earlier.confirmation, configs=[replace(earlier.confirmation.configs[0], scores=[])]))
    )
    assert "not distinguishable (Welch's t-test" in verdicts(first, load(earlier.run))[0]


def test_runs_over_other_splits_are_not_tested(make_run: MakeRun) -> None:
    first, other = confirmed(make_run, "one", FRESH), confirmed(make_run, "two", FRESH, splits=True)
    assert verdicts(first, other) == [
        "+0.00 points to the first run, over other splits: confirm both with as many seeds and splits to know"
    ]


def test_svms_are_told_apart_by_the_images(make_run: MakeRun) -> None:
    first, other = (confirmed(make_run, name, [score] * 3, model="svm") for name, score in (("a", 0.9), ("b", 0.8)))
    assert verdicts(first, other)[0].endswith("really apart (test of two shares of the images, p < 0.001)")


def test_several_runs_have_their_p_corrected(make_run: MakeRun) -> None:
    first, two = confirmed(make_run, "one", FRESH), confirmed(make_run, "two", [0.89, 0.9, 0.91, 0.89])
    (alone,), both = verdicts(first, two), verdicts(first, two, confirmed(make_run, "three", [0.9, 0.9, 0.89, 0.9]))
    assert all(verdict.endswith(" after Holm's correction)") for verdict in both)
    assert "Holm" not in alone
    assert both[0] != alone

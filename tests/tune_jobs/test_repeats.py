"""A config's repeats: their seeds, and which of them are there."""

from __future__ import annotations

from typing import Any

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment, check
from tune_jobs.experiment.repeats import asked, check_seeds, configs, missing, repeated, total
from tune_jobs.space import Space, parse


def made(space: dict[str, Any], repeats: int, **search: Any) -> tuple[Experiment, Space]:
    document = {"name": "x", "dataset": {"name": "digits"}, "space": {"model": "mlp"} | space, "repeats": repeats}
    experiment = check(document | {"search": search})
    return experiment, parse(experiment.space, experiment.train, experiment.search.method)


def test_total_counts_each_repeat_and_no_more_configs_than_there_are() -> None:
    few, space = made({"lr": {"choice": [0.1, 0.2, 0.3]}}, 2, method="random", trials=20)
    assert (configs(few, space), total(few, space), asked(few)) == (3, 6, 6)
    many, space = made({"lr": {"uniform": [0.1, 0.2]}}, 2, method="random", trials=20)
    assert (configs(many, space), total(many, space), asked(many)) == (20, 40, 40)
    grid, space = made({"lr": {"grid": [0.1, 0.2]}}, 3)
    assert (configs(grid, space), total(grid, space), asked(grid)) == (2, 6, 0)


def test_asked_of_a_space_that_is_refused_by_now_is_what_it_says() -> None:
    experiment, _ = made({"lr": {"uniform": [0.1, 0.2]}}, 2, method="random", trials=20)
    assert asked(experiment.model_copy(update={"space": {"model": "mlp", "lr": {"since": "gone"}}})) == 40


def test_repeated_counts_seeds_up_from_the_point_s_own() -> None:
    assert [point["seed"] for point in repeated({"lr": 0.1, "seed": 7}, 3)] == [7, 8, 9]
    for point in ({"C": 1.0}, {"lr": 0.1, "seed": None}):
        assert repeated(point, 2) == [point, point]


@pytest.mark.parametrize("there", [{0: 7}, {1: 8}, {2: 9}, {0: 7, 2: 9}])
def test_missing_has_the_seeds_that_the_first_would_have_had(there: dict[int, int]) -> None:
    have: dict[int, Any] = {fold: {"lr": 0.1, "seed": seed} for fold, seed in there.items()}
    found = missing(have, 3)
    assert {fold: point["seed"] for fold, point in (have | found).items()} == {0: 7, 1: 8, 2: 9}
    assert not found.keys() & have.keys()
    assert missing({1: {"C": 1.0}}, 2) == {0: {"C": 1.0}}


LAST = 2**63 - 1


@pytest.mark.parametrize(
    ("space", "search"),
    [
        ({"seed": LAST}, {}),
        ({"seed": {"grid": [LAST, 1]}}, {}),
        ({"model": {"grid": ["svm", "mlp"]}, "seed": LAST - 1}, {}),
        ({"lr": {"uniform": [0.1, 0.2]}, "seed": {"int": [1, LAST]}}, {"method": "random", "trials": 2}),
    ],
)
def test_check_seeds_a_seed_whose_repeats_would_be_too_large_is_refused(
    space: dict[str, Any], search: dict[str, Any]
) -> None:
    said = rf"^seed: {LAST - 1 if 'model' in space else LAST}: with repeats: 3 .* and the 2 after it; give at most "
    with pytest.raises(UsageError, match=f"{said}{LAST - 2}$"):
        check_seeds(*made(space, 3, **search))
    check_seeds(*made(space, 1, **search))


def test_check_seeds_the_largest_that_the_repeats_allow_and_one_that_no_trial_reads() -> None:
    check_seeds(*made({"seed": LAST - 2}, 3))
    check_seeds(*made({"model": "svm", "seed": LAST}, 3))
    check_seeds(*made({"seed": None}, 3))

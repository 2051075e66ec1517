"""Whether a run that exists is of the experiment that is asked, and what is left of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tune_jobs import yaml
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment, check
from tune_jobs.experiment.extension import extended
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.rundir import RunDir
from tune_jobs.sameness import changed, check_same, differences, is_left, new_points
from tune_jobs.space import Space, parse

GRID: dict[str, Any] = {"space": {"model": "mlp", "lr": {"grid": [0.1, 0.2]}}}
RANDOM: dict[str, Any] = {
    "space": {"model": "mlp", "lr": {"uniform": [0.1, 0.2]}},
    "search": {"method": "random", "trials": 4},
}


def made(document: dict[str, Any]) -> tuple[Experiment, Space]:
    experiment = check({"name": "x", "dataset": {"name": "digits"}} | document)
    return experiment, parse(experiment.space, experiment.train, experiment.search.method)


def trials_of(space: Space, state: str = "COMPLETE") -> dict[str, TrialRecord]:
    return {f"{n:05d}": TrialRecord(f"{n:05d}", point, state) for n, point in enumerate(space.grid())}


def look(path: Path, before: dict[str, Any], after: dict[str, Any], data: str = "a" * 64) -> None:
    """Ask for the second where the first has run."""
    run = RunDir(path)
    was, space = made(before)
    run.experiment.write_text(yaml.dump(was.document(), "Made for a test."))
    run.environment.write_text(json.dumps({"data_sha256": "a" * 64}))
    check_same(*made(after), run, data, trials_of(space) if was.search.method == "grid" else {})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (GRID, GRID),
        (GRID, {"space": GRID["space"] | {"lr": {"grid": [0.3, 0.2, 0.1]}}}),
        (GRID, GRID | {"retries": 7, "resources": {"cpu": 2}, "budget": {"minutes": 3}, "keep_models": 5}),
        (GRID, GRID | {"search": {"max_concurrent": 1}}),
        (RANDOM, RANDOM | {"search": {"method": "random", "trials": 9, "max_concurrent": 2}}),
    ],
)
def test_a_run_is_taken_up_by_what_is_the_same_or_adds_to_it(
    before: dict[str, Any], after: dict[str, Any], tmp_path: Path
) -> None:
    look(tmp_path, before, after)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (GRID, {"space": GRID["space"] | {"lr": {"grid": [0.1]}}}, r"\(space\.lr\.grid: \[0\.1, 0\.2\] -> \[0\.1\]\)"),
        (GRID, GRID | {"train": {"epochs": 9}}, r"\(train\.epochs: 5 -> 9\).* --extend$"),
        (GRID, {"space": GRID["space"] | {"epochs": {"grid": [9]}}}, r"\(space\.epochs: 5 -> \{'grid': \[9\]\}\)"),
        (GRID | {"train": {"epochs": 9}}, GRID, r"\(train\.epochs: 9 -> 5\).* --extend$"),
        (GRID, GRID | {"repeats": 2}, r"\(repeats: 1 -> 2\); give this one another --name$"),
        (GRID, GRID | {"train": {"epochs": 9}, "repeats": 2}, r"give this one another --name$"),
        (RANDOM, RANDOM | {"search": {"method": "random", "trials": 3}}, r"\(search\.trials: 4 -> 3\)"),
        (RANDOM, RANDOM | {"search": {"method": "random", "trials": 9, "seed": 1}}, r"search\.seed: 0 -> 1"),
        (RANDOM, RANDOM | {"space": RANDOM["space"] | {"lr": {"uniform": [0.1, 0.3]}}}, r"space\.lr\.uniform"),
    ],
)
def test_a_run_of_another_experiment_is_refused_by_what_differs(
    before: dict[str, Any], after: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"^run .* exists with another experiment .*{said}"):
        look(tmp_path, before, after)


@pytest.mark.parametrize(
    "after",
    [
        {"space": GRID["space"], "train": {"optimizer": "sgd", "momentum": 0.5}},
        {"space": GRID["space"] | {"momentum": {"grid": [0.5, 0.6]}}, "train": {"optimizer": "sgd"}},
    ],
)
def test_a_run_is_extended_by_values_of_fields_that_it_has_the_defaults_of(
    after: dict[str, Any], tmp_path: Path
) -> None:
    before = GRID | {"train": {"optimizer": "sgd"}}
    with pytest.raises(UsageError, match=r"momentum: 0\.9 -> .*--extend$"):
        look(tmp_path, before, after)
    look(tmp_path, before, extended(made(before)[0], made(after)[0]).document())


def test_a_run_of_other_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(the images or labels themselves\); give this one another --name$"):
        look(tmp_path, GRID, GRID, data="b" * 64)


def test_a_benchmark_and_trials_without_an_experiment_are_refused(tmp_path: Path) -> None:
    run, asked = RunDir(tmp_path), made(GRID)
    check_same(*asked, run, "a" * 64, {})  # nothing is there
    with pytest.raises(UsageError, match="has trials but no"):
        check_same(*asked, run, "a" * 64, trials_of(asked[1]))
    run.rows.write_text("")
    with pytest.raises(UsageError, match="is a benchmark; give the search another --name"):
        check_same(*asked, run, "a" * 64, {})


def test_new_points_and_what_is_left() -> None:
    experiment, space = made(GRID)
    trials = trials_of(space)
    assert new_points(experiment, space, trials) == []
    assert not is_left(experiment, space, trials)
    assert is_left(experiment, space, trials | {"00001": TrialRecord("00001", space.grid()[1], "RUNNING")})
    del trials["00000"]
    assert new_points(experiment, space, trials) == [space.grid()[0]]
    assert is_left(experiment, space, trials)
    assert is_left(*made(RANDOM), {})


def test_differences_are_named_by_their_path() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}, "d": 4}) == ["a.b: 1 -> 3", "d: None -> 4"]
    before = {"versions": {"torch": "2"}, "git_commit": "x", "cpu": "y", "gpus": []}
    assert changed(before, before | {"versions": {"torch": "3"}, "time": 1}) == ["versions.torch: 2 -> 3"]

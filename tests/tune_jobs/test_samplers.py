"""Samplers whose trials are the same whenever they are drawn, without Ray."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
import pytest
from optuna.samplers import GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from tune_jobs.experiment import Search
from tune_jobs.study.samplers import SeededByTrial, first_generation, make_sampler

METHODS: list[dict[str, Any]] = [
    {"method": "random"},
    *({"method": "optuna", "sampler": sampler} for sampler in ("random", "tpe", "qmc", "nsga2")),
]


def search(**fields: Any) -> Search:
    return Search.model_validate({"trials": 9, "startup_trials": 3} | fields)


def drawn(asked: Search, trials: int, taken_up_after: int = -1) -> list[dict[str, Any]]:
    """The values of so many trials; after some of them a new process goes on with the study."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.InMemoryStorage()
        optuna.create_study(storage=storage, study_name="x", direction="maximize")
        sampler = SeededByTrial(asked)
        for number in range(trials):
            sampler = SeededByTrial(asked) if number == taken_up_after else sampler
            study = optuna.load_study(study_name="x", storage=storage, sampler=sampler)
            trial = study.ask()
            x, kind = trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", "b"])
            study.tell(trial, x - (kind == "a"))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_a_search_that_is_taken_up_draws_what_an_undisturbed_one_does(fields: dict[str, Any]) -> None:
    whole = drawn(search(**fields), 8)
    for done in (1, 4):
        assert drawn(search(**fields), 8, done) == whole
    found, other = ({point["x"] for point in points} for points in (whole, drawn(search(seed=1, **fields), 8)))
    assert len(found) > 3  # nsga2 has children that are like a parent
    assert not found & other
    assert {point["kind"] for point in whole[1:]} == {"a", "b"}


def test_samplers_have_what_the_experiment_says() -> None:
    def made(sampler: str, number: int = 0) -> Any:
        return make_sampler(search(method="optuna", sampler=sampler, seed=5), number)

    assert isinstance(tpe := made("tpe"), TPESampler)
    assert (tpe._n_startup_trials, tpe._constant_liar, tpe._multivariate, tpe._group) == (3, True, True, True)
    assert isinstance(gp := made("gp"), GPSampler)
    assert gp._n_startup_trials == 3
    assert isinstance(nsga2 := made("nsga2"), NSGAIISampler)
    assert nsga2._population_size == 3
    assert isinstance(qmc := made("qmc", 7), QMCSampler)
    assert (qmc._seed, qmc._scramble) == (5, True)  # one sequence for all
    assert isinstance(made("random"), RandomSampler)
    assert isinstance(make_sampler(search(method="random", sampler="tpe"), 0), RandomSampler)


def test_nsga2_counts_a_trial_whose_values_are_all_given_to_a_generation() -> None:
    nsga2 = search(method="optuna", sampler="nsga2")
    (key,) = first_generation(nsga2)
    assert first_generation(search(method="optuna", sampler="tpe")) == {}
    assert first_generation(search(method="random", sampler="nsga2")) == {}
    study = optuna.create_study(sampler=SeededByTrial(nsga2))
    study.enqueue_trial({"x": 0.5})
    trial = study.ask()
    assert study.trials[0].system_attrs[key] == 0
    assert trial.suggest_float("x", 0, 1) == 0.5

"""What is said of an experiment before it runs."""

from __future__ import annotations

from typing import Any

import pytest

from tune_jobs import space
from tune_jobs.experiment import check
from tune_jobs.notes import notes


def noted(**document: Any) -> list[str]:
    experiment = check({"name": "x", "dataset": {"name": "digits"}} | document)
    return notes(experiment, space.parse(experiment.space, experiment.train, experiment.search.method))


def test_fixed_values_that_nothing_reads() -> None:
    assert noted(space={"model": "svm"}, train={"lr": 0.1, "C": 2}) == ["lr is read by none of the trials"]


def test_a_space_that_ends() -> None:
    sampled = {"space": {"model": {"choice": ["mlp", "svm"]}, "lr": {"choice": [0.1, 0.2]}}}
    assert noted(**sampled, search={"method": "random", "trials": 9}) == [
        "search.trials is 9, and the space ends after 3"
    ]
    assert noted(**sampled, search={"method": "random", "trials": 3}) == []


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_scheduler_that_never_comes_to_stop_a_trial(scheduler: str) -> None:
    def asked(grace_epochs: int, epochs: Any) -> list[str]:
        return noted(
            space={"model": "mlp", "lr": {"grid": [0.1, 0.2]}, "epochs": epochs},
            scheduler={"name": scheduler, "grace_epochs": grace_epochs},
        )

    assert asked(4, 4) == [f"{scheduler} stops no trial: grace_epochs is 4, and none has more than 4 epochs"]
    assert asked(4, {"grid": [2, 5]}) == []
    assert noted(train={"model": "mlp", "epochs": 1}, scheduler={"name": "none", "grace_epochs": 9}) == []
    svm = noted(space={"model": "svm", "C": {"grid": [1, 2]}}, scheduler={"name": scheduler})
    assert svm == [f"{scheduler} stops no trial: grace_epochs is 1, and none has more than 1 epoch"]


def test_a_scheduler_over_one_trial_alone() -> None:
    fields: dict[str, Any] = {"train": {"model": "mlp", "epochs": 9}, "scheduler": {"name": "asha"}}
    assert noted(**fields) == ["asha stops no trial: there is one alone, and nothing to compare it with"]
    assert noted(**fields, repeats=2) == []
    assert noted(**fields, search={"method": "random", "trials": 2}, space={"lr": {"uniform": [0.1, 0.2]}}) == []


def test_repeats_of_a_model_that_reads_no_seed() -> None:
    said = ["svm reads no seed: its 3 repeats give the same numbers"]
    assert noted(space={"model": {"grid": ["svm", "mlp"]}}, repeats=3) == said
    assert noted(space={"model": {"grid": ["svm", "mlp"]}}) == []
    assert noted(space={"model": "mlp"}, repeats=3) == []

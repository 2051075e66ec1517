"""What is said of an experiment before it runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datasets import Dataset, DatasetConfig
from datasets.splits import split
from tune_jobs import space
from tune_jobs.experiment import check
from tune_jobs.experiment.notes import note_beside, notes, notes_on


def noted(**document: Any) -> list[str]:
    experiment = check({"name": "x", "dataset": {"name": "digits"}} | document)
    return notes(experiment, space.of(experiment))


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
    assert len(noted(**fields, repeats=2)) == 1  # of which the first is judged, and the others follow it
    assert noted(**fields, search={"method": "random", "trials": 2}, space={"lr": {"uniform": [0.1, 0.2]}}) == []


@pytest.mark.parametrize("fuse", [True, "auto"])
def test_fusing_where_nothing_can_be_fused(fuse: bool | str) -> None:
    def asked(model: Any, **resources: Any) -> list[str]:
        return noted(space={"model": model}, resources={"fuse": fuse} | resources)

    said = [
        "resources.fuse does nothing: no simple_cnn, baseline, high_vision, modernist, mlp shares a card (gpu below 1) "
        "or a core (cpu below 1)"
    ]
    assert asked("mlp") == asked("mlp", gpu=1) == asked("mlp", gpu=1, cpu=0.5) == asked("resnet18", gpu=0.5) == said
    assert asked("mlp", cpu=0.5) == asked("mlp", gpu=0.5) == asked("mlp", gpu="auto") == []
    assert asked({"grid": ["resnet18", "mlp"]}, by_model={"mlp": {"gpu": 0.1}}) == []
    assert noted(space={"model": "resnet18"}, resources={"fuse": False}) == []


def test_repeats_of_a_model_that_reads_no_seed() -> None:
    said = ["svm reads no seed: its 3 repeats give the same numbers"]
    assert noted(space={"model": {"grid": ["svm", "mlp"]}}, repeats=3) == said
    assert noted(space={"model": {"grid": ["svm", "mlp"]}}) == []
    assert noted(space={"model": "mlp"}, repeats=3) == []


CONDITIONAL = {"model": {"choice": ["mlp", "svm"]}, "lr": {"loguniform": [1e-3, 1e-1]}, "C": {"uniform": [1, 10]}}


@pytest.mark.parametrize("sampler", ["gp", "nsga2", "qmc"])
def test_samplers_that_draw_most_of_a_conditional_space_at_random(sampler: str) -> None:
    def asked(space: dict[str, Any], **more: Any) -> list[str]:
        return noted(space=space, search={"method": "optuna", "trials": 20, "sampler": sampler}, **more)

    has = "what the first config to end has" if sampler == "qmc" else "what every config has (model)"
    drawn = f"{sampler} chooses {has} and draws the rest at random; tpe chooses all"
    assert asked(CONDITIONAL) == [drawn]
    assert asked({"model": "mlp", "lr": CONDITIONAL["lr"]}) == []
    pruned = f"{sampler} learns from complete trials, tpe also from those that asha stops"
    said = asked({"model": "mlp", "lr": CONDITIONAL["lr"]}, scheduler={"name": "asha"})
    assert said == ([] if sampler == "qmc" else [pruned])
    assert noted(space=CONDITIONAL, search={"method": "optuna", "trials": 20}, scheduler={"name": "asha"}) == []


def test_an_objective_that_the_rest_does_not_go_by() -> None:
    sampled = {"model": "mlp", "lr": {"loguniform": [1e-3, 1e-1]}}
    search = {"method": "optuna", "trials": 20, "objectives": {"val_loss": "min"}}
    rest = "best.yaml, keep_models and confirm go by the validation accuracy"
    assert noted(space=sampled, search=search) == [
        f"search.objectives is for the sampler and the report's figures; {rest}"
    ]
    assert noted(space=sampled, search=search | {"method": "random"}, scheduler={"name": "asha"}) == [
        f"search.objectives is for the report's figures; asha, {rest}"
    ]
    both = {"objectives": {"val_accuracy": "max", "params": "min"}}
    assert noted(space=sampled, search=search | both) == []


def test_classes_that_a_part_has_no_image_of() -> None:
    def said(labels: list[int], classes: str) -> list[str]:
        """Of a training part of the first six images, a validation part of two, a test part of the last two."""
        images = torch.arange(10).to(torch.uint8).reshape(10, 1, 1, 1).expand(10, 1, 2, 2)
        config = DatasetConfig(name="x", split={"train": 6, "val": 2, "test": 2})
        order = torch.randperm(10, generator=torch.Generator().manual_seed(config.split_seed))
        by_part = torch.empty(10, dtype=torch.int64)
        by_part[order] = torch.tensor(labels)
        return notes_on(split(Dataset(images.contiguous(), by_part, tuple(classes), 2), config))

    assert said([0, 1, 0, 1, 0, 1, 0, 1, 1, 0], "ab") == []
    assert said([0, 0, 0, 0, 0, 0, 0, 1, 1, 1], "ab") == [
        "classes without an image: 1 of 2 in the training part (b), 1 of 2 in the test part (a)"
    ]
    assert said([0, 1, 2, 3, 4, 5, 0, 1, 6, 7], "abcdefgh") == [
        "classes without an image: 2 of 8 in the training part (g, h), "
        "6 of 8 in the validation part (c, d, e, f, g, …), 6 of 8 in the test part (a, b, c, d, e, …)"
    ]


@pytest.mark.parametrize(
    ("runs", "is_own", "available", "said"),
    [
        ([], True, {}, ""),
        (["a"], True, {}, "run a is running too, not on this Ray: where they share cores, "),
        ([], False, {"CPU": 4.0, "GPU": 1.0}, ""),
        (["a", "b/confirm"], False, {"CPU": 4.0, "GPU": 1.0}, "run a, b/confirm are running too: where that is on "),
        ([], False, {"CPU": 3.0, "GPU": 1.0}, "others have CPUs of this cluster: beside them trials take longer "),
        ([], False, {"CPU": 3.0}, "others have CPUs and GPUs of this cluster: "),
    ],
)
def test_what_works_beside_a_search(runs: list[str], is_own: bool, available: dict[str, float], said: str) -> None:
    found = note_beside(runs, is_own, {"CPU": 4.0, "GPU": 1.0, "memory": 1e9}, available)
    assert found.startswith(said)
    assert bool(found) == bool(said)
    assert ("`shared_with` counts this search's own trials alone" in found) == (bool(said) and not is_own)

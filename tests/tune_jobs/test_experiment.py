from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tune_jobs import yaml
from tune_jobs.errors import UsageError
from tune_jobs.experiment import check, check_name, load, named, override, shipped
from tune_jobs.experiment.checks import check_experiment, check_new
from tune_jobs.experiment.extension import extended
from tune_jobs.space import parse

DOCUMENT: dict[str, Any] = {
    "name": "x",
    "dataset": {"name": "digits"},
    "space": {"model": "mlp", "lr": {"grid": [0.1, 0.01]}},
    "train": {"epochs": 2},
}

FORMAT = """
name: fashion-resnet
dataset: {name: fashion_mnist, image_size: 28, split: [0.7, 0.1, 0.2]}
space:
  model: {grid: [resnet18, resnet50]}
  optimizer: {grid: [sgd, adam]}
  lr: {grid: [1e-3, 1e-4]}
  batch_size: {grid: [16, 32]}
train: {epochs: 5, amp: true, seed: 42}
search: {method: grid}
scheduler: {name: none}
resources: {cpu: 1, gpu: 0, by_model: {svm: {cpu: 1, gpu: 0}}}
budget: {minutes: null, trial_minutes: null}
retries: 2
"""


def test_load_whole_format(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(FORMAT)
    experiment = load(str(path))
    assert experiment.name == "fashion-resnet"
    assert len(parse(experiment.space, experiment.train, "grid").grid()) == 16


def test_load_of_what_is_no_file_says_so(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(UsageError, match=rf"^experiment {path}: {what}, and none of that name ships; there are d"):
            load(str(path))


@pytest.mark.parametrize("name", sorted(shipped()))
def test_load_shipped_is_named_as_its_file_and_says_what_it_is(name: str) -> None:
    experiment = load(name)
    assert experiment.name == name
    assert experiment.description
    assert check(experiment.document()) == experiment
    assert check(yaml.parse(yaml.dump(experiment.document()), "x")) == experiment


def test_shipped_published_grid() -> None:
    experiment = load("fashion-resnet-grid")
    points = parse(experiment.space, experiment.train, "grid").grid()
    cells = {(p["model"], p["batch_size"], p["optimizer"], p["lr"]) for p in points}
    assert cells == {
        (model, batch_size, optimizer, lr)
        for model in ("resnet18", "resnet50")
        for batch_size in (16, 32)
        for optimizer in ("sgd", "adam")
        for lr in (1e-3, 1e-4)
    }


@pytest.mark.parametrize(
    ("overrides", "space", "train"),
    [
        (["epochs=1"], {"model": "mlp", "lr": {"grid": [0.1, 0.01]}}, {"epochs": 1}),
        (["lr=1e-3"], {"model": "mlp", "lr": 0.001}, {"epochs": 2}),
        (["lr=1e-3,1e-4"], {"model": "mlp", "lr": {"grid": [0.001, 0.0001]}}, {"epochs": 2}),
        (["epochs=1,2"], {"model": "mlp", "lr": {"grid": [0.1, 0.01]}, "epochs": {"grid": [1, 2]}}, {}),
        (["seed=null"], {"model": "mlp", "lr": {"grid": [0.1, 0.01]}}, {"epochs": 2, "seed": None}),
        (["train.seed=1"], {"model": "mlp", "lr": {"grid": [0.1, 0.01]}}, {"epochs": 2, "seed": 1}),
        (["model=svm", "C=1,10"], {"model": "svm", "lr": {"grid": [0.1, 0.01]}, "C": {"grid": [1, 10]}}, {"epochs": 2}),
    ],
)
def test_override_training_fields(overrides: list[str], space: dict[str, Any], train: dict[str, Any]) -> None:
    changed = override(DOCUMENT, overrides)
    assert changed["space"] == space
    assert changed["train"] == train


def test_override_paths_and_keys_of_the_file() -> None:
    changed = override(
        DOCUMENT, ["dataset.limit=100", "dataset.split={train: 8, val: 1, test: 1}", "retries=0", "resources.cpu=2"]
    )
    assert changed["dataset"] == {"name": "digits", "limit": 100, "split": {"train": 8, "val": 1, "test": 1}}
    assert changed["retries"] == 0
    assert changed["resources"] == {"cpu": 2}


def test_override_leaves_its_input_alone() -> None:
    before = repr(DOCUMENT)
    override(DOCUMENT, ["lr=1", "dataset.limit=9", "epochs=1,2", "resources.by_model.svm.cpu=2"])
    assert repr(DOCUMENT) == before


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["lr"], "--set lr: write KEY=VALUE"),
        (["lr="], "--set lr=: write KEY=VALUE"),
        (["=1"], "--set =1: write KEY=VALUE"),
        (["dataset..limit=3"], "--set dataset..limit=3: write KEY.KEY=VALUE"),
        ([".=3"], "--set .=3: write KEY.KEY=VALUE"),
        (["lr=1", "lr=2"], "--set lr: is given twice; several values are written lr=a,b"),
        (["epoch=1"], "--set epoch: there is no such training field; the fields are model, epochs, batch_size"),
        (
            ["dataset.split=0.7,0.1,0.2"],
            "--set dataset.split: takes one value; only training fields, as lr=1e-3,1e-4, make a grid axis; a list is "
            "written [a, b]",
        ),
        (["name.x=1"], "--set name.x: name is not a section"),
        (["lr=[1"], "--set lr=[1: not YAML: "),
    ],
)
def test_override_wrong_is_refused_by_name(overrides: list[str], line: str) -> None:
    with pytest.raises(UsageError) as error:
        override(DOCUMENT, overrides)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"nam": "x"}, "nam: there is no such key; the keys are name, description, dataset, space, train, search, "),
        ({"name": "../x"}, "name: '../x': up to 100 letters, digits, '.', '_' and '-', the first a letter or digit"),
        ({"dataset": {"nam": 1}}, "dataset.name: is missing; dataset.nam: there is no such key; the keys are name, "),
        ({"dataset": "digits"}, "dataset: 'digits': must be a mapping of keys to values"),
        ({"dataset": None}, "dataset: must be a mapping of keys to values"),
        ({"space": [1]}, "space: [1]: must be a mapping of keys to values"),
        ({"dataset": {"name": "digits", "": 3}}, "dataset.'': there is no such key; the keys are name, path"),
        ({"loggers": "tensorboard"}, "loggers: 'tensorboard': must be a list: [tensorboard]"),
        ({"train": {1: 2}}, "train.1: 1: a key is a word"),
        ({"description": datetime.date(2020, 1, 1)}, "description: 2020-01-01: must be text, in quotes where it"),
        ({"retries": "many"}, "retries: 'many': must be a whole number"),
        ({"retries": 1.5}, "retries: 1.5: must be a whole number"),
        ({"budget": {"minutes": "x"}}, "budget.minutes: 'x': must be a number"),
        ({"search": {"method": "luck"}}, "search.method: 'luck': input should be 'grid', 'random' or 'optuna'"),
        ({"resources": {"gpu": 1.5}}, "resources.gpu: 1.5: auto, a fraction of one GPU"),
        ({"resources": {"fuse": "yes"}}, "resources.fuse: 'yes': true, false or auto"),
        ({"resources": {"fuse": 1}}, "resources.fuse: 1: true, false or auto"),
        ({"resources": {"cpu": True}}, "resources.cpu: true or false is no value for it; give "),
        ({"resources": {"cpu": 0}}, "resources.cpu: 0: input should be greater than or equal to 0.0001"),
        (
            {"resources": {"gpus": 1}},
            "resources.gpus: there is no such key; the keys are cpu, gpu, memory_mib, custom, by_model, fuse",
        ),
        (
            {"resources": {"by_model": {"svm": {"cpus": 1}}}},
            "resources.by_model.svm.cpus: there is no such key; the keys are cpu, gpu, memory_mib, custom",
        ),
        ({"resources": {"by_model": {"svn": {"cpu": 1}}}}, "resources.by_model: 'svn' is not a model; there are "),
        ({"retries": -1}, "retries: -1: input should be greater than or equal to 0"),
        ({1: 1}, "1: 1: a key is a word"),
        ({"resources": {"memory_mib": 1e-7}}, "resources.memory_mib: 1e-07: auto, or a number of MiB of at least 1"),
        ({"dataset": {"name": "digits", "split": [0.7, 0.1, 10**400]}}, "dataset.split: "),
        ({"search": {"method": "random", "trials": 10**9}}, "search.trials: 1000000000: input should be less than"),
        ({"scheduler": {"name": "asha", "reduction_factor": 1.000001}}, "scheduler.reduction_factor: 1.000001: "),
    ],
)
def test_check_wrong_document_is_refused_by_name(change: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        check(DOCUMENT | change)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_check_value_that_is_long_is_cut_where_it_is_named() -> None:
    aliased: Any = "x"
    for _ in range(30):  # as YAML's aliases make of a few lines
        aliased = [aliased] * 10
    for value in (10**400, "x" * 400, aliased):
        with pytest.raises(UsageError) as error:
            check(DOCUMENT | {"retries": value})
        assert len(str(error.value)) < 300


def test_check_section_left_empty_has_its_defaults() -> None:
    """As `search:` with nothing under it, or all of it in comments."""
    document = {"name": "x", "dataset": {"name": "digits"}}
    empty = dict.fromkeys(("space", "train", "search", "scheduler", "resources", "budget"))
    assert check(document | empty) == check(document)
    assert check(override(document | empty, ["lr=0.1,0.2", "epochs=3", "search.seed=1"])).train == {"epochs": 3}


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "a" * 101, "a b", "-x", "a\n"])
def test_check_name_refuses_what_is_no_plain_folder_name(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        check_name(name)


def test_check_name_keeps_a_plain_one() -> None:
    assert check_name("run-1.b_2") == "run-1.b_2"


@pytest.mark.parametrize(
    ("before", "after", "space", "train"),
    [
        ({"lr": {"grid": [0.1, 0.2]}}, {"lr": {"grid": [0.3, 0.2]}}, {"lr": {"grid": [0.1, 0.2, 0.3]}}, {}),
        ({"lr": {"grid": [0.1, 0.2]}}, {"lr": 0.3}, {"lr": {"grid": [0.1, 0.2, 0.3]}}, {}),
        ({"lr": 0.1}, {"lr": 0.1}, {"lr": 0.1}, {}),
        ({"lr": 0.1}, {"lr": {"grid": [0.2]}}, {"lr": {"grid": [0.1, 0.2]}}, {}),
        ({}, {"lr": {"grid": [0.1, 0.2]}}, {"lr": {"grid": [0.1, 0.2]}}, {}),
    ],
)
def test_extended_joins_the_values_of_each_axis_the_old_ones_first(
    before: dict[str, Any], after: dict[str, Any], space: dict[str, Any], train: dict[str, Any]
) -> None:
    document = {"name": "x", "dataset": {"name": "digits"}, "train": {"epochs": 3}}
    joined = extended(check(document | {"space": before}), check(document | {"space": after}))
    assert joined.space == space
    assert joined.train == {"epochs": 3} | train


def test_extended_keeps_conditions_and_turns_a_fixed_field_into_an_axis() -> None:
    document = {"name": "x", "dataset": {"name": "digits"}}
    axis = {"grid": [0.5], "when": {"optimizer": "sgd"}}
    before = check(document | {"space": {"momentum": axis | {"grid": [0.9]}}, "train": {"epochs": 3}})
    after = check(document | {"space": {"momentum": axis, "epochs": {"grid": [4]}}})
    joined = extended(before, after)
    assert joined.space == {"momentum": axis | {"grid": [0.9, 0.5]}, "epochs": {"grid": [3, 4]}}
    assert joined.train == {}


def test_extended_by_values_alone_keeps_the_condition_of_the_axis() -> None:
    document = {"name": "x", "dataset": {"name": "digits"}}
    when = {"when": {"optimizer": "sgd"}}
    before = check(document | {"space": {"lr": {"grid": [0.1]} | when}})
    joined = extended(before, check(document | {"space": {"lr": {"grid": [0.1, 0.01]}}}))
    assert joined.space == {"lr": {"grid": [0.1, 0.01]} | when}


def test_extended_sampled_search_is_refused() -> None:
    sampled = {"name": "x", "dataset": {"name": "digits"}, "search": {"method": "random", "trials": 3}}
    with pytest.raises(UsageError, match=r"extended by more trials: --set search\.trials=N"):
        extended(check(sampled), check(sampled))


@pytest.mark.parametrize(
    ("section", "key", "allowed"),
    [
        ("budget", "minutes", "a number above 0"),
        ("search", "max_concurrent", "a whole number from 1"),
        ("resources", "cpu", "a number from 0.0001 to 1,000,000"),
        ("resources", "gpu", "a number or auto"),
        ("dataset", "split_seed", f"a whole number from 0 below {2**63:,}"),
        ("scheduler", "grace_epochs", "a whole number from 1"),
        ("", "repeats", "a whole number from 1 to 1,000"),
        ("", "retries", "a whole number from 0 to 100"),
    ],
)
def test_true_and_false_are_no_numbers(section: str, key: str, allowed: str) -> None:
    document: dict[str, Any] = {"name": "x", "dataset": {"name": "digits"}}
    inner = document.setdefault(section, {}) if section else document
    inner[key] = True
    with pytest.raises(UsageError, match=re.escape(f"{key}: true or false is no value for it; give {allowed}") + "$"):
        check(document)


def test_a_training_field_of_true_says_what_it_takes() -> None:
    said = r"^train\.epochs: true or false is no value for it; give a whole number from 1 below 2,147,483,648$"
    with pytest.raises(UsageError, match=said):
        parse({}, {"model": "mlp", "epochs": True}, "grid")


def test_load_of_what_is_no_plain_file_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, what in (("pipe", "is no plain file"), (".", "is a directory"), ("none", "no such file")):
        with pytest.raises(UsageError, match=f": {what}, and none of that name ships"):
            load(str(tmp_path / path))


def test_nsga2_needs_a_population_of_two() -> None:
    search = {"method": "optuna", "trials": 4, "sampler": "nsga2", "startup_trials": 1}
    with pytest.raises(UsageError, match="startup_trials is nsga2's population: give 2 or more"):
        check({"name": "x", "dataset": {"name": "digits"}, "search": search})


@pytest.mark.parametrize("length", [10, 92, 100])
def test_named_keeps_a_name_that_is_one(length: int) -> None:
    """Of a confirmation and of --quick: written into an experiment that is read again."""
    name = named("n" * length, "-confirm")
    assert check_name(name).endswith("n-confirm")
    assert check(DOCUMENT | {"name": name}).name == name


def test_extended_of_a_sampled_run_says_what_it_is() -> None:
    document = {"name": "x", "dataset": {"name": "digits"}, "train": {"epochs": 3}, "space": {"lr": 0.1}}
    sampled = check(document | {"search": {"method": "random", "trials": 3}})
    with pytest.raises(UsageError, match=r"the run is of search\.method random, and this is grid"):
        extended(sampled, check(document))


SAMPLED = {"model": "mlp", "lr": {"loguniform": [1e-3, 0.1]}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"space": SAMPLED | {"momentum": {"uniform": [0.1, 0.9], "when": {"lr": 0.01}}}},
            "space.momentum.when: lr is a range of real numbers, which are never met exactly; make it a choice",
        ),
        (
            {"search": {"method": "optuna", "trials": 3, "sampler": "qmc", "warm_start": "earlier"}},
            "search.warm_start: is for tpe, gp and nsga2; qmc does not learn from results",
        ),
        (
            {"scheduler": {"name": "asha", "reduction_factor": 1.4}},
            "scheduler.reduction_factor: 1.4: give 1.5 or more; below, rungs share epochs",
        ),
    ],
)
def test_what_an_earlier_run_may_have_and_none_that_begins(changes: dict[str, Any], line: str) -> None:
    document = {"name": "x", "dataset": {"name": "digits"}, "space": SAMPLED, "train": {"optimizer": "sgd"}}
    document |= {"search": {"method": "optuna", "trials": 3}} | changes
    experiment = check(document)
    space = parse(experiment.space, experiment.train, experiment.search.method)
    check_experiment(experiment, space)
    with pytest.raises(UsageError) as raised:
        check_new(experiment, space)
    assert str(raised.value) == line

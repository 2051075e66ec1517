"""The experiments that do the published tables again can reach every cell of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from profiling import reports
from tune_jobs import space
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment, check, load, shipped
from tune_jobs.experiment.notes import notes

EXPERIMENTS = {name: load(name) for name in shipped()}
NAMING = {name: experiment for name, experiment in EXPERIMENTS.items() if experiment.published}


def grid(experiment: Experiment) -> list[space.Point]:
    return space.of(experiment).grid()


def test_every_published_table_has_an_experiment() -> None:
    named = [table for experiment in NAMING.values() for table in experiment.published]
    assert set(named) == set(reports.tables())
    assert {table for table in named if named.count(table) > 1} == {"D/seeds/mnist"}  # with a seed, and without


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith(("published", "fashion"))])
def test_published_experiment_parses_and_reads_all_it_says(name: str) -> None:
    experiment = EXPERIMENTS[name]
    parsed = space.of(experiment)
    said = re.search(r"(\d+) trials?\b", experiment.description)
    assert said is not None
    assert int(said[1]) == len(parsed.grid()) * experiment.repeats
    assert notes(experiment, parsed) == []


@pytest.mark.parametrize("table", reports.tables())
def test_published_cells_are_all_in_the_grid(table: str) -> None:
    experiments = [experiment for experiment in NAMING.values() if table in experiment.published]
    points = [(experiment, point) for experiment in experiments for point in grid(experiment)]
    for figure in (figure for figure in reports.read() if figure.name == table):
        assert any(holds(figure, experiment, point) for experiment, point in points), figure


def holds(figure: reports.Figure, experiment: Experiment, point: space.Point) -> bool:
    """Whether this trial is the cell's, or its beginning is."""
    stated: dict[str, Any] = {key: value for key, value in figure.config.items() if value is not None}
    if any(point.get(key) != value for key, value in stated.items()) or experiment.dataset.name != figure.dataset:
        return False
    if figure.image_size not in (None, experiment.dataset.image_size):
        return False
    longer = figure.epochs is not None and point["epochs"] > figure.epochs
    if longer and point["lr_schedule"] != "constant":
        return False
    if figure.epochs is not None and point["epochs"] < figure.epochs:
        return False
    return figure.train_images in (None, training_images(experiment))


def training_images(experiment: Experiment) -> int:
    """Of MNIST and FashionMNIST, which have 70,000."""
    split = experiment.dataset.split
    if isinstance(split, tuple):
        return round(70_000 * split[0])
    return 54_000 if isinstance(split, str) else split.train


def test_published_c_cells_of_both_epochs_are_sixteen_trials_a_set() -> None:
    for name in ("published-c-resnet-mnist", "published-c-resnet-fashion"):
        points = grid(EXPERIMENTS[name])
        assert len(points) == 16
        assert {point["epochs"] for point in points} == {5}
        assert {point["pin_memory"] for point in points} == {False, True}


def test_published_e_optimizers_are_four_ways_at_two_rates() -> None:
    points = grid(EXPERIMENTS["published-e-optimizers"])
    ways = {(point["optimizer"], point.get("momentum"), point.get("nesterov")) for point in points}
    assert ways == {("adam", None, None), ("sgd", 0, False), ("sgd", 0.9, False), ("sgd", 0.9, True)}
    assert len(points) == 8


def test_published_unknown_table_is_refused_with_those_there_are() -> None:
    document = EXPERIMENTS["digits-demo"].document() | {"published": ["F/x/mnist"]}
    with pytest.raises(UsageError, match=r"^published: \['F/x/mnist'\]: each is one of A/resnet_grid/mnist, "):
        check(document)

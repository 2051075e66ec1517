from __future__ import annotations

from typing import Any

import pytest

from models import TrainConfig
from tune_jobs.errors import UsageError
from tune_jobs.space import parse, unread


def expand(space: dict[str, Any], train: dict[str, Any]) -> list[dict[str, Any]]:
    return parse(space, train, "grid").grid()


def values(points: list[dict[str, Any]], *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(point.get(field) for field in fields) for point in points]


def test_expand_order_is_the_files_with_the_last_axis_fastest() -> None:
    space = {"model": "mlp", "optimizer": {"grid": ["sgd", "adam"]}, "lr": {"grid": [0.1, 0.01]}}
    assert values(expand(space, {}), "optimizer", "lr") == [
        ("sgd", 0.1), ("sgd", 0.01), ("adam", 0.1), ("adam", 0.01),
    ]  # fmt: skip


def test_expand_published_grid_has_sixteen_cells() -> None:
    space = {
        "model": {"grid": ["resnet18", "resnet50"]},
        "optimizer": {"grid": ["sgd", "adam"]},
        "lr": {"grid": [1e-3, 1e-4]},
        "batch_size": {"grid": [16, 32]},
    }
    points = expand(space, {"epochs": 5})
    assert len({tuple(point.items()) for point in points}) == len(points) == 16
    assert {point["epochs"] for point in points} == {5}


def test_expand_axes_a_model_does_not_have_do_not_multiply_it() -> None:
    space = {
        "model": {"grid": ["svm", "resnet18"]},
        "kernel": {"grid": ["rbf", "poly"]},
        "degree": {"grid": [2, 3]},
        "lr": {"grid": [0.1, 0.01]},
        "momentum": {"grid": [0.0, 0.9]},
        "optimizer": {"grid": ["sgd", "adam"]},
    }
    points = expand(space, {})
    assert sorted(values(points, "model", "kernel", "degree", "optimizer", "lr", "momentum"), key=repr) == sorted(
        [
            ("svm", "rbf", None, None, None, None),
            ("svm", "poly", 2, None, None, None),
            ("svm", "poly", 3, None, None, None),
            ("resnet18", None, None, "sgd", 0.1, 0.0),
            ("resnet18", None, None, "sgd", 0.1, 0.9),
            ("resnet18", None, None, "sgd", 0.01, 0.0),
            ("resnet18", None, None, "sgd", 0.01, 0.9),
            ("resnet18", None, None, "adam", 0.1, None),
            ("resnet18", None, None, "adam", 0.01, None),
        ],
        key=repr,
    )


def test_expand_point_holds_defaults_and_makes_a_config() -> None:
    (point,) = expand({"model": "mlp"}, {"lr": "1e-3"})
    assert point["lr"] == 0.001
    assert point["hidden_units"] == 100
    assert "kernel" not in point
    assert "momentum" not in point  # of sgd alone
    assert TrainConfig(**point) == TrainConfig(model="mlp", lr=0.001)


@pytest.mark.parametrize(
    ("space", "train", "line"),
    [
        ({"model": "mlp", "lr": {"grid": []}}, {}, "space.lr: needs at least one value"),
        ({"model": "mlp", "lr": {"grid": [1e-3, "0.001"]}}, {}, "space.lr: 0.001 stands in it twice"),
        ({"model": "mlp", "lr": {"grid": 1}}, {}, "space.lr: {'grid': 1}: give a plain value, or grid or choice"),
        ({"model": "mlp", "lr": {"gird": [1]}}, {}, "space.lr: {'gird': [1]}: give a plain value, or grid or choice"),
        ({"model": "mlp", "lr": [1, 2]}, {}, "space.lr: [1, 2]: several values are written {grid: [a, b, ...]}"),
        ({"model": "mlp", "lr": {"grid": [0.1, -1]}}, {}, "space.lr: -1: input should be greater than 0"),
        ({"model": "mlp", "rate": 1}, {}, "space.rate: there is no such field; the fields are model, epochs, "),
        ({"model": "mlp"}, {"rate": 1}, "train.rate: there is no such field; the fields are model, epochs, "),
        ({"model": "mlp", "lr": 0.1}, {"lr": 0.2}, "lr stands in both space and train"),
        ({"lr": 0.1}, {}, "model: is missing from space and train; there are resnet18, "),
        ({"model": "resnet19"}, {}, "space.model: 'resnet19' is not a model; there are resnet18, "),
        (
            {"model": "resnet18", "kernel": {"grid": ["rbf", "poly"]}},
            {},
            "space.kernel: is read by none of the trials asked for (models: resnet18)",
        ),
        (
            {"model": "mlp", "nesterov": {"grid": [True, False]}},
            {"optimizer": "sgd", "momentum": 0},
            "nesterov needs a momentum above 0",
        ),
    ],
)
def test_expand_wrong_space_is_refused_by_name(space: dict[str, Any], train: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        expand(space, train)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_expand_true_and_one_are_two_values() -> None:
    points = expand({"model": "mlp", "amp": {"grid": [True, False]}}, {})
    assert values(points, "amp") == [(True,), (False,)]


def test_unread_names_fixed_values_that_nothing_reads() -> None:
    space, train = {"model": "svm"}, {"lr": 0.1, "C": 2}
    assert unread(parse(space, train, "grid")) == ["lr"]

from __future__ import annotations

import math
import pickle
from typing import Any

import optuna
import pytest

from models import TrainConfig
from tune_jobs.errors import UsageError
from tune_jobs.space import parse
from tune_jobs.space.axis import key


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
        ({"model": "mlp", "amp": "maybe"}, {}, "space.amp: 'maybe': must be true or false"),
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


def test_expand_a_grid_of_too_many_points_is_counted_and_refused_before_any_is_made() -> None:
    hundred = {"grid": [round(0.001 * (1 + n), 3) for n in range(100)]}
    space: dict[str, Any] = dict.fromkeys(("lr", "weight_decay", "C", "gamma", "momentum"), hundred)
    space |= {"model": {"grid": ["mlp", "svm"]}, "optimizer": "sgd"}
    with pytest.raises(UsageError) as error:
        expand(space, {"seed": None})
    assert str(error.value) == (
        "space: a grid of 1,010,000 points, and at most 1,000,000 are run: give fewer values, or draw from them by "
        "search.method: random or optuna"
    )
    sampled = {name: {"choice": axis["grid"]} if isinstance(axis, dict) else axis for name, axis in space.items()}
    assert parse(sampled, {}, "random").size() == 1_010_000
    del space["momentum"], sampled
    assert len(expand(space, {"seed": None})) == 100**2 + 100**2


def test_expand_true_and_one_are_two_values() -> None:
    points = expand({"model": "mlp", "amp": {"grid": [True, False]}}, {})
    assert values(points, "amp") == [(True,), (False,)]


CONDITIONAL = {
    "model": {"choice": ["resnet18", "baseline", "mlp", "svm"]},
    "optimizer": {"choice": ["sgd", "adam"]},
    "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}},
    "nesterov": {"choice": [True, False], "when": {"optimizer": "sgd", "model": ["baseline", "mlp"]}},
    "lr": {"loguniform": [1e-4, 1e-1]},
    "hidden_layers": {"int": [1, 3]},
    "hidden_units": {"logint": [8, 256], "when": {"hidden_layers": [2, 3]}},
    "C": {"loguniform": [0.1, 100]},
    "kernel": {"choice": ["rbf", "poly"]},
    "degree": {"int": [2, 4]},
}


def sampled(space: dict[str, Any], train: dict[str, Any], number: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    checked = parse(space, train, "optuna")
    found = []
    for _ in range(number):
        trial = study.ask()
        found.append((checked.suggest(trial), trial.params))
    return found


def test_suggest_asks_for_what_the_conditions_allow_and_no_more() -> None:
    for point, asked in sampled(CONDITIONAL, {"epochs": 2}, 200):
        network = point["model"] != "svm"
        sgd = network and point["optimizer"] == "sgd"
        several = point["model"] == "mlp" and point["hidden_layers"] > 1
        expected = {"model"}
        expected |= {"optimizer", "lr"} if network else {"C", "kernel"}
        expected |= {"momentum"} if sgd else set()
        expected |= {"nesterov"} if sgd and point["model"] in ("baseline", "mlp") else set()
        expected |= {"hidden_layers"} if point["model"] == "mlp" else set()
        expected |= {"hidden_units"} if several else set()
        expected |= {"degree"} if point.get("kernel") == "poly" else set()
        assert set(asked) == expected
        assert asked.items() <= point.items()
        assert TrainConfig(**point).model_dump().items() >= point.items()


def test_suggest_reaches_every_branch_and_stays_in_range() -> None:
    points = [point for point, _ in sampled(CONDITIONAL, {}, 300)]
    assert {point["model"] for point in points} == {"resnet18", "baseline", "mlp", "svm"}
    assert {point.get("degree") for point in points} == {None, 2, 3, 4}
    units = [point["hidden_units"] for point in points if point.get("hidden_layers", 1) > 1]
    assert min(units) >= 8
    assert max(units) <= 256
    assert sum(unit < 45 for unit in units) > len(units) / 4  # on a log scale


def test_suggest_survives_pickling() -> None:
    checked = parse(CONDITIONAL, {}, "optuna")
    assert pickle.loads(pickle.dumps(checked)) == checked


@pytest.mark.parametrize(
    ("space", "train", "size"),
    [
        ({"lr": {"choice": [0.1, 0.01]}, "batch_size": {"int": [16, 20]}}, {"model": "mlp"}, 10),
        ({"lr": {"choice": [0.1, 0.01]}, "seed": {"choice": [1, 2, 3]}}, {"model": "mlp"}, 6),
        ({"lr": {"choice": [0.1, 0.01]}, "seed": {"choice": [1, None]}}, {"model": "mlp"}, math.inf),
        ({"lr": {"choice": [0.1, 0.01]}}, {"model": "mlp", "seed": None}, math.inf),
        ({"lr": {"choice": [0.1, 0.01]}, "seed": {"int": [0, 2**63 - 1]}}, {"model": "mlp"}, 2.0**64),
        ({"C": {"choice": [1, 10]}}, {"model": "svm", "seed": None}, 2),  # an svm reads none
        ({"C": {"int": [1, 3]}, "kernel": {"choice": ["rbf", "poly"], "when": {"C": 2}}}, {"model": "svm"}, 4),
        (
            {"epochs": {"int": [1, 10**9]}, "lr": {"choice": [0.1, 0.01], "when": {"epochs": [2, 3]}}},
            {"model": "mlp"},
            10**9 + 2,
        ),
        (CONDITIONAL, {}, math.inf),
        (
            CONDITIONAL
            | {name: {"choice": [0.1, 0.2]} for name in ("lr", "C")}
            | {"momentum": {"choice": [0.5, 0.9, 0.99], "when": {"optimizer": "sgd"}}},
            {},
            (3 + 1) * 2  # resnet18: sgd with 3 momenta, adam; each with 2 rates
            + (3 * 2 + 1) * 2  # baseline: sgd with nesterov or not
            + (3 * 2 + 1) * 2 * (1 + 2 * 249)  # mlp: one layer, or two or three of 8 to 256 units
            + 2 * (1 + 3),  # svm: rbf, or poly of three degrees
        ),
    ],
)
def test_size_is_the_number_of_distinct_points(space: dict[str, Any], train: dict[str, Any], size: float) -> None:
    checked = parse(space, train, "random")
    assert checked.size() == size
    if size < 10_000:
        points = {key(point) for point in checked.every()}
        assert len(points) == size
        assert {key(point) for point, _ in sampled(space, train, 100)} <= points


def test_expand_grid_obeys_conditions() -> None:
    space = {
        "model": "mlp",
        "optimizer": {"grid": ["sgd", "adam"]},
        "lr": {"grid": [0.1, 0.01], "when": {"optimizer": "adam"}},
    }
    assert values(expand(space, {}), "optimizer", "lr") == [("sgd", 0.001), ("adam", 0.1), ("adam", 0.01)]


def test_expand_many_axes_of_several_models_are_not_multiplied_out() -> None:
    numbers = list(range(1, 9))
    space: dict[str, Any] = {"model": {"grid": ["svm", "mlp"]}}
    space |= {field: {"grid": numbers} for field in ("C", "degree", "max_iter", "gamma")}
    space |= {field: {"grid": numbers} for field in ("hidden_layers", "hidden_units", "batch_size")}
    assert len(expand(space, {"kernel": "poly"})) == 8**4 + 8**3  # of 2 × 8⁷ combinations


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"lr": {"choice": []}}, "space.lr: needs at least one value"),
        ({"batch_size": {"int": [1, 10**400]}}, "space.batch_size: the ends of int are below 1e300"),
        ({"lr": {"loguniform": [1, 10**400]}}, "space.lr: the ends of loguniform are below 1e300"),
        ({"lr": {"uniform": [0.2, 0.1]}}, "space.lr: [0.2, 0.1]: the low end must be below the high one"),
        ({"lr": {"uniform": [0.1]}}, "space.lr: [0.1]: uniform takes two numbers, [low, high]"),
        ({"lr": {"uniform": ["a", 1]}}, "space.lr: ['a', 1]: uniform takes two numbers, [low, high]"),
        ({"lr": {"loguniform": [0, 1]}}, "space.lr: [0, 1]: a log scale starts above zero"),
        ({"lr": {"uniform": [-1, 1]}}, "space.lr: "),
        (
            {"batch_size": {"uniform": [8, 64]}},
            "space.batch_size: [8, 64]: batch_size takes whole numbers; write {int: [low, high]}",
        ),
        (
            {"seed": {"loguniform": [1, 64]}},
            "space.seed: [1, 64]: seed takes whole numbers; write {logint: [low, high]}",
        ),
        ({"batch_size": {"int": [8.5, 64]}}, "space.batch_size: [8.5, 64]: the ends of int are whole numbers"),
        ({"optimizer": {"int": [1, 2]}}, "space.optimizer: 1: input should be 'sgd', 'adam' or 'adamw'"),
        ({"lr": {"uniform": [0.1, 1], "choice": [1]}}, "space.lr: "),
        ({"lr": {"grid": [0.1, 0.2]}}, "space.lr: method optuna does not take a grid; write {choice: [...]}"),
        (
            {"momentum": {"uniform": [0, 0.9], "when": {"kernel": "rbf"}}},
            "space.momentum.when: kernel stands neither",
        ),
        (
            {"momentum": {"uniform": [0, 0.9], "when": {"speed": 1}}},
            "space.momentum.when.speed: there is no such",
        ),
        ({"momentum": {"uniform": [0, 0.9], "when": "sgd"}}, "space.momentum.when: 'sgd': write {field: value}"),
        ({"momentum": {"uniform": [0, 0.9], "when": {"lr": []}}}, "space.momentum.when.lr: needs at least one value"),
        ({"momentum": {"uniform": [0, 0.9], "when": {"late": 1}}}, "space.momentum.when.late: there is no such field"),
        (
            {"momentum": {"uniform": [0, 0.9], "when": {"epochs": 1}}, "epochs": {"choice": [1, 2]}},
            "space.momentum.when: epochs stands later in the space; put it first",
        ),
        (
            {
                "weight_decay": {"uniform": [0, 1], "when": {"epochs": 1}},
                "epochs": {"choice": [1, 2], "when": {"weight_decay": 0.5}},
            },
            "space.weight_decay.when: weight_decay and epochs wait for each other",
        ),
        ({"momentum": {"uniform": [0, 0.9], "when": {"momentum": 0.5}}}, "space.momentum.when: waits for itself"),
        ({"C": {"uniform": [1, 2]}}, "space.C: is read by none of the trials asked for (models: mlp)"),
        ({"lr": 0.1}, "search.method: optuna samples, but no field of the space is a choice or a range"),
    ],
)
def test_parse_wrong_sampled_space_is_refused_by_name(change: dict[str, Any], line: str) -> None:
    fixed = {} if "optimizer" in change else {"optimizer": "sgd"}
    with pytest.raises(UsageError) as error:
        parse({"model": "mlp", "lr": {"loguniform": [1e-4, 0.1]}} | change, fixed, "optuna")
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_parse_sampled_axis_in_a_grid_is_refused() -> None:
    with pytest.raises(UsageError, match=r"space\.lr: method grid does not take a uniform"):
        parse({"model": "mlp", "lr": {"uniform": [0.1, 1]}}, {}, "grid")


def test_contains_the_points_of_the_space_and_no_others() -> None:
    declared = {
        "model": {"choice": ["mlp", "svm"]},
        "lr": {"loguniform": [1e-3, 1e-1]},
        "momentum": {"uniform": [0.5, 0.9], "when": {"optimizer": "sgd"}},
        "C": {"choice": [1, 10]},
    }
    fixed = {"optimizer": "sgd", "epochs": 3, "seed": 1}
    space = parse(declared, fixed, "optuna")
    points = [point for point, _ in sampled(declared, fixed, 20)]
    assert {point["model"] for point in points} == {"mlp", "svm"}
    for point in points:
        assert space.contains(point)
        assert space.contains(point | ({"seed": 7} if "seed" in point else {}))
        if point["model"] == "svm":
            assert not space.contains(point | {"C": 5.0})
            continue
        assert not space.contains(point | {"epochs": 4})
        assert not space.contains(point | {"lr": 0.5})
        assert not space.contains(point | {"optimizer": "adam"})
        assert not space.contains({field: value for field, value in point.items() if field != "momentum"})


def test_most_epochs_is_that_of_any_trial() -> None:
    def most(space: dict[str, Any], **train: Any) -> int:
        return parse(space, train, "grid").most_epochs()

    assert most({"model": "mlp"}) == TrainConfig.model_fields["epochs"].default == 5
    assert most({"model": {"grid": ["svm", "mlp"]}}, epochs=3) == 3
    assert most({"model": {"grid": ["svm", "mlp"]}, "epochs": {"grid": [7, 2]}}) == 7
    assert most({"model": "svm"}) == 1
    assert most({"model": {"grid": ["resnet18", "mlp"]}, "epochs": {"grid": [1, 2], "when": {"model": "mlp"}}}) == 5
    sampled = {"model": {"choice": ["mlp", "svm"]}, "epochs": {"int": [2, 12]}}
    assert parse(sampled, {}, "random").most_epochs() == 12


def test_range_with_a_value_within_that_is_none_is_refused_before_it_is_drawn() -> None:
    """Of max_iter -1 is no limit, and 0 is nothing."""
    with pytest.raises(UsageError, match=r"^space\.max_iter: 0: max_iter is -1 \(no limit\) or at least 1"):
        parse({"model": "svm", "max_iter": {"int": [-1, 3]}}, {}, "random")


def test_contains_a_seed_of_another_search_and_no_fraction_of_a_whole_range() -> None:
    space = parse({"model": "svm", "C": {"int": [1, 100]}}, {}, "optuna")
    point = space.suggest(optuna.trial.FixedTrial({"C": 3}))
    assert space.contains(point)
    assert not space.contains(point | {"C": 3.7})
    space = parse({"model": "mlp", "seed": 1, "lr": {"uniform": [0.01, 0.1]}}, {}, "optuna")
    point = space.suggest(optuna.trial.FixedTrial({"lr": 0.05}))
    assert point["seed"] == 1
    assert space.contains(point | {"seed": 7})

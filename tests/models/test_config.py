"""A wrong value is refused by the name of its field; a config cannot change and survives JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from models import ModelError, TrainConfig
from models.config import CONDITIONS, NETWORK_FIELDS

INF, NAN = float("inf"), float("nan")

WRONG: list[tuple[str, object]] = [
    ("model", None), ("model", 3), ("model", ["mlp"]),
    ("epochs", 0), ("epochs", -1), ("epochs", 1.5), ("epochs", "many"), ("epochs", None), ("epochs", NAN),
    ("batch_size", 0), ("batch_size", -32), ("batch_size", 0.5), ("batch_size", None),
    ("optimizer", "rmsprop"), ("optimizer", "SGD"), ("optimizer", ""), ("optimizer", None),
    ("lr", 0), ("lr", -1e-3), ("lr", INF), ("lr", NAN), ("lr", "fast"), ("lr", None), ("lr", [0.1]),
    ("momentum", -0.1), ("momentum", 1), ("momentum", 1.5), ("momentum", NAN), ("momentum", None),
    ("nesterov", "maybe"), ("nesterov", 2), ("nesterov", None),
    ("weight_decay", -1e-9), ("weight_decay", INF), ("weight_decay", NAN), ("weight_decay", None),
    ("lr_schedule", "step"), ("lr_schedule", None),
    ("loss", "hinge"), ("loss", None),
    ("augment", "flip"), ("augment", None), ("augment", True),
    ("seed", -1), ("seed", 2**63), ("seed", 1.5), ("seed", "x"),
    ("deterministic", "maybe"), ("deterministic", None),
    ("amp", "bf16"), ("amp", None), ("amp", 2),
    ("amp_dtype", "fp32"), ("amp_dtype", "bfloat16"), ("amp_dtype", None),
    ("input", "disk"), ("input", None),
    ("pin_memory", "maybe"), ("pin_memory", None),
    ("hidden_layers", 0), ("hidden_layers", 101), ("hidden_layers", 1.5), ("hidden_layers", None),
    ("hidden_units", 0), ("hidden_units", -5), ("hidden_units", None),
    ("activation", "gelu"), ("activation", None),
    ("kernel", "sigmoid"), ("kernel", "precomputed"), ("kernel", None),
    ("C", 0), ("C", -1), ("C", INF), ("C", NAN), ("C", None),
    ("gamma", 0), ("gamma", -0.5), ("gamma", INF), ("gamma", NAN), ("gamma", "huge"), ("gamma", None),
    ("gamma", True), ("gamma", [0.1]), ("gamma", 10**400),
    ("degree", 0), ("degree", -1), ("degree", 2.5), ("degree", None),
    ("max_iter", 0), ("max_iter", -2), ("max_iter", 1.5), ("max_iter", None),
]  # fmt: skip
NUMBERS = [
    "epochs", "batch_size", "lr", "momentum", "weight_decay", "seed", "hidden_layers", "hidden_units", "C", "gamma",
    "degree", "max_iter",
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), WRONG, ids=lambda value: value if isinstance(value, str) else repr(value)[:12]
)
def test_config_refuses_a_wrong_value_by_the_fields_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainConfig(**{"model": "mlp"} | {field: value})
    # gamma is a union: pydantic may go on to say which member refused it
    assert {error["loc"][0] for error in caught.value.errors()} == {field}
    assert field in str(caught.value)


def test_config_table_of_wrong_values_covers_every_field() -> None:
    assert {field for field, _ in WRONG} == set(TrainConfig.model_fields)


@pytest.mark.parametrize("field", NUMBERS)
def test_config_refuses_a_truth_value_for_a_number(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainConfig(**{"model": "mlp"} | {field: field != "momentum"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 1), ("batch_size", 1), ("lr", 1e-300), ("lr", 1e10), ("momentum", 0), ("momentum", 0.999),
        ("weight_decay", 0), ("seed", None), ("seed", 0), ("seed", 2**63 - 1), ("hidden_layers", 1),
        ("hidden_layers", 100), ("hidden_units", 1), ("gamma", "scale"), ("gamma", "auto"), ("gamma", 1e-9),
        ("gamma", 2), ("degree", 1), ("max_iter", -1), ("max_iter", 1),
    ],
)  # fmt: skip
def test_config_takes_the_edges_of_what_is_allowed(field: str, value: object) -> None:
    config = TrainConfig(**{"model": "svm"} | {field: value})
    assert getattr(config, field) == value


def test_config_gamma_given_as_a_whole_number_is_a_float() -> None:
    gamma = TrainConfig(model="svm", gamma=2).gamma
    assert (gamma, type(gamma)) == (2.0, float)


def test_config_needs_a_model() -> None:
    with pytest.raises(ValidationError) as caught:
        TrainConfig()  # type: ignore[call-arg]
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [(("model",), "missing")]


@pytest.mark.parametrize("field", ["learning_rate", "Lr", "c", "epoch", "threads"])
def test_config_refuses_a_field_it_does_not_have(field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainConfig(**{"model": "mlp", field: 1})
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [((field,), "extra_forbidden")]


def test_config_names_every_wrong_field_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        TrainConfig(model="mlp", lr=-1, epochs=0, loss="hinge")
    assert {error["loc"] for error in caught.value.errors()} == {("lr",), ("epochs",), ("loss",)}


def test_config_nesterov_needs_a_momentum() -> None:
    with pytest.raises(ValidationError, match="nesterov needs a momentum above 0"):
        TrainConfig(model="mlp", optimizer="sgd", nesterov=True, momentum=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "sgd", "nesterov": True, "momentum": 0.1},
        {"optimizer": "sgd", "nesterov": False, "momentum": 0},
        {"optimizer": "adam", "nesterov": True, "momentum": 0},
    ],
)
def test_config_takes_nesterov_and_momentum_where_they_agree_or_are_not_read(fields: dict[str, Any]) -> None:
    config = TrainConfig(model="mlp", **fields)
    assert {name: getattr(config, name) for name in fields} == fields


@pytest.mark.parametrize("field", list(TrainConfig.model_fields))
def test_config_is_frozen(field: str) -> None:
    config = TrainConfig(model="mlp")
    before = config.model_dump()
    with pytest.raises(ValidationError) as caught:
        setattr(config, field, before[field])
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [((field,), "frozen_instance")]
    assert config.model_dump() == before


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(model="mlp"),
        TrainConfig(model="svm", gamma=0.1 + 0.2, C=1e-300, kernel="poly"),
        TrainConfig(model="svm", gamma="auto"),
        TrainConfig(model="resnet18", seed=None, lr=1 / 3, weight_decay=5e-324),
        TrainConfig(model="baseline", seed=2**63 - 1, optimizer="sgd", nesterov=True),
    ],
    ids=lambda config: config.model,
)
def test_config_survives_json_and_dict_exactly(config: TrainConfig) -> None:
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    assert TrainConfig(**config.model_dump()) == config


def test_config_equal_ones_hash_alike() -> None:
    assert len({TrainConfig(model="mlp"), TrainConfig(model="mlp", lr=1e-3), TrainConfig(model="mlp", lr=1e-4)}) == 2


def test_conditions_name_fields_and_values_that_exist() -> None:
    fields = TrainConfig.model_fields
    assert set(NETWORK_FIELDS) <= set(fields)
    assert len(set(NETWORK_FIELDS)) == len(NETWORK_FIELDS)
    for field, (other, allowed) in CONDITIONS.items():
        assert {field, other} <= set(fields)
        assert allowed
        for value in allowed:
            assert getattr(TrainConfig(**{"model": "svm"} | {other: value}), other) == value


def test_model_error_is_a_value_error() -> None:
    make: Callable[[str], ModelError] = ModelError
    assert isinstance(make("one line"), ValueError)

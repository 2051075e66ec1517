"""Which models there are, and which fields of TrainConfig each reads.

Without PyTorch, which takes more than a second to import: an experiment's space is checked by this alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.config import CONDITIONS, NETWORK_FIELDS, ModelError, TrainConfig

OWN_FIELDS: dict[str, tuple[str, ...]] = {
    "resnet18": (),
    "resnet50": (),
    "simple_cnn": (),
    "baseline": (),
    "stabilized": (),
    "high_vision": (),
    "modernist": (),
    "mlp": ("hidden_layers", "hidden_units", "activation"),
    "svm": ("kernel", "C", "gamma", "degree", "max_iter"),
}
"""Model -> the fields that its builder in `models.registry.MODELS` takes."""

_NOT_NETWORKS = ("svm",)

STACKED = ("simple_cnn", "baseline", "high_vision", "modernist", "mlp")
"""The small networks whose layers draw nothing and keep no statistics: what `models.stacked` trains as one.

Dropout would give a training other numbers in other company.
"""


def names() -> list[str]:
    """The names of all models."""
    return list(OWN_FIELDS)


def own_fields(name: str) -> tuple[str, ...]:
    """The fields that the model's builder takes.  Raises ModelError for an unknown name."""
    if name not in OWN_FIELDS:
        raise ModelError(f"model: {name!r} is not a model; there are {', '.join(OWN_FIELDS)}")
    return OWN_FIELDS[name]


def is_network(name: str) -> bool:
    """Whether the model is trained by gradient descent, and so reads the fields of a network's training.

    Raises ModelError for an unknown name.
    """
    own_fields(name)
    return name not in _NOT_NETWORKS


def can_be_stacked(config: TrainConfig) -> bool:
    """Whether it may be trained as one with others of its shape, as far as that can be told without a device."""
    return config.model in STACKED and not config.deterministic and config.input == "resident"


def fields_read(values: Mapping[str, Any]) -> frozenset[str]:
    """The fields of TrainConfig that a run with these values reads; `values` holds at least `model`.

    A field that it does not read changes nothing in its result.
    """

    def holds(field: str) -> bool:
        if field not in CONDITIONS:
            return True
        other, allowed = CONDITIONS[field]
        value = values.get(other, TrainConfig.model_fields[other].default)
        if isinstance(value, str) and isinstance(allowed[0], bool):  # as a person writes it in a file
            value = getattr(TrainConfig(model="", **{other: value}), other)
        return value in allowed

    return frozenset(field for field in fields_possible(values["model"]) if holds(field))


def fields_possible(name: str) -> frozenset[str]:
    """The fields that a run of this model reads under some values of the others."""
    return frozenset(("model", *own_fields(name), *(NETWORK_FIELDS if is_network(name) else ())))


def building_fields() -> frozenset[str]:
    """The fields that some model's builder takes."""
    return frozenset(field for own in OWN_FIELDS.values() for field in own)


def shape_key(config: TrainConfig) -> tuple[object, ...]:
    """Equal for configs of which `models.check` says the same."""
    own = (getattr(config, field) for field in own_fields(config.model))
    return config.model, min(config.batch_size, 2), *own

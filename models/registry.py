"""What is trained: one dict from a name to the function that builds it.

A builder takes `(channels, classes, image_size)`, and as keyword-only arguments the fields of `TrainConfig` that it
reads.  A network (`torch.nn.Module`) gives float logits N×classes for float images N×channels×image_size×image_size.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from models.cnn import baseline, high_vision, modernist, simple_cnn, stabilized
from models.config import CONDITIONS, NETWORK_FIELDS, ModelError, TrainConfig
from models.mlp import mlp
from models.resnet import resnet18, resnet50
from models.svm import svm
from models.valueless import without_values

if TYPE_CHECKING:
    from sklearn.svm import SVC

Model: TypeAlias = "nn.Module | SVC"

MODELS: dict[str, Callable[..., Model]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "simple_cnn": simple_cnn,
    "baseline": baseline,
    "stabilized": stabilized,
    "high_vision": high_vision,
    "modernist": modernist,
    "mlp": mlp,
    "svm": svm,
}


def names() -> list[str]:
    """The names of all registered models."""
    return list(MODELS)


def is_network(name: str) -> bool:
    """Whether the model is trained by gradient descent, and so reads the fields of a network's training."""
    return _builder(name) is not svm


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
    return frozenset(("model", *_own_fields(name), *(NETWORK_FIELDS if is_network(name) else ())))


CHECKED_FOR_REAL = 30_000_000
"""Weights and pixels.  On the meta device a forward pass first imports PyTorch's compiler, for a second and a half."""


def build(config: TrainConfig, channels: int, classes: int, image_size: int) -> Model:
    """The model with fresh weights from torch's global generator.  Raises ModelError for an unknown name."""
    own = {field: getattr(config, field) for field in _own_fields(config.model)}
    return _builder(config.model)(channels, classes, image_size, **own)


def parameters(config: TrainConfig, channels: int, classes: int, image_size: int) -> int:
    """How many a network has.  Allocates none; raises what building it raises."""
    with without_values("meta"):
        network = build(config, channels, classes, image_size)
        assert isinstance(network, nn.Module)
        return sum(parameter.numel() for parameter in network.parameters())


def check(config: TrainConfig, channels: int, classes: int, image_size: int, images: int = 2) -> None:
    """Raise ModelError where this model cannot train on so many such images or in such batches.

    One training step's forward pass is run: for real on weights of zero, or for what is larger than CHECKED_FOR_REAL
    on shapes alone (PyTorch's meta device).
    """
    if not is_network(config.model):
        return
    n_asked = min(config.batch_size, 2)
    n = min(n_asked, images)
    try:
        asked = parameters(config, channels, classes, image_size) + n * channels * image_size**2
        with without_values("cpu" if asked <= CHECKED_FOR_REAL else "meta"), torch.no_grad():
            network = build(config, channels, classes, image_size)
            network(torch.zeros(n, channels, image_size, image_size))
    except (RuntimeError, ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        cause = " ".join(str(error).split()).rstrip(".")
        how = f"in batches of {config.batch_size}" if images >= n_asked else f"with {images} to train on"
        raise ModelError(
            f"{config.model} cannot train on {channels}×{image_size}×{image_size} images {how} ({cause})"
        ) from error


def building_fields() -> frozenset[str]:
    """The fields that some model's builder reads."""
    return frozenset(field for name in MODELS for field in _own_fields(name))


def shape_key(config: TrainConfig) -> tuple[object, ...]:
    """Equal for configs of which `check` says the same."""
    own = (getattr(config, field) for field in _own_fields(config.model))
    return config.model, min(config.batch_size, 2), *own


def _builder(name: str) -> Callable[..., Model]:
    if name not in MODELS:
        raise ModelError(f"model: {name!r} is not a model; there are {', '.join(MODELS)}")
    return MODELS[name]


def _own_fields(name: str) -> tuple[str, ...]:
    return _keywords(_builder(name))


@functools.cache
def _keywords(builder: Callable[..., Model]) -> tuple[str, ...]:
    parameters = inspect.signature(builder).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

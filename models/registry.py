"""What is trained: one dict from a name to the function that builds it.

A builder takes `(channels, classes, image_size)`, and as keyword-only arguments the fields of `TrainConfig` that
`models.fields.OWN_FIELDS` lists for it.  A network (`torch.nn.Module`) gives float logits N×classes for float images
N×channels×image_size×image_size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from datasets.reasons import in_a_line
from models.cnn import baseline, high_vision, modernist, simple_cnn, stabilized
from models.config import ModelError, TrainConfig
from models.fields import is_network, own_fields
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


CHECKED_FOR_REAL = 30_000_000
"""Weights and pixels.  On the meta device a forward pass first imports PyTorch's compiler, for a second and a half."""


def build(config: TrainConfig, channels: int, classes: int, image_size: int) -> Model:
    """The model with fresh weights from torch's global generator.  Raises ModelError for an unknown name."""
    own = {field: getattr(config, field) for field in own_fields(config.model)}
    return MODELS[config.model](channels, classes, image_size, **own)


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
        cause = in_a_line(error).rstrip(".")
        if "more than 1 value per channel" in cause:
            cause = "batch norm needs two values a channel: give 2 images or more at once, or larger ones"
        how = f"in batches of {config.batch_size}" if images >= n_asked else f"with {images} to train on"
        raise ModelError(
            f"{config.model} cannot train on {channels}×{image_size}×{image_size} images {how} ({cause})"
        ) from error

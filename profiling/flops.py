"""Multiply-accumulates of a network, counted by fvcore."""

from __future__ import annotations

import warnings

import torch
from torch import nn

import models
from models import TrainConfig

_counted: dict[tuple[object, ...], int] = {}


def macs(config: TrainConfig, channels: int, classes: int, image_size: int) -> int | None:
    """Multiply-accumulates of the convolutions and linear layers for one image; None for a model that is no network.

    fvcore counts one multiply-accumulate as one "flop"; what it counts for other operators (batch norm, pooling) is
    left out here.  Counted once a shape in a process.
    """
    if not models.is_network(config.model):
        return None
    key = (models.shape_key(config), channels, classes, image_size)
    if key not in _counted:
        network = models.build(config, channels, classes, image_size)
        assert isinstance(network, nn.Module)
        _counted[key] = _count(network.eval(), torch.zeros(1, channels, image_size, image_size))
    return _counted[key]


def _count(network: nn.Module, images: torch.Tensor) -> int:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # fvcore still traces by torch.jit
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(network, images)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_operator = analysis.by_operator()
    return int(by_operator["conv"] + by_operator["linear"])

"""How much work a trial is, before it has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import models
from datasets import Splits
from models import TrainConfig

_counted: dict[tuple[object, ...], float] = {}


def work_macs(point: Mapping[str, Any], splits: Splits) -> float:
    """About how many multiply-accumulates a training takes: to put the longest trials first, and no more than that.

    A network's step costs about three forward passes (one forward, two backward).  libsvm's cost grows with the square
    of the images (Bottou & Lin 2007, "Support vector machine solvers").
    """
    images = len(splits.train)
    if not models.is_network(point["model"]):
        return float(images) ** 2 * splits.channels * splits.image_size**2
    config = TrainConfig(**point)
    return 3 * _forward_macs(config, splits) * images * config.epochs


def _forward_macs(config: TrainConfig, splits: Splits) -> float:
    """Of one image, counted by PyTorch on shapes alone (the meta device): fast, and near enough here."""
    shape = (splits.channels, len(splits.classes), splits.image_size)
    key = (models.shape_key(config), *shape)
    if key not in _counted:
        counter = FlopCounterMode(display=False)
        with torch.device("meta"), torch.no_grad(), counter:
            network = models.build(config, *shape)
            assert isinstance(network, nn.Module)
            network.eval()(torch.empty(1, splits.channels, splits.image_size, splits.image_size))
        _counted[key] = counter.get_total_flops() / 2
    return _counted[key]

"""How much work a trial is, before it has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import models
from datasets import Splits
from models import TrainConfig
from models.valueless import without_values
from profiling.flops import macs
from tune_jobs.space import Space

_counted: dict[tuple[object, ...], float] = {}


def with_macs(result: dict[str, Any], config: Mapping[str, Any], splits: Splits) -> dict[str, Any]:
    """A trial's result with its MACs: those of a network follow from its shape, and are counted in the driver once for
    all trials that share it."""
    if result["macs"] is not None:
        return result
    return result | {"macs": macs(TrainConfig(**config), splits.channels, len(splits.classes), splits.image_size)}


def work_macs(
    point: Mapping[str, Any], splits: Splits, images: int | None = None, image_size: int | None = None
) -> float:
    """About how many multiply-accumulates a training on these splits takes, or on so many images of that size.

    To put the longest trials first and to scale what was measured, and no more than that.

    A network's step costs about three forward passes (one forward, two backward).  libsvm's cost grows with the square
    of the images (Bottou & Lin 2007, "Support vector machine solvers").
    """
    images = len(splits.train) if images is None else images
    size = splits.image_size if image_size is None else image_size
    if not models.is_network(point["model"]):
        return float(images) ** 2 * splits.channels * size**2
    config = TrainConfig(**point)
    return 3 * _forward_macs(config, (splits.channels, len(splits.classes), size)) * images * config.epochs


def count_shapes(space: Space, splits: Splits) -> None:
    """Count what `work_macs` needs of every shape in the space, which it remembers: some 0.1 s for each."""
    for point in space.shapes():
        work_macs(point, splits)


def _forward_macs(config: TrainConfig, shape: tuple[int, int, int]) -> float:
    """Of one image: as in the table, or for a network that may not fit into memory on shapes alone.  Once a shape."""
    key = (models.shape_key(config), *shape)
    if key not in _counted:
        _counted[key] = _count(config, shape)
    return _counted[key]


def _count(config: TrainConfig, shape: tuple[int, int, int]) -> float:
    if models.parameters(config, *shape) <= models.CHECKED_FOR_REAL:
        counted = macs(config, *shape)
        assert counted is not None
        return counted
    from torch.utils.flop_counter import FlopCounterMode  # imports a compiler, as the meta device does

    channels, _, image_size = shape
    with FlopCounterMode(display=False) as counter, without_values("meta"), torch.no_grad():
        network = models.build(config, *shape)
        assert isinstance(network, nn.Module)
        network.eval()(torch.empty(1, channels, image_size, image_size))
    return int(counter.get_total_flops()) / 2

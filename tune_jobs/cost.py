"""How much work a trial is, before it has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import models
from datasets import Splits
from models import TrainConfig
from profiling.flops import macs


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
    forward = macs(config, splits.channels, len(splits.classes), size)
    assert forward is not None
    return 3.0 * forward * images * config.epochs

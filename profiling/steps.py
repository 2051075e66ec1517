"""A few training steps, through `models.training.fit` itself: what is measured is what trials run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from datasets import Split, Splits
from models import TrainConfig
from models.result import EpochMetrics, Fitted
from models.training import Checkpoint, fit
from profiling.timing import Timing


def few(splits: Splits, steps: int, batch_size: int) -> Splits:
    """The same data with `steps` whole batches to train on, images being taken again where there are too few.

    Two images each are left to evaluate on, which is outside the clock.
    """
    wanted = torch.arange(steps * batch_size) % len(splits.train)
    train = Split(splits.train.images[wanted], splits.train.labels[wanted])
    two = Split(splits.val.images[:2], splits.val.labels[:2])
    return replace(splits, train=train, val=two, test=two)


def run(
    config: TrainConfig,
    splits: Splits,
    device: torch.device,
    epochs: int,
    report: Callable[[EpochMetrics], None],
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train for `epochs` over a few steps' data; `report` and `checkpoint` as `fit` has them."""
    return fit(config.model_copy(update={"epochs": epochs}), splits, device, report, checkpoint)


def timed(config: TrainConfig, splits: Splits, device: torch.device, steps: int, repeats: int) -> tuple[Timing, Fitted]:
    """Each repeat times `steps` steps in a row; as many before them warm up.  The times are of one step."""
    epochs: list[EpochMetrics] = []
    data = few(splits, steps, config.batch_size)
    fitted = run(config, data, device, 1 + repeats, epochs.append)
    return Timing(tuple(epoch.epoch_time_s / steps for epoch in epochs[1:])), fitted

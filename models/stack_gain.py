"""Whether trainings are faster as one than each in its own process: measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from models import build
from models.clock import clock
from models.config import TrainConfig
from models.precision import Precision, full_float32, tiny_as_zero
from models.stacked import Images, Member, Stack
from models.training import prepared

_WARM_UP_STEPS, _TIMED_STEPS = 5, 30


def gain(config: TrainConfig, precision: Precision, images: Images, trainings: int, at_once: int) -> float:
    """How many times as fast so many trainings of this shape take a step stacked as each in its own process.

    Measured, on the device as it is.  `at_once`: of such processes so many compute at the same time, each with its part
    of this one's threads; those that share a card take turns, and it is 1.
    """
    own = config.model_copy(update={"seed": 0 if config.seed is None else config.seed})
    splits, device = images.splits, images.device
    with tiny_as_zero(device), full_float32(device):
        torch.manual_seed(0)
        network = build(own, splits.channels, len(splits.classes), splits.image_size)
        assert isinstance(network, nn.Module)
        alone = prepared(network, own, splits, device, None)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(max(1, threads // at_once))
            alone_s = _step_s(alone.losses, device) / at_once
        finally:
            torch.set_num_threads(threads)
            alone.step.close()
        stacked_s = _step_s(Stack([Member(own, precision, images) for _ in range(trainings)]).losses, device)
    return trainings * alone_s / stacked_s


def _step_s(losses: Callable[[], Iterator[tuple[Tensor, int]]], device: torch.device) -> float:
    """Seconds of a step, of a training that nobody needs."""
    steps = itertools.chain.from_iterable(losses() for _ in itertools.count())
    for _ in itertools.islice(steps, _WARM_UP_STEPS):
        pass
    began = clock(device)
    for _ in itertools.islice(steps, _TIMED_STEPS):
        pass
    return (clock(device) - began) / _TIMED_STEPS

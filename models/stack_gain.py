"""Whether trainings are faster as one than each in its own process: measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from models import build
from models.clock import clock
from models.config import TrainConfig
from models.precision import Precision, full_float32, tiny_as_zero
from models.stacked import Images, Member, Stack
from models.training import prepared

_WARM_UP_STEPS, _TIMED_STEPS, _TURNS = 5, 30, 3


def gain(config: TrainConfig, precision: Precision, images: Images, trainings: int, at_once: int) -> float:
    """How many times as fast so many trainings of this shape take a step stacked as each in its own process.

    Measured, on the device as it is: in turns, of each the quickest of three.  `at_once`: of such processes so many
    compute at the same time, each with its part of this one's threads; those that share a card take turns, and it is 1.
    Evaluation, and what it costs to begin, are not in it.
    """
    steps = _WARM_UP_STEPS + _TURNS * _TIMED_STEPS  # a schedule goes no further than its epochs, of a step at least
    own = config.model_copy(update={"seed": 0, "epochs": steps})
    splits, device = images.splits, images.device
    threads = torch.get_num_threads()
    alone_s, stacked_s = math.inf, math.inf
    with tiny_as_zero(device), full_float32(device):
        torch.manual_seed(0)
        network = build(own, splits.channels, len(splits.classes), splits.image_size)
        assert isinstance(network, nn.Module)
        alone = prepared(network, own, splits, device, None)
        stack = Stack([Member(own, precision, images) for _ in range(trainings)])
        of_one, of_all = _endless(alone.losses), _endless(stack.losses)
        try:
            for turn in range(_TURNS):
                torch.set_num_threads(max(1, threads // at_once))
                alone_s = min(alone_s, _step_s(of_one, device, turn) / at_once)
                torch.set_num_threads(threads)
                stacked_s = min(stacked_s, _step_s(of_all, device, turn))
        finally:
            torch.set_num_threads(threads)
            alone.step.close()
    return trainings * alone_s / stacked_s


def _endless(losses: Callable[[], Iterator[tuple[Tensor, int]]]) -> Iterator[tuple[Tensor, int]]:
    """One epoch behind the other."""
    return itertools.chain.from_iterable(losses() for _ in itertools.count())


def _step_s(steps: Iterator[tuple[Tensor, int]], device: torch.device, turn: int) -> float:
    """Seconds of a step."""
    if turn == 0:
        _take(steps, _WARM_UP_STEPS)
    began = clock(device)
    _take(steps, _TIMED_STEPS)
    return (clock(device) - began) / _TIMED_STEPS


def _take(steps: Iterator[tuple[Tensor, int]], count: int) -> None:
    for _ in itertools.islice(steps, count):
        pass

"""Whether trainings are faster as one is measured on the device that they share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from datasets import Splits
from models import TrainConfig, stack_gain
from models.stack_gain import gain
from models.stacked import Images

CPU = torch.device("cpu")


@pytest.mark.parametrize(("at_once", "expected"), [(1, 2.0), (2, 1.0)])
def test_gain_is_of_all_trainings_each_in_its_process_against_one_stack(
    at_once: int, expected: float, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each the quickest turn."""
    threads: list[int] = []
    seconds = iter([9.0, 9.0, 2.0, 5.0, 5.0, 4.0])

    def step_s(steps: Iterator[tuple[Tensor, int]], device: torch.device, turn: int) -> float:
        threads.append(torch.get_num_threads())
        assert sum(images for _, images in itertools.islice(steps, 4)) == 60
        return next(seconds)

    torch.set_num_threads(2)
    monkeypatch.setattr(stack_gain, "_step_s", step_s)
    config = TrainConfig(model="mlp", batch_size=16, seed=None)
    assert gain(config, "fp32", Images.of(small, CPU), 4, at_once) == expected
    assert threads == [2 // at_once, 2] * 3
    assert torch.get_num_threads() == 2


def test_gain_is_measured_by_the_clock(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes on with each image that a step saw.  Of schedules too, which end with their epochs."""
    now = itertools.count()
    seen: list[int] = []

    def clock(_: torch.device) -> float:
        return float(sum(seen) + 0 * next(now))

    taken = stack_gain._take

    def take(steps: Iterator[tuple[Tensor, int]], count: int) -> None:
        taken((_noted(losses, images) for losses, images in steps), count)

    def _noted(losses: Tensor, images: int) -> tuple[Tensor, int]:
        seen.append(losses.numel())  # a step of three takes three times as long
        return losses, images

    monkeypatch.setattr(stack_gain, "clock", clock)
    monkeypatch.setattr(stack_gain, "_take", take)
    config = TrainConfig(model="mlp", batch_size=16, epochs=1, lr_schedule="onecycle")
    assert gain(config, "fp32", Images.of(small, CPU), 3, 1) == pytest.approx(1.0)

"""Whether trainings are faster as one is measured on the device that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from datasets import Splits
from models import TrainConfig, stack_gain
from models.stack_gain import gain
from models.stacked import Images

CPU = torch.device("cpu")


@pytest.mark.parametrize(("at_once", "expected"), [(1, 2.0), (2, 1.0)])
def test_gain_is_of_all_trainings_taking_turns_against_one_stack(
    at_once: int, expected: float, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    seconds = iter([2.0, 4.0])

    def step_s(losses: Callable[[], Iterator[tuple[Tensor, int]]], device: torch.device) -> float:
        threads.append(torch.get_num_threads())
        assert sum(images for _, images in losses()) == 60
        return next(seconds)

    torch.set_num_threads(2)
    monkeypatch.setattr(stack_gain, "_step_s", step_s)
    config = TrainConfig(model="mlp", batch_size=16, seed=None)
    assert gain(config, "fp32", Images.of(small, CPU), 4, at_once) == expected
    assert threads == [2 // at_once, 2]


def test_gain_is_measured(small: Splits) -> None:
    """That of a single one in a stack is around 1 or below; which it is, is the machine's."""
    found = gain(TrainConfig(model="mlp", batch_size=16), "fp32", Images.of(small, CPU), 1, 1)
    assert 0.01 < found < 10

"""The number format of a training: what is measured for it, and what a CPU does with numbers next to nothing."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from datasets import Splits
from models import TrainConfig, precision
from models.precision import Precision, memory_format, tiny_as_zero
from models.step import Step
from models.training import fit

CPU = torch.device("cpu")


def test_bf16_speed_is_measured_once_on_one_thread_and_puts_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock on which a product in bf16 takes 2 s and one in float32 5 s, and other work 1,000 s now and then."""
    now, threads, products = 0.0, set[int](), 0
    real = torch.mm

    def product(first: Tensor, second: Tensor) -> Tensor:
        nonlocal now, products
        threads.add(torch.get_num_threads())
        products += 1
        now += (2.0 if first.dtype == torch.bfloat16 else 5.0) + (1000.0 if products % 5 == 0 else 0.0)
        return real(first, second)

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr("models.precision.time.thread_time", lambda: now)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    precision.bf16_speed.cache_clear()
    try:
        assert [precision.bf16_speed() for _ in range(3)] == [2.5] * 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        precision.bf16_speed.cache_clear()
    assert threads == {1}
    assert products == 8 * 2 * 2


@pytest.mark.parametrize(
    ("kind", "device", "expected"),
    [
        ("fp32", "cpu", torch.channels_last), ("bf16", "cpu", torch.channels_last),
        ("fp32", "cuda", torch.contiguous_format), ("bf16", "cuda", torch.channels_last),
        ("fp16", "cuda", torch.channels_last), ("fp32", "mps", torch.contiguous_format),
    ],
)  # fmt: skip
def test_memory_format(kind: Precision, device: str, expected: torch.memory_format) -> None:
    assert memory_format(kind, torch.device(device)) == expected


def halved_smallest() -> float:
    """0 where subnormal numbers count as 0: half of the smallest number that is none."""
    return float(torch.full((64,), torch.finfo(torch.float32).tiny).div(2).max())


@pytest.mark.parametrize("before", [False, True])
def test_subnormal_numbers_count_as_zero_in_a_training_and_not_behind_it(before: bool, small: Splits) -> None:
    inside: list[float] = []
    torch.set_flush_denormal(before)
    try:
        fit(TrainConfig(model="mlp", epochs=1), small, CPU, lambda _: inside.append(halved_smallest()))
        with pytest.raises(ZeroDivisionError):
            fit(TrainConfig(model="mlp", epochs=1), small, CPU, lambda _: inside.append(1 / 0))
        assert inside == [0.0]
        assert (halved_smallest() == 0) == before
    finally:
        torch.set_flush_denormal(False)
    assert halved_smallest() > 0
    fit(TrainConfig(model="svm"), small, CPU, lambda _: inside.append(halved_smallest()))
    assert inside[1] > 0


def test_moments_of_an_optimizer_without_gradients_do_not_stay_subnormal() -> None:
    """A hidden layer that never fires: the moments of the first gradients go by half every seven steps."""
    images, labels = torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    smallest = torch.finfo(torch.float32).tiny

    def kept(is_flushed: bool) -> tuple[int, list[Tensor]]:
        torch.manual_seed(0)
        hidden = nn.Linear(64, 4)
        network = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(4, 10))
        config = TrainConfig(model="mlp", optimizer="adam", lr=1e-3, amp=False)
        step = Step(network, None, config, "fp32", CPU, 1000)
        with tiny_as_zero(CPU) if is_flushed else contextlib.nullcontext():
            step(torch.rand(4, 1, 8, 8), labels)
            with torch.no_grad():
                hidden.bias.fill_(-1.0)
            for _ in range(999):
                step(images, labels)
        moments = [value for of in step.optimizer.state.values() for value in of.values()]
        few = sum(int(((value != 0) & (value.abs() < smallest)).sum()) for value in moments)
        return few, [parameter.detach().clone() for parameter in network.parameters()]

    (none, weights), (some, same) = kept(True), kept(False)
    assert none == 0
    assert some > 0
    assert all(torch.equal(one, other) for one, other in zip(weights, same, strict=True))

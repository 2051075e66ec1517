"""The number format of a training: what is measured for it, and what a CPU does with numbers next to nothing."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datasets import Splits
from models import TrainConfig, precision
from models.precision import Precision, as_before, memory_format, tiny_as_zero
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


def test_bf16_speed_that_fails_puts_the_threads_back_and_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Tensor) -> Tensor:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "mm", fails)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    precision.bf16_speed.cache_clear()
    try:
        with pytest.raises(KeyboardInterrupt):
            precision.bf16_speed()
        assert torch.get_num_threads() == 2
        assert precision.bf16_speed.cache_info().currsize == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("before", "device", "has", "fields"),
    [
        ("fp32", "cpu", {"avx512_bf16": True}, {"amp": False}),
        ("fp32", "cpu", {}, {"amp": False}),
        ("bf16", "cpu", {"avx512_bf16": True}, {"amp_dtype": "bf16"}),
        ("bf16", "cpu", {"amx_bf16": True}, {"amp_dtype": "bf16"}),
        ("bf16", "cpu", {"avx2": True}, {}),
        ("bf16", "mps", {}, {}),
        ("fp16", "cpu", {"avx512_bf16": True}, {}),
        ("fp16", "cuda", {}, {"amp_dtype": "fp16"}),
        ("bf16", "cuda", {}, {"amp_dtype": "bf16"}),
        (None, "cpu", {"avx512_bf16": True}, {}),
        ("nonsense", "cpu", {"avx512_bf16": True}, {}),
    ],
)
def test_as_before_pins_auto_to_what_the_device_has(
    before: str | None, device: str, has: dict[str, bool], fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    config = TrainConfig(model="mlp")
    assert as_before(config, before, torch.device(device)) == config.model_copy(update=fields)
    for asked in (TrainConfig(model="mlp", amp=False), TrainConfig(model="mlp", amp_dtype="fp16")):
        assert as_before(asked, before, torch.device(device)) == asked


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


@pytest.mark.parametrize("fields", [{"amp": False}, {"amp_dtype": "bf16"}], ids=["fp32", "bf16"])
def test_convolutions_see_channels_last_and_the_model_comes_back_contiguous(
    fields: dict[str, Any], small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, ...]] = []
    real = nn.Conv2d.forward

    def spied(self: nn.Conv2d, images: Tensor) -> Tensor:
        if self.training and self.in_channels > 1:
            seen.append(tuple(each.is_contiguous(memory_format=torch.channels_last) for each in (images, self.weight)))
        return real(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", spied)
    model = fit(TrainConfig(model="stabilized", epochs=1, **fields), small, CPU, lambda _: None).model
    assert isinstance(model, nn.Module)
    assert set(seen) == {(True, True)}
    assert all(parameter.is_contiguous() for parameter in model.parameters())


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


def silenced(units: int, mode: contextlib.AbstractContextManager[None]) -> tuple[int, list[Tensor]]:
    """A hidden layer that fires once and then never: how many of adam's moments are subnormal 999 steps later (they go
    by half every seven steps), and the weights."""
    torch.manual_seed(0)
    images, labels = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    hidden = nn.Linear(64, units)
    network = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(units, 10))
    step = Step(network, None, TrainConfig(model="mlp", optimizer="adam", amp=False), "fp32", CPU, 1000)
    with mode:
        step(images, labels)
        with torch.no_grad():
            hidden.bias.fill_(-10.0)
        for _ in range(999):
            step(images, labels)
    moments = [value for of in step.optimizer.state.values() for value in of.values()]
    smallest = torch.finfo(torch.float32).tiny
    few = sum(int(((value != 0) & (value.abs() < smallest)).sum()) for value in moments)
    return few, [parameter.detach().clone() for parameter in network.parameters()]


def test_moments_of_an_optimizer_without_gradients_do_not_stay_subnormal() -> None:
    none, weights = silenced(4, tiny_as_zero(CPU))
    some, same = silenced(4, contextlib.nullcontext())
    assert none == 0 < some
    assert all(torch.equal(one, other) for one, other in zip(weights, same, strict=True))


def test_two_threads_give_the_same_weights_whether_they_were_there_before() -> None:
    """Those that a thread's calculations have started before know subnormal numbers, those started within do not."""
    found: list[tuple[int, list[Tensor]]] = []

    def run(is_used: bool) -> None:
        torch.set_num_threads(2)
        if is_used:
            torch.rand(1_000_000).mul_(2)
        found.append(silenced(2000, tiny_as_zero(CPU)))

    before = torch.get_num_threads()
    try:
        for is_used in (True, False):
            thread = threading.Thread(target=run, args=(is_used,))  # PyTorch's threads are each thread's own
            thread.start()
            thread.join()
    finally:
        torch.set_num_threads(before)
    (some, weights), (none, same) = found
    assert none == 0 < some
    assert all(torch.equal(one, other) for one, other in zip(weights, same, strict=True))

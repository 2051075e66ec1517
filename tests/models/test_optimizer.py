"""Weights moved in the backward pass are moved as torch.optim moves them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import TrainConfig, optimizer
from models.optimizer import InBackward, kept_for_each_weight, on_device

CPU = torch.device("cpu")
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.0},
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    {"optimizer": "adam", "weight_decay": 0.1},
    {"optimizer": "adamw", "weight_decay": 0.1},
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 400), nn.ReLU(), nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 10))


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(8, 64, generator=generator), torch.randint(0, 10, (8,), generator=generator)


def train(net: nn.Module, moving: InBackward | torch.optim.Optimizer, steps: range, rate: float = 0.01) -> list[Tensor]:
    for number in steps:
        images, labels = batch(number)
        moving.zero_grad()
        moving.param_groups[0]["lr"] = rate / (number + 1)
        F.cross_entropy(net(images), labels).backward()
        moving.step()
    return [parameter.detach().clone() for parameter in net.parameters()]


def config_of(fields: dict[str, Any]) -> TrainConfig:
    return TrainConfig(model="mlp", lr=0.01, **fields)


@pytest.mark.parametrize("fields", OPTIMIZERS)
def test_in_backward_moves_as_torch_optim_to_the_last_bit(fields: dict[str, Any]) -> None:
    config = config_of(fields)
    ours, theirs = network(), network()
    large = [parameter.numel() >= optimizer.IN_BACKWARD for parameter in ours.parameters()]
    assert any(large)
    assert not all(large)
    mine = train(ours, InBackward(ours, config), range(5))
    for one, other in zip(mine, train(theirs, on_device(theirs, config, CPU), range(5)), strict=True):
        assert torch.equal(one, other)


def test_in_backward_holds_no_gradient_of_a_large_weight() -> None:
    net = network()
    moving = InBackward(net, config_of({"optimizer": "adam"}))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    F.cross_entropy(net(batch(0)[0]), batch(0)[1]).backward()
    for parameter, old in zip(net.parameters(), before, strict=True):
        is_large = parameter.numel() >= optimizer.IN_BACKWARD
        assert (parameter.grad is None) == is_large
        assert torch.equal(parameter.detach(), old) != is_large
    moving.step()
    assert not any(torch.equal(p.detach(), old) for p, old in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("fields", OPTIMIZERS)
def test_in_backward_goes_on_from_its_state_and_torch_optim_from_it(fields: dict[str, Any]) -> None:
    config = config_of(fields)
    whole = network()
    want = train(whole, InBackward(whole, config), range(5))
    for kind in (InBackward, torch.optim.Optimizer):
        first, second = network(), network()
        moving = InBackward(first, config)
        train(first, moving, range(3))
        second.load_state_dict(first.state_dict())
        again = InBackward(second, config) if kind is InBackward else on_device(second, config, CPU)
        state = moving.state_dict()
        if kind is not InBackward:  # has the settings of its own group, which ours takes from the config
            state["param_groups"] = [again.state_dict()["param_groups"][0]]
        again.load_state_dict(state)
        for parameter in second.parameters():
            assert set(again.state.get(parameter, {})) == kept_for_each_weight(config)
        for one, other in zip(train(second, again, range(3, 5)), want, strict=True):
            assert torch.equal(one, other)


def test_in_backward_refuses_the_state_of_other_parameters() -> None:
    config = config_of({"optimizer": "adam"})
    moving = InBackward(network(), config)
    with pytest.raises(ValueError, match=r"^an optimizer of 2 parameters in place of 6$"):
        moving.load_state_dict(InBackward(nn.Linear(3, 3), config).state_dict())


def test_in_backward_refuses_a_state_of_weights_that_moved_unequally_often() -> None:
    config = config_of({"optimizer": "adam"})
    net = network()
    moving = InBackward(net, config)
    train(net, moving, range(3))
    state = moving.state_dict()
    state["state"][2]["step"] += 1
    with pytest.raises(ValueError, match=r"^an optimizer's weights moved 3, 4 times$"):
        InBackward(network(), config).load_state_dict(state)
    assert {float(kept["step"]) for kept in moving.state.values()} == {3}


def test_in_backward_closed_moves_nothing() -> None:
    net = network()
    moving = InBackward(net, config_of({"optimizer": "sgd"}))
    moving.close()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    F.cross_entropy(net(batch(0)[0]), batch(0)[1]).backward()
    assert all(torch.equal(p.detach(), old) for p, old in zip(net.parameters(), before, strict=True))
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_on_device_begins_momentum_at_zero_where_a_scaler_passes_over_the_first_step() -> None:
    """Else PyTorch's fused SGD keeps memory that nothing was written to, here full of NaN, as if it were momentum."""
    net = network()
    moving = on_device(net, config_of({"optimizer": "sgd", "momentum": 0.9}), CPU)
    images, labels = batch(0)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        for overflows in (1.0, 0.0):
            moving.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            moving.grad_scale, moving.found_inf = torch.ones(()), torch.tensor(overflows)  # type: ignore[attr-defined]
            moving.step()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(parameter.isfinite().all() for parameter in net.parameters())

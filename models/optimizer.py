"""What moves the weights: PyTorch's fused optimizers, on a CPU from inside the backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd as sgd_step

from models.config import TrainConfig

IN_BACKWARD = 100_000
"""A weight of so many elements is moved as soon as its gradient is there; smaller ones together, at the end.

Then the gradient is still in the processor's cache, and its memory serves the next one: measured on a Zen 4, one
thread, batch 16, that takes 3 % (sgd) and 7 % (adam) off a step of a ResNet-18.  A call for each small weight costs
more than it saves.
"""

BETAS, EPS = (0.9, 0.999), 1e-8
"""torch.optim.Adam's defaults."""


def kept_for_each_weight(config: TrainConfig) -> set[str]:
    """The names of what the optimizer keeps for a weight once it has moved it."""
    if config.optimizer == "sgd":
        return {"momentum_buffer"} if config.momentum else set()
    return {"step", "exp_avg", "exp_avg_sq"}


def on_device(network: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """One of torch.optim, which a gradient scaler and a CUDA graph work with."""
    parameters = network.parameters()
    # A CUDA graph sees a rate change only where it is a tensor.
    lr = torch.tensor(config.lr, device=device) if device.type == "cuda" else config.lr
    if config.optimizer == "sgd":
        sgd = torch.optim.SGD(
            parameters, lr, config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov, fused=True
        )
        if config.momentum:
            # Where a gradient scaler passes over the first step, PyTorch keeps buffers that nothing was written to.
            for parameter in network.parameters():
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr, BETAS, EPS, weight_decay=config.weight_decay, fused=True)


class InBackward:
    """The same kernels on a CPU, to the same numbers.

    Has of an optimizer what a training asks of it.  Beside the time in the cache it saves what torch.optim's classes do
    in Python at each step, and the second and a half that the first of them takes to import PyTorch's compiler.  Adam
    counts its steps once and not for each weight: 4 to 6 % of a step of a ResNet-18.
    """

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.parameters = list(network.parameters())
        self.param_groups: list[dict[str, Any]] = [{"params": self.parameters, "lr": config.lr}]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        """Of each weight that has been moved; see `kept_for_each_weight`."""
        self._steps = torch.zeros(())
        """Each weight's "step": all have a gradient at each one."""
        self._is_counted = False
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._move_one)
            for parameter in self.parameters
            if parameter.numel() >= IN_BACKWARD
        ]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move the weights that the backward pass has not."""
        self._move([parameter for parameter in self.parameters if parameter.grad is not None])
        self._is_counted = False

    def close(self) -> None:
        """Let go of the network: a later backward pass moves nothing."""
        for hook in self._hooks:
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """As torch.optim's: the state by the parameter's number, with steps of its own."""
        numbers: dict[Tensor, int] = {parameter: number for number, parameter in enumerate(self.parameters)}
        return {
            "state": {
                numbers[parameter]: {name: value.clone() if name == "step" else value for name, value in kept.items()}
                for parameter, kept in self.state.items()
            },
            "param_groups": [{"lr": self.param_groups[0]["lr"], "params": list(numbers.values())}],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over such a state, its tensors too.  Raises KeyError or ValueError where it is of other parameters."""
        (group,) = state["param_groups"]
        if group["params"] != list(range(len(self.parameters))):
            raise ValueError(f"an optimizer of {len(group['params'])} parameters in place of {len(self.parameters)}")
        self.state = {self.parameters[number]: dict(kept) for number, kept in state["state"].items()}
        steps = {float(kept["step"]) for kept in self.state.values() if "step" in kept}
        if len(steps) > 1:
            raise ValueError(
                f"an optimizer's weights moved {', '.join(f'{count:.0f}' for count in sorted(steps))} times"
            )
        self._steps.fill_(max(steps, default=0))
        for kept in self.state.values():
            if "step" in kept:
                kept["step"] = self._steps

    def _move_one(self, parameter: Tensor) -> None:
        self._move([parameter])
        parameter.grad = None

    @torch.no_grad()
    def _move(self, parameters: list[Tensor]) -> None:
        if not self._is_counted:  # the first of this step
            self._steps += 1
            self._is_counted = True
        for dtype in {parameter.dtype for parameter in parameters}:  # a kernel's call is for one
            self._move_alike([parameter for parameter in parameters if parameter.dtype == dtype])

    def _move_alike(self, parameters: list[Tensor]) -> None:
        config = self.config
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        kept = [self.state.get(parameter) or self._begin(parameter) for parameter in parameters]
        lr: float = self.param_groups[0]["lr"]
        if config.optimizer == "sgd":
            buffers: list[Tensor | None] = [values["momentum_buffer"] for values in kept if values]
            sgd_step(
                parameters, gradients, buffers,
                lr=lr, weight_decay=config.weight_decay, momentum=config.momentum, dampening=0.0,
                nesterov=config.nesterov, maximize=False, fused=True,
            )  # fmt: skip
            return
        fused = torch._fused_adam_ if config.optimizer == "adam" else torch._fused_adamw_
        fused(
            parameters, gradients,
            [values["exp_avg"] for values in kept], [values["exp_avg_sq"] for values in kept], [],
            [self._steps] * len(parameters),
            lr=lr, weight_decay=config.weight_decay, beta1=BETAS[0], beta2=BETAS[1], eps=EPS,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """Zeros, from which PyTorch's optimizers start too."""
        kept = {
            name: self._steps if name == "step" else torch.zeros_like(parameter)
            for name in sorted(kept_for_each_weight(self.config))
        }
        self.state[parameter] = kept
        return kept

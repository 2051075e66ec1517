"""One step of training: forward, backward, optimizer, schedule."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from models.config import TrainConfig
from models.evaluation import LOSSES
from models.optimizer import InBackward, kept_for_each_weight, on_device
from models.precision import Precision, autocast, in_memory_format


class Step:
    """Called with a batch on the device, it moves the weights and returns the batch's mean loss, on the device."""

    def __init__(
        self,
        network: nn.Module,
        idle: nn.Parameter | None,
        config: TrainConfig,
        precision: Precision,
        device: torch.device,
        steps: int,
    ) -> None:
        self.network = network
        self.idle = idle
        self.no_gradient = None if idle is None else torch.zeros_like(idle)
        self.loss = LOSSES[config.loss]
        self.precision: Precision = precision
        self.device = device
        self.optimizer = InBackward(network, config) if device.type == "cpu" else on_device(network, config, device)
        self.kept = kept_for_each_weight(config)
        self.rates: torch.optim.Optimizer | None = None
        self.schedule: LRScheduler | None = None
        if config.lr_schedule != "constant":
            # A schedule reads the rate that it set, and would wait for a GPU to say it: it has an optimizer of its own.
            self.rates = torch.optim.SGD([torch.zeros(())], config.lr)
            self.schedule = _schedule(self.rates, config, steps)
        self._set_rate()
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = self.move(images, labels)
        self.turn()
        return loss

    def move(self, images: Tensor, labels: Tensor) -> Tensor:
        """What the device does in a step; without a scaler it needs no answer from it."""
        with autocast(self.precision, self.device):
            logits = self.network(in_memory_format(images, self.precision))
        loss = self.loss(logits if self.precision == "fp32" else logits.float(), labels)
        self.optimizer.zero_grad()
        if self.idle is not None:
            self.idle.grad = self.no_gradient
        if isinstance(self.optimizer, InBackward):
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.detach()

    def turn(self) -> None:
        """What is done on the host behind each step: the next learning rate."""
        if self.schedule is not None and self.rates is not None:
            self.rates.step()  # moves nothing; PyTorch warns of a schedule whose optimizer stands still
            self.schedule.step()
            self._set_rate()

    def close(self) -> None:
        """Let go of the network, which has been trained."""
        if isinstance(self.optimizer, InBackward):
            self.optimizer.close()

    def _set_rate(self) -> None:
        if self.rates is None:
            return
        rate = self.rates.param_groups[0]["lr"]
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # in place: a CUDA graph reads it there
            else:
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What a step changes beside the network: live tensors and plain values."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "rates": None if self.rates is None else self.rates.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over such a state.  Raises one of PyTorch's errors, KeyError or ValueError where it does not fit."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        parameters = list(self.network.parameters())
        for parameter in parameters:
            found = self.optimizer.state.get(parameter, {})
            if not self.kept <= found.keys():
                raise ValueError(f"an optimizer's state of {', '.join(found) or 'nothing'}")
            for name, value in found.items():  # the fused kernels go by memory, not by shape
                if isinstance(value, Tensor) and name != "step":
                    if value.shape != parameter.shape:
                        raise ValueError(f"an optimizer's {name} of shape {tuple(value.shape)}")
                    found[name] = torch.empty_like(parameter).copy_(value)
        if self.schedule is not None and self.rates is not None:
            self.rates.load_state_dict(copy.deepcopy(state["rates"]))
            self.schedule.load_state_dict(state["schedule"])
        self._set_rate()
        self.scaler.load_state_dict(state["scaler"])


def _schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> LRScheduler:
    if config.lr_schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return OneCycleLR(optimizer, max_lr=config.lr, total_steps=steps, cycle_momentum=False)

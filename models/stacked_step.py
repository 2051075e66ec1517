"""A step of several trainings of one shape at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.evaluation import LOSSES_OF_IMAGES
from models.precision import Precision
from models.step import Step

ALIKE = (nn.ReLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.MaxPool2d)
"""Layers without weights that treat each map alike, whosever it is."""


class Weights(nn.Module):
    """Weights in one tensor: P of one network, or K×P of a stack of K."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)


def layers_of(network: nn.Module) -> list[nn.Module]:
    """Of those that a stack can compute."""
    assert isinstance(network, nn.Sequential)
    layers = list(network)
    assert all(isinstance(layer, (nn.Flatten, nn.Linear, nn.Conv2d, *ALIKE)) for layer in layers)
    return layers


def sizes_of(network: nn.Module) -> list[int]:
    """Of each weight, and last of the padding of a row."""
    return [*(weight.numel() for weight in network.parameters()), padding_of(network)]


def padding_of(network: nn.Module) -> int:
    """Zeros behind the weights, so that each row begins where the fused kernels read it quickly: every 256 bytes."""
    return -sum(weight.numel() for weight in network.parameters()) % 64


class StackedStep:
    """A step of each member at once, as `models.step.Step` is one's."""

    def __init__(self, steps: Sequence[Step], rows: Weights, network: nn.Module, loss: str) -> None:
        """`steps`: each over its own row.  `network`: of any of them; its weights are not read."""
        self.steps = list(steps)
        self.network = rows
        self.precision: Precision = steps[0].precision
        self.device = steps[0].device
        self.optimizer = _Optimizers(self.steps, rows)
        self._layers = layers_of(network)
        self._loss = loss
        self._sizes = sizes_of(network)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        losses = self.move(images, labels)
        self.turn()
        return losses

    def move(self, images: Tensor, labels: Tensor) -> Tensor:
        """All members' images behind each other, K·N×C×H×W, and their labels -> each one's mean loss: K."""
        self.optimizer.zero_grad()
        k = len(self.steps)
        values: Tensor = self.network.values
        if self.precision == "bf16":  # what autocast comes to in such layers, with one cast for all weights
            values, images = values.bfloat16(), images.bfloat16()
        logits = self._logits(values, images.unflatten(0, (k, -1)))
        of_images = LOSSES_OF_IMAGES[self._loss](logits if self.precision == "fp32" else logits.float(), labels)
        losses = of_images.view(k, -1).mean(1)
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()

    def turn(self) -> None:
        for step in self.steps:
            step.turn()

    def _logits(self, values: Tensor, pixels: Tensor) -> Tensor:
        """Rows K×P and images K×N×C×H×W -> K·N×classes.

        Between convolutions, where each member has a group, its maps lie along the channels: N×K·C×H×W.
        """
        k = len(values)
        parts = iter(values.split(self._sizes, dim=1))  # whose way back is a single concatenation
        for layer in self._layers:
            if isinstance(layer, nn.Flatten):
                maps = pixels if pixels.dim() == 5 else pixels.unflatten(1, (k, -1)).transpose(0, 1)
                pixels = maps.flatten(2)
            elif isinstance(layer, nn.Linear):
                weight, bias = next(parts).unflatten(1, layer.weight.shape), next(parts)
                pixels = torch.baddbmm(bias.unsqueeze(1), pixels, weight.transpose(1, 2))
            elif isinstance(layer, nn.Conv2d):
                weight, bias = next(parts).unflatten(1, layer.weight.shape), next(parts)
                if pixels.dim() == 5:
                    pixels = pixels.transpose(0, 1).flatten(1, 2)
                pixels = F.conv2d(
                    pixels, weight.flatten(0, 1), bias.flatten(), layer.stride, layer.padding, layer.dilation, k
                )
            else:
                pixels = layer(pixels)
        return pixels.flatten(0, 1)


class _Optimizers:
    """Each member's own, over its row: what a recorded step asks of one."""

    def __init__(self, steps: Sequence[Step], rows: Weights) -> None:
        self.steps, self.rows = steps, rows

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for step in self.steps for group in step.optimizer.param_groups]

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        return {row: kept for step in self.steps for row, kept in step.optimizer.state.items()}

    def zero_grad(self) -> None:
        self.rows.values.grad = None

    def step(self) -> None:
        assert self.rows.values.grad is not None
        for step, gradient in zip(self.steps, self.rows.values.grad, strict=True):
            (row,) = step.network.parameters()
            row.grad = gradient
            step.optimizer.step()
            row.grad = None

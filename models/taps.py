"""Kernel taps that can never touch a pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def silence_unwritten_gradients(network: nn.Module, channels: int, image_size: int) -> None:
    """Zero the gradients of taps that meet padding alone where the bf16 backward pass on a CPU leaves them unwritten.

    On a 1×1 map, a padded 3×3 kernel of stride 2 has one tap that meets the pixel.  oneDNN's bf16 weight gradient then
    holds whatever memory held in the other eight, whose true gradient is 0 (seen with PyTorch 2.15 in both ResNets at
    up to 16 pixels; of stride 1 only with 5×5 kernels, which no model here has on such a map).
    """
    handles = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1 and module.padding != (0, 0):
            handles.append(module.register_forward_pre_hook(_silence_on_one_pixel))
    if not handles:
        return
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, channels, image_size, image_size))
        network.train(training)
    for handle in handles:
        handle.remove()


def _silence_on_one_pixel(convolution: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(convolution, nn.Conv2d)
    if inputs[0].shape[-2:] != (1, 1):
        return
    live = torch.zeros(convolution.kernel_size, dtype=torch.bool)
    live[int(convolution.padding[0]), int(convolution.padding[1])] = True
    convolution.weight.register_hook(lambda gradient: torch.where(live, gradient, 0))

"""Residual networks (He et al. 2015, arXiv:1512.03385), for any number of input channels.

Under the names of torchvision's and, with the same seed, with its weights: a state dict fits either.  Written out
here because torchvision imports PyTorch's compiler, a second and a half in each worker process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def resnet18(channels: int, classes: int, image_size: int) -> nn.Module:  # noqa: ARG001 - takes every size
    """11,175,370 parameters for one channel and ten classes."""
    return ResNet(Basic, (2, 2, 2, 2), channels, classes)


def resnet50(channels: int, classes: int, image_size: int) -> nn.Module:  # noqa: ARG001 - takes every size
    """23,522,250 parameters for one channel and ten classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), channels, classes)


class Basic(nn.Module):
    """Two 3×3 convolutions beside a shortcut: N×inputs×H×W -> N×width×H/stride×W/stride."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        out = self.bn2(self.conv2(out))
        out += images if self.downsample is None else self.downsample(images)
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut: N×inputs×H×W -> N×4·width×H/stride×W/stride.

    The stride is at the 3×3 one, as torchvision has it (known as ResNet v1.5); the paper has it at the first.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(images)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += images if self.downsample is None else self.downsample(images)
        return self.relu(out)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Four stages of `blocks` blocks each, the maps half as large from stage to stage: N×channels×H×W -> N×classes."""

    def __init__(self, block: type[Basic | Bottleneck], blocks: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        # torchvision makes a first convolution for three channels; another one is made behind all others, below.
        self.conv1 = _conv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, blocks[0], 64, 64, stride=1)
        self.layer2 = _stage(block, blocks[1], 64 * block.expansion, 128, stride=2)
        self.layer3 = _stage(block, blocks[2], 128 * block.expansion, 256, stride=2)
        self.layer4 = _stage(block, blocks[3], 256 * block.expansion, 512, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module)
        if channels != 3:
            self.conv1 = _conv(channels, 64, 7, stride=2)
            _initialise(self.conv1)

    def forward(self, images: Tensor) -> Tensor:
        out = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.fc(torch.flatten(self.avgpool(out), 1))  # type: ignore[no-any-return]


def _stage(block: type[Basic | Bottleneck], blocks: int, inputs: int, width: int, stride: int) -> nn.Sequential:
    outputs = width * block.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
    first = block(inputs, width, stride, downsample)
    return nn.Sequential(first, *(block(outputs, width, 1, None) for _ in range(1, blocks)))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def _initialise(convolution: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")

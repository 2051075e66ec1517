"""torchvision's residual networks (He et al. 2015, arXiv:1512.03385), for any number of input channels."""

from __future__ import annotations

from torch import nn


def resnet18(channels: int, classes: int, image_size: int) -> nn.Module:  # noqa: ARG001 - takes every size
    """11,175,370 parameters for one channel and ten classes."""
    import torchvision  # slow to import: by those alone that build one

    return _for_channels(torchvision.models.resnet18(weights=None, num_classes=classes), channels)


def resnet50(channels: int, classes: int, image_size: int) -> nn.Module:  # noqa: ARG001 - takes every size
    """23,522,250 parameters for one channel and ten classes."""
    import torchvision

    return _for_channels(torchvision.models.resnet50(weights=None, num_classes=classes), channels)


def _for_channels(network: nn.Module, channels: int) -> nn.Module:
    """The first convolution made anew for `channels`, initialised as torchvision does."""
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network

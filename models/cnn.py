"""Small convolutional networks: five of one family, as course reports compare them.

Parameter counts are for one channel, ten classes and 28×28.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def simple_cnn(channels: int, classes: int, image_size: int) -> nn.Module:
    """Two 3×3 convolutions without padding, one max-pool, 128 units: 1,199,882 parameters."""
    if image_size < 6:
        raise ValueError("at least 6×6 pixels are needed")
    side = (image_size - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3), nn.ReLU(),
        nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64 * side * side, 128), nn.ReLU(),
        nn.Linear(128, classes),
    )  # fmt: skip


def baseline(channels: int, classes: int, image_size: int) -> nn.Module:
    """Two padded 3×3 convolutions, each with ReLU and a max-pool, then 128 units: 206,922 parameters."""
    return _two_stages(channels, classes, image_size)


def stabilized(channels: int, classes: int, image_size: int) -> nn.Module:
    """The baseline with batch norm after each convolution and dropout 0.3: 207,018 parameters."""
    return _two_stages(channels, classes, image_size, batch_norm=True, dropout=0.3)


def high_vision(channels: int, classes: int, image_size: int) -> nn.Module:
    """The baseline with 5×5 kernels: 215,370 parameters."""
    return _two_stages(channels, classes, image_size, kernel=5)


def modernist(channels: int, classes: int, image_size: int) -> nn.Module:
    """The baseline with GELU for ReLU: 206,922 parameters."""
    return _two_stages(channels, classes, image_size, activation=nn.GELU)


def _two_stages(
    channels: int,
    classes: int,
    image_size: int,
    kernel: int = 3,
    activation: Callable[[], nn.Module] = nn.ReLU,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    if image_size < 4:
        raise ValueError("at least 4×4 pixels are needed")
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32)):
        layers.append(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers += [activation(), nn.MaxPool2d(2)]
    side = image_size // 4
    layers += [nn.Flatten(), nn.Linear(32 * side * side, 128), activation()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(128, classes))

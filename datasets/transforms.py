"""From stored pixels to what a network sees, on whole batches, on the device that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.splits import Splits

ROTATE_DEGREES = 10.0
"""rotate_shift turns by an angle drawn evenly from ± this."""
SHIFT = 0.1
"""rotate_shift moves, along each axis, by a share of the side drawn evenly from ± this."""

Augmentation = Callable[..., Tensor]
"""(float images N×C×H×W from 0 to 1, a CPU generator) -> the same shape on the same device.

Of several generators each draws for its part of the images, all as long, one behind the other.
"""


@dataclass(frozen=True)
class Transform:
    """uint8 images N×C×H×W of any size -> float32 N×C×size×size, each channel normalised by the training part."""

    image_size: int
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, splits: Splits, device: torch.device) -> Transform:
        shape = (1, -1, 1, 1)
        mean = torch.tensor(splits.mean, device=device).reshape(shape)
        std = torch.tensor(splits.std, device=device).reshape(shape)
        return cls(splits.image_size, mean, std)

    def __call__(self, images: Tensor, augment: Augmentation | None = None, *generators: torch.Generator) -> Tensor:
        pixels = resize(images.to(torch.float32).div_(255), self.image_size)
        if augment is not None:
            assert generators, "an augmentation draws from a generator"
            pixels = augment(pixels, *generators)
        return (pixels - self.mean) / self.std


def resize(images: Tensor, size: int) -> Tensor:
    """Float images N×C×H×W brought to size×size, bilinear, antialiased where they shrink."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def rotate_shift(images: Tensor, *generators: torch.Generator) -> Tensor:
    """Each image turned by up to ±10° and moved by up to ±10 % of its side; black comes in from outside."""
    n = len(images) // len(generators)
    drawn = torch.cat([torch.rand(n, 3, generator=generator) for generator in generators])
    # To wait for a GPU here would leave it idle while the rest is issued; elsewhere such a copy may come too early.
    draws = (drawn * 2 - 1).to(images.device, non_blocking=images.is_cuda)
    angle = draws[:, 0] * (ROTATE_DEGREES * torch.pi / 180)
    shift = draws[:, 1:] * (2 * SHIFT)  # affine_grid's coordinates run from −1 to 1: a side is 2 long
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


AUGMENTATIONS: dict[str, Augmentation | None] = {"none": None, "rotate_shift": rotate_shift}

"""Batches of a part: in what order, how many, and how they reach the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.splits import Split
from models.config import TrainConfig


def placed(part: Split, device: torch.device, where: str) -> Split:
    """The part on the device, or as it is where batches are streamed.  On a CPU nothing is copied."""
    if where == "stream":
        return part
    return replace(part, images=part.images.to(device), labels=part.labels.to(device))


def index_batches(part: Split, config: TrainConfig, order: torch.Generator) -> list[Tensor]:
    """Which images each batch of an epoch holds: int64, where the part is."""
    shuffled = torch.randperm(len(part), generator=order).to(part.labels.device)  # once: a copy waits for the device
    return list(shuffled.split(config.batch_size))[: steps_of(len(part), config.batch_size)]


def batches(
    part: Split, config: TrainConfig, device: torch.device, order: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """The part once, in an order drawn from `order` on the CPU: the same on every device, resident or streamed."""
    indices = index_batches(part, config, order)
    if config.input == "resident":
        for batch in indices:
            yield part.images[batch], part.labels[batch]
        return
    on_cuda = device.type == "cuda"
    loader = DataLoader(
        _Streamed(part),
        sampler=indices,
        batch_size=None,
        pin_memory=config.pin_memory and on_cuda,
        generator=torch.Generator(),  # or it draws from the one that dropout draws from
    )
    for images, labels in loader:
        yield images.to(device, non_blocking=on_cuda), labels.to(device, non_blocking=on_cuda)


class _Streamed(Dataset[tuple[Tensor, Tensor]]):
    """A whole batch an item, so that a DataLoader gathers it at once."""

    def __init__(self, part: Split) -> None:
        self.part = part

    def __getitem__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self.part.images[batch], self.part.labels[batch]

    def __len__(self) -> int:
        return len(self.part)


def steps_of(images: int, batch_size: int) -> int:
    """Batches in an epoch.  A last one of a single image is left out: batch norm is undefined on it."""
    full, rest = divmod(images, batch_size)
    return full + (rest > 1 or (rest == 1 and full == 0))

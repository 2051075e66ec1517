"""Losses, and what a network is worth on a part."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.splits import Split
from datasets.transforms import Transform
from models.precision import Precision, autocast, in_memory_format


def _manual_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    chosen = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return (logits.logsumexp(1) - chosen).mean()


def _mse(logits: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(logits.softmax(1), F.one_hot(labels, logits.shape[1]).to(logits.dtype))


def _manual_cross_entropy_of_images(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.logsumexp(1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def _mse_of_images(logits: Tensor, labels: Tensor) -> Tensor:
    wanted = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return F.mse_loss(logits.softmax(1), wanted, reduction="none").mean(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "manual": _manual_cross_entropy,
    "mse": _mse,
}
"""(float logits N×classes, labels N) -> the mean over the batch."""


LOSSES_OF_IMAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": functools.partial(F.cross_entropy, reduction="none"),
    "manual": _manual_cross_entropy_of_images,
    "mse": _mse_of_images,
}
"""(float logits N×classes, labels N) -> the loss of each image, N; their mean is that of LOSSES up to rounding."""


def images_at_once(image_size: int) -> int:
    """The batch size of evaluation: large, as no gradients are kept, and larger for small images."""
    return min(max(32, 800_000 // image_size**2), 1024)


@torch.no_grad()
def evaluate(
    network: nn.Module, part: Split, transform: Transform, loss: str, precision: Precision, device: torch.device
) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) over a part, in large batches, in the precision of training."""
    network.eval()
    batch_size = images_at_once(transform.image_size)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in zip(part.images.split(batch_size), part.labels.split(batch_size), strict=True):
        images, labels = images.to(device), labels.to(device)
        with autocast(precision, device):
            logits = network(in_memory_format(transform(images), precision)).float()
        loss_sum += LOSSES[loss](logits, labels) * len(labels)
        correct += (logits.argmax(1) == labels).sum()
    return float(loss_sum) / len(part), int(correct) / len(part)

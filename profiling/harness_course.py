"""The training loop as course notebooks write it, in plain PyTorch: what the speed benchmark compares with.

A dataset that gives one picture at a time through torchvision's transforms, a DataLoader that shuffles, float32, the
plain optimizers, `loss.item()` at each step, evaluation by a DataLoader of the same batch size.  The networks are ours,
which for the ResNets means torchvision's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import models
from models import TrainConfig
from profiling.harness_task import Task, Trained

Sample = tuple[Tensor, int]


class Pictures(Dataset[Sample]):
    """As torchvision.datasets.MNIST: stored pixels, made a picture and transformed when asked for."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], transform: Callable[..., Tensor]):
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        return self._transform(Image.fromarray(self._images[index, 0], mode="L")), int(self._labels[index])


def pictures(task: Task) -> dict[str, Pictures]:
    """The three parts, read and normalised as a notebook does."""
    assert task.data is not None
    transforms = torchvision.transforms
    steps = [transforms.ToTensor(), transforms.Normalize(task.mean, task.std)]
    with np.load(task.data) as arrays:
        size = arrays["train_images"].shape[-1]
        if size != task.image_size:
            steps.insert(0, transforms.Resize(task.image_size))
        transform = transforms.Compose(steps)
        return {
            name: Pictures(arrays[f"{name}_images"], arrays[f"{name}_labels"], transform)
            for name in ("train", "val", "test")
        }


def train(task: Task, cell: Mapping[str, Any], data: Mapping[str, Pictures]) -> Trained:
    """One cell, from fresh weights to its test accuracy."""
    torch.manual_seed(task.seed)
    network = models.build(TrainConfig(**cell), 1, task.classes, task.image_size)
    assert isinstance(network, nn.Module)
    size = cell["batch_size"]
    train_loader = DataLoader(data["train"], batch_size=size, shuffle=True)
    optimizer: torch.optim.Optimizer
    if cell["optimizer"] == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=cell["lr"])
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=cell["lr"], momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    train_time_s, val_accuracy = 0.0, 0.0
    for _ in range(task.epochs):
        network.train()
        began = time.perf_counter()
        running_loss = 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        train_time_s += time.perf_counter() - began
        val_accuracy = _accuracy(network, DataLoader(data["val"], batch_size=size))
    return Trained(
        dict(cell), train_time_s, val_accuracy, _accuracy(network, DataLoader(data["test"], batch_size=size))
    )


def _accuracy(network: nn.Module, loader: DataLoader[Sample]) -> float:
    network.eval()
    correct, total = 0, 0
    with torch.no_grad():
        for images, labels in loader:
            predicted = network(images).argmax(dim=1)
            correct += (predicted == labels).sum().item()
            total += len(labels)
    return correct / total

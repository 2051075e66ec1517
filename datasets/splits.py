"""Three parts of a dataset: to train on, to choose by, to test once."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.config import DataError, DatasetConfig, SplitSizes
from datasets.sources import Dataset

OFFICIAL_VAL = 0.1
"""The share of an official training set that is carved out for validation."""


@dataclass(frozen=True)
class Split:
    """One part: uint8 images N×C×H×W at their stored size, int64 labels N, both on the CPU.

    Pickled as NumPy arrays, whose bytes a process that shares memory (Ray's object store) reads without copying.
    Such tensors are read-only memory: nothing may write to them in place.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_arrays, (self.images.numpy(), self.labels.numpy())


def _from_arrays(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Split:
    with warnings.catch_warnings():
        # Torch has no read-only tensors and says so; nobody writes to these.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Split(torch.from_numpy(images), torch.from_numpy(labels))


@dataclass(frozen=True)
class Splits:
    """What one run trains, chooses and tests on."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    image_size: int
    """Pixels a side that the models see."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the training part, a channel each, with pixels from 0 to 1; a constant channel has std 1."""
    sha256: str
    """Of all pixels and labels, part by part: two runs with the same one saw the same data."""

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def preparation(self) -> dict[str, object]:
        """How images are brought to the input of a model trained on these: JSON values."""
        return {"classes": self.classes, "image_size": self.image_size, "mean": self.mean, "std": self.std}


def split(dataset: Dataset, config: DatasetConfig) -> Splits:
    """Divide by `config.split`, `split_seed` and `limit`.  The same config gives the same parts everywhere.

    Raises DataError where the images do not suffice, or those to train on show nothing.
    """
    of_parts = part_indices(len(dataset.labels), dataset.official_train, config)
    train, val, test = (_take(dataset, indices) for indices in of_parts)
    for name, part in (("training", train), ("validation", val), ("test", test)):
        if len(part) == 0:
            used = config.limit or len(dataset.labels)
            raise DataError(f"dataset {config.name}: {used:,} images leave none for the {name} part")
    if torch.equal(train.images.amin(dim=(0, 2, 3)), train.images.amax(dim=(0, 2, 3))):
        raise DataError(
            f"dataset {config.name}: every pixel of the {len(train):,} training images is the same; what is drawn in "
            "transparency alone is not read"
        )
    mean, std = _statistics(train.images)
    digest = hashlib.sha256()
    for part in (train, val, test):
        digest.update(repr(tuple(part.images.shape)).encode())
        digest.update(part.images.numpy().data)
        digest.update(part.labels.numpy().data)
    return Splits(train, val, test, dataset.classes, dataset.image_size, mean, std, digest.hexdigest())


def part_indices(total: int, official_train: int | None, config: DatasetConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Which of a source's `total` images are those of each part: int64, in the parts' order.

    Raises DataError where there are not as many as asked for.
    """
    generator = torch.Generator().manual_seed(config.split_seed)
    if config.limit is not None and config.limit > total:
        raise DataError(f"dataset.limit: {config.limit:,} images asked, {config.name} has {total:,}")
    limit = config.limit or total

    if config.split == "official":
        if official_train is None:
            raise DataError(f"dataset.split: {config.name} has no official split; give fractions or numbers of images")
        shuffled = torch.randperm(official_train, generator=generator)[: round(limit * official_train / total)]
        test = official_train + torch.randperm(total - official_train, generator=generator)[: limit - len(shuffled)]
        n_val = round(OFFICIAL_VAL * len(shuffled))
        return shuffled[n_val:], shuffled[:n_val], test.sort().values

    shuffled = torch.randperm(total, generator=generator)[:limit]
    if isinstance(config.split, SplitSizes):
        sizes = [config.split.train, config.split.val, config.split.test]
        if sum(sizes) > limit:
            raise DataError(
                f"dataset.split: {sizes[0]:,} + {sizes[1]:,} + {sizes[2]:,} images asked, there are {limit:,}"
            )
    else:
        n_train = round(config.split[0] * limit)
        n_val = min(round(config.split[1] * limit), limit - n_train)
        sizes = [n_train, n_val, limit - n_train - n_val]
    train, val, test = torch.split(shuffled[: sum(sizes)], sizes)
    return train, val, test


def _take(dataset: Dataset, indices: Tensor) -> Split:
    rows = indices
    if dataset.stored is not None:
        assert torch.isin(indices, dataset.stored).all(), "the dataset was read for another split"
        rows = torch.searchsorted(dataset.stored, indices)
    return Split(dataset.images[rows].contiguous(), dataset.labels[indices])


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a channel, exact: from the counts of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).to(torch.float64)
        shares = counts / counts.sum()
        mean = float((shares * values).sum())
        variance = float((shares * (values - mean) ** 2).sum())
        means.append(mean)
        stds.append(variance**0.5 or 1.0)
    return tuple(means), tuple(stds)

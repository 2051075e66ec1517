"""What every contender of the speed benchmark is given and what it gives back: files, since each is a process."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Splits


@dataclass(frozen=True, kw_only=True)
class Task:
    """The trainings that a contender is to do."""

    data: str | None = None
    """An .npz with uint8 images N×C×H×W and labels of each part; None where nothing is trained."""
    classes: int = 0
    image_size: int = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    """Of the training part, a channel each, with pixels from 0 to 1."""
    epochs: int
    seed: int
    slots: int
    """How many trainings may run at once: one a core."""
    cells: list[dict[str, Any]]
    """Fields of TrainConfig, the longest training first.  Where nothing is trained, one number each."""
    results: str
    """File that takes a line a training."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Trained:
    """One training, as its contender tells it."""

    cell: dict[str, Any]
    train_time_s: float
    """Training alone, without evaluation."""
    val_accuracy: float
    """After the last epoch, from 0 to 1; NaN where nothing is trained."""
    test_accuracy: float
    """Of the model that it ends with: the last epoch's, of ours the best epoch's."""


def read_task(path: str) -> Task:
    """A task that was written."""
    return Task(**json.loads(Path(path).read_text()))


def tell(task: Task, trained: Trained) -> None:
    """Add a line to the results.  Several processes may at once: a short line is written in one piece."""
    results = os.open(task.results, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(results, (json.dumps(asdict(trained)) + "\n").encode())
    finally:
        os.close(results)


def read_results(path: Path) -> list[Trained]:
    """All that was told so far."""
    return [Trained(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def done_nothing(cell: Mapping[str, Any]) -> Trained:
    """The result of a training that is none."""
    return Trained(dict(cell), 0.0, math.nan, math.nan)


def write_data(splits: Splits, path: Path) -> None:
    """The three parts as arrays, at their stored size."""
    import numpy as np

    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    arrays: dict[str, Any] = {f"{name}_images": part.images.numpy() for name, part in parts.items()}
    arrays |= {f"{name}_labels": part.labels.numpy() for name, part in parts.items()}
    np.savez(path, **arrays)


def read_splits(task: Task) -> Splits:
    """The parts as our own training takes them."""
    import numpy as np
    import torch

    from datasets import Split, Splits

    assert task.data is not None
    with np.load(task.data) as arrays:
        train, val, test = (
            Split(torch.from_numpy(arrays[f"{name}_images"]), torch.from_numpy(arrays[f"{name}_labels"]))
            for name in ("train", "val", "test")
        )
    names = tuple(str(label) for label in range(task.classes))
    return Splits(train, val, test, names, task.image_size, tuple(task.mean), tuple(task.std), sha256="")


def cells_done(lines: Sequence[str]) -> int:
    """How many trials of ours are finished, by the lines of its ledger."""
    return sum('"state": "COMPLETE"' in line for line in lines)

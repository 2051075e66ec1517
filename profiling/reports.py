"""All figures that five course reports (A to E) published, as they gave them: published.csv.

A field that a report does not state is empty.  D's seeds and augmentation tables state no number of validation images;
their accuracies are whole thirtieths, so it is 30.  E has one figure in numbers, of its best perceptron.
"""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Figure:
    """One row of a report's table."""

    report: str
    """A to E."""
    table: str
    dataset: str
    config: dict[str, Any]
    """Fields of TrainConfig that the row states, but for `epochs`."""
    device: str | None
    """cpu or cuda."""
    image_size: int | None
    train_images: int | None
    epochs: int | None
    metric: str
    """What the accuracy is of: val or test."""
    accuracy: float
    """From 0 to 1."""
    eval_images: int | None
    """The number of images it was taken on."""
    train_time_ms: float
    """NaN where it is not stated."""
    params: int | None
    best_epoch: int | None

    @property
    def name(self) -> str:
        """Of its table: D/lr_batch_grid/mnist."""
        return f"{self.report}/{self.table}/{self.dataset}"


_CONFIG: dict[str, Any] = {
    "model": str, "batch_size": int, "optimizer": str, "lr": float, "weight_decay": float,
    "pin_memory": lambda text: text == "True", "seed": int, "augment": str, "kernel": str, "C": float, "gamma": str,
    "degree": int,
}  # fmt: skip
"""Column that is a field of TrainConfig -> how it is read."""


@functools.cache
def read() -> tuple[Figure, ...]:
    """All rows, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as lines:
        return tuple(_figure(record) for record in csv.DictReader(lines))


def tables() -> list[str]:
    """The names of all tables, in the order of the file."""
    return list(dict.fromkeys(figure.name for figure in read()))


def _figure(record: dict[str, str]) -> Figure:
    return Figure(
        report=record["report"],
        table=record["table"],
        dataset=record["dataset"],
        config={field: kind(record[field]) for field, kind in _CONFIG.items() if record[field]},
        device=record["device"] or None,
        image_size=_whole(record["image_size"]),
        train_images=_whole(record["train_images"]),
        epochs=_whole(record["epochs"]),
        metric=record["metric"],
        accuracy=float(record["accuracy_pct"]) / 100,
        eval_images=_whole(record["eval_images"]),
        train_time_ms=float(record["train_time_ms"] or math.nan),
        params=_whole(record["params"]),
        best_epoch=_whole(record["epochs_to_best"]),
    )


def _whole(text: str) -> int | None:
    return int(text) if text else None

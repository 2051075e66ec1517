"""CPU-vs-GPU figures that three course reports published, to stand beside ours.

C's are of one epoch of 49,000 training images, B states no epochs, A neither these nor images, batch size and learning
rate.  The MACs tell the image sizes that A and B leave out (28) and that C's 224 have three channels.  Devices are
named cpu and cuda alone, precisions not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from profiling import reports
from profiling.devices import BATCH_SIZE, DATASET
from profiling.rows import Row

IMAGES = 49_000
"""Of an epoch that ours are brought to."""


@dataclass(frozen=True)
class Published:
    """One row of a report."""

    report: str
    device: str
    """cpu or cuda."""
    model: str
    optimizer: str
    image_size: int
    not_stated: tuple[str, ...]
    """What of epochs, images, batch size and lr the report leaves out, in words: taken to be as ours."""
    test_accuracy: float
    """From 0 to 1."""
    train_time_ms: float


@dataclass(frozen=True)
class Beside:
    """A row of ours and a report's for the same work."""

    row: Row
    published: Published

    @property
    def epoch_ms(self) -> float:
        """Ours, for one epoch of as many images."""
        return 1000 * IMAGES / self.row.images_per_s

    @property
    def ratio(self) -> float:
        """How many times as long the report's took."""
        return self.published.train_time_ms / self.epoch_ms

    @property
    def is_reckoned(self) -> bool:
        """Whether our epoch was not timed as it stands: from timed steps, or of another number of images."""
        return self.row.estimated or self.row.images != IMAGES

    @property
    def marks(self) -> list[str]:
        """What keeps the two from comparing, in words."""
        found = [f"{', '.join(self.published.not_stated)} not stated"] if self.published.not_stated else []
        if self.row.images != IMAGES and not math.isnan(self.row.test_accuracy):
            found.append(f"our test % is after {self.row.images:,} images")
        return found


def read() -> list[Published]:
    """All rows of the reports' CPU-vs-GPU tables."""
    return [_row(figure) for figure in reports.read() if figure.table == "cpu_vs_gpu"]


def _row(figure: reports.Figure) -> Published:
    assert figure.device is not None
    stated = {
        "epochs": figure.epochs,
        "images": figure.train_images,
        "batch size": figure.config.get("batch_size"),
        "lr": figure.config.get("lr"),
    }
    return Published(
        report=figure.report,
        device=figure.device,
        model=figure.config["model"],
        optimizer=figure.config["optimizer"],
        image_size=figure.image_size or 28,
        not_stated=tuple(word for word, value in stated.items() if value is None),
        test_accuracy=figure.accuracy,
        train_time_ms=figure.train_time_ms,
    )


def beside(rows: Iterable[Row]) -> list[Beside]:
    """Each of our rows with each report's of the same model, optimizer, size and kind of device.

    What a report does not state does not tell them apart, nor does precision, which none states.
    """
    published = read()
    return [
        Beside(row, one)
        for row in rows
        if row.complete and row.dataset == DATASET and row.batch_size == BATCH_SIZE and not math.isnan(row.images_per_s)
        for one in published
        if (one.device, one.model, one.optimizer, one.image_size)
        == (row.kind, row.model, row.optimizer, row.image_size)
    ]

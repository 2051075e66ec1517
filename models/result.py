"""What a training tells: after each epoch, at its end, and when it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from models.precision import Precision

if TYPE_CHECKING:
    from sklearn.svm import SVC


class DivergedError(RuntimeError):
    """A loss stopped being a finite number."""

    def __init__(self, epoch: int, which: str, value: float) -> None:
        super().__init__(epoch, which, value)  # as they are, so that it can be pickled
        self.epoch = epoch
        self.which = which
        self.value = value

    def __str__(self) -> str:
        return f"the {self.which} loss is {self.value} in epoch {self.epoch}"


@dataclass(frozen=True)
class EpochMetrics:
    """What is known after one epoch.  A model without a loss (svm) has NaN there."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean over the images as they were trained on, while the weights moved."""
    val_loss: float
    val_accuracy: float
    """From 0 to 1."""
    epoch_time_s: float
    """Training alone, synchronised with the device; evaluation is not in it."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run is worth.  Accuracies are from 0 to 1 and belong to the epoch of the best validation."""

    val_accuracy: float
    val_loss: float
    test_accuracy: float
    """Evaluated once, at the end; nothing is chosen by it."""
    test_loss: float
    best_epoch: int
    """The first epoch with the highest validation accuracy; its weights are the model's."""
    epochs: int
    train_time_s: float
    """Sum over the epochs of their training alone."""
    precision: Precision
    device: str
    threads: int
    params: int | None
    """Trainable parameters; None for the svm."""
    macs: int | None
    """Of the svm: kernel evaluations (support vectors) × features for one image.  None for a network, whose
    multiply-accumulates follow from its shape."""
    seed: int | None
    """The seed that was used, drawn or given; None for the svm, which has nothing random."""
    fused: int | None = None
    """Of a training that was stacked with others of its shape (`models.stacked`): how many they were at most, itself
    among them.  None where it was trained alone."""


@dataclass(frozen=True)
class Fitted:
    """A trained model (a network on the CPU, in eval mode, or an SVC) and its result."""

    model: nn.Module | SVC
    result: TrainResult

"""The whole state of a training between two epochs: what it goes on from as if it had never stopped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from datasets.splits import Splits
from models import fields_read
from models.config import TrainConfig
from models.out_of_memory import is_out_of_memory
from models.precision import Precision
from models.result import DivergedError, EpochMetrics
from models.step import Step

FORMAT = 1
"""Raised whenever the state's keys change, or the weights' shapes inside where `origin` does not tell of it."""

State = dict[str, Any]
"""Tensors on the CPU and plain values: `torch.save` writes it, `torch.load(weights_only=True)` reads it back."""


class CheckpointError(ValueError):
    """A training cannot go on from this state; the message is one line."""


@dataclass
class Progress:
    """Everything that an epoch of training changes, save the process-wide random generators."""

    network: nn.Module
    step: Step
    order: torch.Generator
    """Of the images, on the CPU."""
    randomness: torch.Generator
    """Of the augmentation, on the CPU."""
    epochs: list[EpochMetrics] = field(default_factory=list)
    best_weights: dict[str, Tensor] | None = None
    """None while the network itself has them."""

    def add(
        self, train_loss: float, epoch_time_s: float, validated: Callable[[], tuple[float, float]], last: int
    ) -> None:
        """An epoch is done, the `last` of which is the last: keep what it came to, and its weights if it is the best.

        `validated` gives loss and accuracy of validation.  Raises DivergedError where a loss is not finite.
        """
        epoch = len(self.epochs) + 1
        if not math.isfinite(train_loss):
            raise DivergedError(epoch, "training", train_loss)
        val_loss, val_accuracy = validated()
        if not math.isfinite(val_loss):
            raise DivergedError(epoch, "validation", val_loss)
        self.epochs.append(EpochMetrics(epoch, train_loss, val_loss, val_accuracy, epoch_time_s))
        if self.best.epoch == epoch:
            self.best_weights = None
            if epoch < last:
                self.best_weights = {name: value.clone() for name, value in self.network.state_dict().items()}

    @property
    def best(self) -> EpochMetrics:
        """The first epoch with the highest validation accuracy."""
        return max(self.epochs, key=lambda metrics: metrics.val_accuracy)


def origin(
    config: TrainConfig, splits: Splits, precision: Precision, device: torch.device, convolutions: Sequence[str]
) -> State:
    """What must be the same for a training to go on: the config as far as it is read, the images and the numbers.

    Beyond the config the numbers depend on the memory format, which is named of float32 on a CPU (a checkpoint of it
    that names none was made in another format), on TF32, named of float32 on CUDA in the same way, and on
    `convolutions`, each a layer's name with the algorithm that calculates it in place of PyTorch's own.
    """
    since: State = {}
    if precision == "fp32" and device.type == "cpu":
        since["memory_format"] = "channels_last"
    elif precision == "fp32" and device.type == "cuda":
        since["tf32"] = False
    if convolutions:
        since["convolutions"] = ", ".join(convolutions)
    values = config.model_dump()
    read = fields_read(values)
    return {name: value for name, value in values.items() if name in read} | {
        "images": splits.sha256,
        "image_size": splits.image_size,
        "classes": len(splits.classes),
        "precision": precision,
        "device": device.type,
        **since,
    }


def seed_of(start: Mapping[str, Any]) -> int:
    """The seed that the training drew or was given.  Raises CheckpointError."""
    seed = _checked(start)["origin"].get("seed")
    if not isinstance(seed, int):
        raise CheckpointError(f"checkpoint: its seed is {seed!r}, which is no number")
    return seed


def precision_of(start: Mapping[str, Any]) -> object:
    """What the training ran in.  Raises CheckpointError."""
    return _checked(start)["origin"].get("precision")


def state_of(progress: Progress, origin: State, device: torch.device) -> State:
    """A copy that further training leaves alone."""
    state = {
        "format": FORMAT,
        "origin": origin,
        "network": progress.network.state_dict(),
        "best_weights": progress.network.state_dict() if progress.best_weights is None else progress.best_weights,
        "epochs": [dataclasses.asdict(metrics) for metrics in progress.epochs],
        "order": progress.order.get_state(),
        "randomness": progress.randomness.get_state(),
        "global": torch.get_rng_state(),  # dropout's, on a CPU
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(),
    } | progress.step.state_dict()
    copied: State = _copied(state)
    return copied


def restore(progress: Progress, origin: State, device: torch.device, start: Mapping[str, Any]) -> None:
    """Bring a training that has just been set up, and the process-wide generators, to where `start` was taken.

    Raises CheckpointError where `start` is of another training, or damaged.
    """
    theirs = _checked(start)["origin"]
    for name in [*origin, *theirs]:
        if (mine := origin.get(name)) != theirs.get(name):
            raise CheckpointError(f"checkpoint: it is of a training with {name} {theirs.get(name)!r}, not {mine!r}")
    try:
        progress.epochs = [EpochMetrics(**metrics) for metrics in start["epochs"]]
        if [metrics.epoch for metrics in progress.epochs] != list(range(1, len(progress.epochs) + 1)):
            raise ValueError("its epochs do not follow each other")
        if not 0 < len(progress.epochs) < origin["epochs"]:
            raise ValueError(f"{len(progress.epochs)} of {origin['epochs']} epochs are done")
        progress.network.load_state_dict(start["best_weights"])  # read once, so that a wrong one is found at once
        progress.best_weights = {name: value.clone() for name, value in progress.network.state_dict().items()}
        progress.network.load_state_dict(start["network"])
        progress.step.load_state_dict(start)
        progress.order.set_state(start["order"])
        progress.randomness.set_state(start["randomness"])
        torch.set_rng_state(start["global"])
        if device.type != "cpu":
            torch.get_device_module(device).set_rng_state(start["device"])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        cause = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint: it is damaged: {type(error).__name__} {cause}") from error


def _checked(start: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(start, Mapping) or not isinstance(start.get("origin"), Mapping):
        raise CheckpointError("checkpoint: it is not the state of a training")
    if start.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint: it is of format {start.get('format')!r}, not {FORMAT}")
    return start


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value

"""Trainings of one shape as one: their weights are the rows of one tensor, and each step moves all of them.

A small network's step on a GPU takes as long as its kernels take to be launched, whatever is in them.  Processes that
share a card take turns on it; networks stacked along one more axis share each launch (Wang et al., "Horizontally Fused
Training Array", MLSys 2021; Hu et al., "Hydro", OSDI 2023).

Nothing goes from one row to another: what comes out of a training among others is, up to rounding, what comes out of it
alone (`models.training.fit`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datasets.splits import Split, Splits
from datasets.transforms import AUGMENTATIONS, Transform
from models import build
from models.batches import index_batches, placed, steps_of
from models.checkpoint import Progress, State, origin, restore, state_of
from models.clock import clock
from models.config import TrainConfig
from models.evaluation import evaluate
from models.fields import can_be_stacked, own_fields
from models.graph import RecordedStep, can_be_recorded
from models.precision import Precision, full_float32, tiny_as_zero
from models.result import DivergedError, EpochMetrics, Fitted
from models.stacked_step import StackedStep, Weights, padding_of, sizes_of
from models.step import Step
from models.training import result_of, seed_of_its_own


def stack_key(config: TrainConfig, precision: Precision) -> tuple[object, ...] | None:
    """Equal for trainings that can be stacked on the same images; None for one that is trained alone.

    Rates, optimizers, schedules, weight decay, seeds and numbers of epochs may differ within a stack.
    """
    if not can_be_stacked(config) or precision == "fp16":
        return None
    own = (getattr(config, field) for field in own_fields(config.model))
    return config.model, *own, config.batch_size, config.loss, config.augment, precision


def is_stacked(state: Mapping[str, Any]) -> bool:
    """Whether this is the state of a member of a stack, which `fit` does not go on from."""
    return bool(state.get("origin", {}).get("stacked"))


@dataclass(frozen=True)
class Images:
    """All parts on the device, for all trainings on them."""

    splits: Splits
    device: torch.device
    train: Split
    val: Split
    test: Split
    transform: Transform

    @classmethod
    def of(cls, splits: Splits, device: torch.device) -> Images:
        train, val, test = (placed(part, device, "resident") for part in (splits.train, splits.val, splits.test))
        return cls(splits, device, train, val, test, Transform.of(splits, device))


class Member:
    """One training, at its beginning or at `start`, until it is put into a stack."""

    def __init__(
        self, config: TrainConfig, precision: Precision, images: Images, start: Mapping[str, Any] | None = None
    ) -> None:
        """`config` names its seed.  Raises CheckpointError as `fit` does."""
        assert config.seed is not None
        self.config, self.precision, self.images = config, precision, images
        splits, device = images.splits, images.device
        torch.manual_seed(config.seed)
        network = build(config, splits.channels, len(splits.classes), splits.image_size)
        assert isinstance(network, nn.Module)
        self.network = network.to(device)
        weights = [weight.detach().flatten() for weight in self.network.parameters()]
        self.row = Weights(torch.cat([*weights, weights[0].new_zeros(padding_of(self.network))]))
        self.place(self.row.values.detach())
        steps = config.epochs * steps_of(len(images.train), config.batch_size)
        self.step = Step(self.row, None, config, precision, device, steps)
        order = torch.Generator().manual_seed(config.seed)
        randomness = torch.Generator().manual_seed(seed_of_its_own(config.seed))
        self.progress = Progress(self.network, self.step, order, randomness)
        self.company: int = 1 if start is None else start.get("company", 1)
        """In how large a stack it was, at most."""
        self.origin = origin(config, splits, precision, device, ()) | {"stacked": True}
        if start is not None:
            restore(self.progress, self.origin, device, start)

    def place(self, values: Tensor) -> None:
        """Let the weights be these from now on: the row's, and the network's, which are parts of it."""
        self.row.values.data = values
        for weight, part in zip(self.network.parameters(), values.split(sizes_of(self.network)), strict=False):
            weight.data = part.view(weight.shape)

    @property
    def is_done(self) -> bool:
        return len(self.progress.epochs) == self.config.epochs

    def state(self) -> State:
        """A copy of where it stands, as `fit` gives its checkpoints; another stack goes on from it, `fit` does not."""
        return state_of(self.progress, self.origin, self.images.device) | {"company": self.company}

    def batches(self) -> list[Tensor]:
        """Which images each batch of the next epoch holds."""
        return index_batches(self.images.train, self.config, self.progress.order)

    def add(self, train_loss: float, epoch_time_s: float) -> EpochMetrics:
        """Evaluate behind an epoch.  Raises DivergedError."""
        validated = functools.partial(self._evaluated, self.images.val)
        self.progress.add(train_loss, epoch_time_s, validated, last=self.config.epochs)
        return self.progress.epochs[-1]

    def fitted(self) -> Fitted:
        """What came out of it, with the weights of its best epoch."""
        if self.progress.best_weights is not None:
            self.network.load_state_dict(self.progress.best_weights)
        device = self.images.device
        with tiny_as_zero(device), full_float32(device):
            tested = self._evaluated(self.images.test)
        params = sum(weight.numel() for weight in self.network.parameters())
        result = result_of(self.config, self.progress, self.precision, device, params, tested)
        result = dataclasses.replace(result, fused=self.company)
        for weight in self.network.parameters():
            weight.data = weight.data.cpu().clone()  # of its own, not a part of the stack
        return Fitted(self.network.eval(), result)

    def _evaluated(self, part: Split) -> tuple[float, float]:
        images = self.images
        return evaluate(self.network, part, images.transform, self.config.loss, self.precision, images.device)


class Stack:
    """Members of one `stack_key` and the same images, an epoch at a time."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        first = members[0]
        self.images = first.images
        self.rows = Weights(torch.stack([member.row.values.detach() for member in members]))
        for member, values in zip(members, self.rows.values.detach(), strict=True):
            member.place(values)
            member.company = max(member.company, len(members))
        steps = [member.step for member in members]
        self.step = StackedStep(steps, self.rows, first.network, first.config.loss)
        self.augment = AUGMENTATIONS[first.config.augment]
        self.randomness = [member.progress.randomness for member in members]
        self.recorded: RecordedStep | None = None
        with full_float32(self.images.device):
            if can_be_recorded(first.config, first.precision, self.images.device, len(self.images.train)):
                batch_size = len(members) * first.config.batch_size
                self.recorded = RecordedStep(
                    self.step, self.images.train, self.images.transform, self.augment, self.randomness, batch_size
                )

    def epoch(self) -> list[EpochMetrics | DivergedError]:
        """Train all for an epoch and evaluate each: what came of it, in the order of the members.

        The time is the whole stack's: each takes all of it.  A member that diverged is not to go on.
        """
        device = self.images.device
        with tiny_as_zero(device), full_float32(device):
            began = clock(device)
            loss_sum = torch.zeros(len(self.members), device=device)
            seen = 0
            for losses, images in self.losses():
                loss_sum += losses * images
                seen += images
            time_s = clock(device) - began
            means = (loss_sum / seen).tolist()
            return [_added(member, mean, time_s) for member, mean in zip(self.members, means, strict=True)]

    def losses(self) -> Iterator[tuple[Tensor, int]]:
        """Each step as it is taken: its losses, and how many images each member saw."""
        for own in zip(*(member.batches() for member in self.members), strict=True):
            indices = torch.cat(own)
            if self.recorded is not None:
                yield self.recorded(indices), len(own[0])
            else:
                train = self.images.train
                pixels = self.images.transform(train.images[indices], self.augment, *self.randomness)
                yield self.step(pixels, train.labels[indices]), len(own[0])


def _added(member: Member, train_loss: float, time_s: float) -> EpochMetrics | DivergedError:
    try:
        return member.add(train_loss, time_s)
    except DivergedError as error:
        return error

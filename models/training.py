"""How a model is trained: one run from a config to its result.  No Ray here, and no table."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from datasets.splits import Split, Splits
from datasets.transforms import AUGMENTATIONS, Transform
from models import allocator, build, is_network
from models.batches import batches, index_batches, placed, steps_of
from models.checkpoint import CheckpointError, Progress, origin, precision_of, restore, seed_of, state_of
from models.clock import clock
from models.config import TrainConfig
from models.evaluation import evaluate
from models.graph import RecordedStep, can_be_recorded
from models.precision import Precision, as_before, choose_precision, full_float32, memory_format, tiny_as_zero
from models.result import EpochMetrics, Fitted, TrainResult
from models.step import Step
from models.svm_training import fit_svm
from models.taps import LiveNetwork

Report = Callable[[EpochMetrics], None]
Checkpoint = Callable[[int, Callable[[], dict[str, Any]]], None]
"""Called with the epoch that is done and a function that gives the state of the training; see `fit`."""


def fit(
    config: TrainConfig,
    splits: Splits,
    device: torch.device,
    report: Report,
    checkpoint: Checkpoint | None = None,
    start: Mapping[str, Any] | None = None,
) -> Fitted:
    """Train one model; `report` is called after each epoch.

    With a seed, the same config in the same precision, on the same CPU with the same number of threads, gives the same
    numbers to the last digit, whatever ran before in this process; on the same kind of GPU it is meant to with
    `deterministic`, and else gives them up to rounding.  On CUDA, float32 is without TF32:
    `models.precision.full_float32`.  While a network is trained on a CPU, numbers below 1.2e-38 count as 0, in `report`
    and `checkpoint` too: `models.precision.tiny_as_zero`, which says for which threads; and this process keeps from
    then on the memory that it frees: `models.allocator.give_back`.

    `checkpoint(epoch, state)` is called before `report` after each epoch of a network but the last.  `state()`, called
    before it returns, gives the state of the training: tensors on the CPU and plain values, which
    `torch.load(weights_only=True)` reads.  With it as `start` the training goes on behind that epoch, and what comes
    out is (times aside) what comes out of an undisturbed run, to the last digit where the same config gives the same
    numbers to the last digit; epochs done are not reported again.  Where the config leaves the precision to the device,
    it goes on in the one it began in, if this device has it.

    Raises DivergedError where a training or validation loss is not finite (the test loss decides nothing), ModelError
    for fp16 on a CPU and for an svm with one class to learn, CheckpointError for a `start` that is damaged, of another
    config, other images or another precision, or given to the svm, which has none.  `models.check` says beforehand
    whether a network can take such images; here it would fail inside PyTorch.
    """
    seed = config.seed
    if seed is None:
        seed = secrets.randbits(31) if start is None else seed_of(start)
    if not is_network(config.model):
        if start is not None:
            raise CheckpointError(f"checkpoint: {config.model} is trained in one go and has none")
        torch.manual_seed(seed)
        return fit_svm(build(config, splits.channels, len(splits.classes), splits.image_size), splits, report)
    with tiny_as_zero(device), full_float32(device), _determinism(config.deterministic):
        torch.manual_seed(seed)
        network = build(config, splits.channels, len(splits.classes), splits.image_size)
        assert isinstance(network, nn.Module)
        own = config.model_copy(update={"seed": seed})
        return _fit_network(network, own, splits, device, report, checkpoint, start)


def _fit_network(
    network: nn.Module,
    config: TrainConfig,
    splits: Splits,
    device: torch.device,
    report: Report,
    checkpoint: Checkpoint | None,
    start: Mapping[str, Any] | None,
) -> Fitted:
    training = prepared(network, config, splits, device, start)
    _train(training, report, checkpoint)
    training.step.close()
    if training.progress.best_weights is not None:
        training.network.load_state_dict(training.progress.best_weights)
    tested = training.evaluated(training.test)
    result = result_of(config, training.progress, training.precision, device, training.params, tested)
    return Fitted(training.live.restore().to(memory_format=torch.contiguous_format).eval(), result)


@dataclass(frozen=True)
class _Training:
    """A network on its device, with all that its epochs need."""

    config: TrainConfig
    device: torch.device
    precision: Precision
    network: nn.Module
    live: LiveNetwork
    params: int
    """Trainable parameters of the whole network."""
    transform: Transform
    val: Split
    test: Split
    step: Step
    progress: Progress
    origin: dict[str, Any]
    """What a checkpoint names as the training that it is of."""
    losses: Callable[[], Iterator[tuple[torch.Tensor, int]]]
    """Goes once through the images of training: `_epoch_of`."""

    def evaluated(self, part: Split) -> tuple[float, float]:
        """Loss and accuracy."""
        return evaluate(self.network, part, self.transform, self.config.loss, self.precision, self.device)


def prepared(
    network: nn.Module, config: TrainConfig, splits: Splits, device: torch.device, start: Mapping[str, Any] | None
) -> _Training:
    """Where it stood at `start`, or at its beginning."""
    assert config.seed is not None
    if device.type == "cpu":
        allocator.keep_freed_memory()
    as_begun = config if start is None else as_before(config, precision_of(start), device)
    precision = choose_precision(as_begun, device)
    params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    images = len(splits.train)
    live = LiveNetwork(network, config, splits.channels, splits.image_size, device, precision=precision, images=images)
    network = network.to(device)
    network = network.to(memory_format=memory_format(precision, device))
    transform = Transform.of(splits, device)
    train, val, test = (placed(part, device, config.input) for part in (splits.train, splits.val, splits.test))
    steps = config.epochs * steps_of(len(train), config.batch_size)
    step = Step(network, live.idle, config, precision, device, steps)
    order = torch.Generator().manual_seed(config.seed)
    randomness = torch.Generator().manual_seed(seed_of_its_own(config.seed))
    progress = Progress(network, step, order, randomness)
    own_origin = origin(config, splits, precision, device, live.fast)
    if start is not None:
        restore(progress, own_origin, device, start)
    losses = _epoch_of(step, train, transform, config, order, randomness)
    return _Training(
        config, device, precision, network, live, params, transform, val, test, step, progress, own_origin, losses
    )


def _train(training: _Training, report: Report, checkpoint: Checkpoint | None) -> None:
    """The epochs that are left; the best one's weights are kept."""
    config, device, network, progress = training.config, training.device, training.network, training.progress
    for epoch in range(len(progress.epochs) + 1, config.epochs + 1):
        network.train()
        train_loss, epoch_time_s = _mean_and_time(training.losses(), device)
        progress.add(train_loss, epoch_time_s, lambda: training.evaluated(training.val), last=config.epochs)
        if checkpoint is not None and epoch < config.epochs:
            checkpoint(epoch, lambda: state_of(progress, training.origin, device))
        report(progress.epochs[-1])


def seed_of_its_own(seed: int) -> int:
    """Another for the augmentation: a hash, since of a seed PyTorch's generator on a CPU takes the lower 32 bits alone.

    With the same ones it would draw what the order of images and dropout draw.
    """
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def _epoch_of(
    step: Step,
    train: Split,
    transform: Transform,
    config: TrainConfig,
    order: torch.Generator,
    randomness: torch.Generator,
) -> Callable[[], Iterator[tuple[torch.Tensor, int]]]:
    """What goes once through the images: each step as it is taken, its loss and its number of images."""
    augment = AUGMENTATIONS[config.augment]
    recorded = None
    if can_be_recorded(config, step.precision, step.device, len(train)):
        recorded = RecordedStep(step, train, transform, augment, [randomness], config.batch_size)

    def losses() -> Iterator[tuple[torch.Tensor, int]]:
        if recorded is not None:
            for indices in index_batches(train, config, order):
                yield recorded(indices), len(indices)
        else:
            for images, labels in batches(train, config, step.device, order):
                yield step(transform(images, augment, randomness), labels), len(labels)

    return losses


def result_of(
    config: TrainConfig,
    progress: Progress,
    precision: Precision,
    device: torch.device,
    params: int,
    tested: tuple[float, float],
) -> TrainResult:
    """`tested` is the loss and the accuracy on the test part, with the best epoch's weights."""
    test_loss, test_accuracy = tested
    return TrainResult(
        val_accuracy=progress.best.val_accuracy,
        val_loss=progress.best.val_loss,
        test_accuracy=test_accuracy,
        test_loss=test_loss,
        best_epoch=progress.best.epoch,
        epochs=config.epochs,
        train_time_s=sum(metrics.epoch_time_s for metrics in progress.epochs),
        precision=precision,
        device=device.type,
        threads=torch.get_num_threads(),
        params=params,
        macs=None,
        seed=config.seed,
    )


def _mean_and_time(losses: Iterable[tuple[torch.Tensor, int]], device: torch.device) -> tuple[float, float]:
    """The mean loss over all images, and the seconds that it took to go through them."""
    began = clock(device)
    loss_sum = torch.zeros((), device=device)
    seen = 0
    for loss, images in losses:
        loss_sum += loss * images
        seen += images
    time_s = clock(device) - began
    return float(loss_sum) / seen, time_s


@contextlib.contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """PyTorch's process-wide switch, put back afterwards: the next trial in this process may want another."""
    before = torch.get_deterministic_debug_mode()
    if wanted:  # an older PyTorch refuses products on a card without; read at the first one
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error" if wanted else "default")  # the other way imports a compiler
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)

"""How a model is trained: one run from a config to its result.  No Ray here, and no table."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, Dataset

from datasets.splits import Split, Splits
from datasets.transforms import AUGMENTATIONS, Transform
from models import build
from models.config import ModelError, TrainConfig
from models.taps import silence_unwritten_gradients

if TYPE_CHECKING:
    from sklearn.svm import SVC

Precision = Literal["fp64", "fp32", "bf16", "fp16"]


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


@dataclass(frozen=True)
class Fitted:
    """A trained model (a network on the CPU, in eval mode, or an SVC) and its result."""

    model: nn.Module | SVC
    result: TrainResult


Report = Callable[[EpochMetrics], None]


def fit(config: TrainConfig, splits: Splits, device: torch.device, report: Report) -> Fitted:
    """Train one model; `report` is called after each epoch.

    With a seed, the same config on the same CPU with the same number of threads gives the same numbers to the last
    digit, whatever ran before in this process.

    Raises DivergedError where a training or validation loss is not finite (the test loss decides nothing), ModelError
    for fp16 on a CPU and for an svm with one class to learn.  `models.check` says beforehand whether a network can take
    such images; here it would fail inside PyTorch.
    """
    seed = secrets.randbits(31) if config.seed is None else config.seed
    torch.manual_seed(seed)
    model = build(config, splits.channels, len(splits.classes), splits.image_size)
    if not isinstance(model, nn.Module):
        return _fit_svm(model, splits, report)
    with _determinism(config.deterministic):
        return _fit_network(model, config.model_copy(update={"seed": seed}), splits, device, report)


# --- networks -----------------------------------------------------------------------------------------------------


def _fit_network(
    network: nn.Module, config: TrainConfig, splits: Splits, device: torch.device, report: Report
) -> Fitted:
    assert config.seed is not None
    precision = choose_precision(config, device)
    network = network.to(device)
    if precision != "fp32":
        network = network.to(memory_format=torch.channels_last)  # what the reduced-precision convolutions work in
    if precision == "bf16" and device.type == "cpu":
        silence_unwritten_gradients(network, splits.channels, splits.image_size)
    transform = Transform.of(splits, device)
    train, val, test = (_placed(part, device, config.input) for part in (splits.train, splits.val, splits.test))
    step = _Step(network, config, precision, device, steps=config.epochs * _steps(len(train), config.batch_size))
    order = torch.Generator().manual_seed(config.seed)
    randomness = torch.Generator().manual_seed((config.seed + 2**62) % 2**63)  # a stream of its own

    best: EpochMetrics | None = None
    best_weights: dict[str, Tensor] | None = None
    train_time_s = 0.0
    for epoch in range(1, config.epochs + 1):
        network.train()
        start = _clock(device)
        loss_sum = torch.zeros((), device=device)
        seen = 0
        for images, labels in _batches(train, config, device, order):
            loss = step(transform(images, AUGMENTATIONS[config.augment], randomness), labels)
            loss_sum += loss * len(labels)
            seen += len(labels)
        epoch_time_s = _clock(device) - start
        train_time_s += epoch_time_s

        train_loss = float(loss_sum) / seen
        if not math.isfinite(train_loss):
            raise DivergedError(epoch, "training", train_loss)
        val_loss, val_accuracy = evaluate(network, val, transform, config.loss, precision, device)
        if not math.isfinite(val_loss):
            raise DivergedError(epoch, "validation", val_loss)
        metrics = EpochMetrics(epoch, train_loss, val_loss, val_accuracy, epoch_time_s)
        if best is None or metrics.val_accuracy > best.val_accuracy:
            best = metrics
            best_weights = None
            if epoch < config.epochs:
                best_weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        report(metrics)

    assert best is not None
    if best_weights is not None:
        network.load_state_dict(best_weights)
    test_loss, test_accuracy = evaluate(network, test, transform, config.loss, precision, device)
    result = TrainResult(
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        test_accuracy=test_accuracy,
        test_loss=test_loss,
        best_epoch=best.epoch,
        epochs=config.epochs,
        train_time_s=train_time_s,
        precision=precision,
        device=device.type,
        threads=torch.get_num_threads(),
        params=sum(p.numel() for p in network.parameters() if p.requires_grad),
        macs=None,
        seed=config.seed,
    )
    return Fitted(network.cpu().to(memory_format=torch.contiguous_format).eval(), result)


class _Step:
    """One step of training: forward, backward, optimizer, schedule.  Returns the batch's mean loss, on the device."""

    def __init__(
        self, network: nn.Module, config: TrainConfig, precision: Precision, device: torch.device, steps: int
    ) -> None:
        self.network = network
        self.loss = LOSSES[config.loss]
        self.precision: Precision = precision
        self.device = device
        self.optimizer = _optimizer(network, config)
        self.schedule = _schedule(self.optimizer, config, steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            logits = self.network(_memory_format(images, self.precision))
        loss = self.loss(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.schedule is not None:
            self.schedule.step()
        return loss.detach()


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = network.parameters()
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov,
            fused=True,
        )  # fmt: skip
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, config.lr, weight_decay=config.weight_decay, fused=True)


def _schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> LRScheduler | None:
    if config.lr_schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    if config.lr_schedule == "onecycle":
        return OneCycleLR(optimizer, max_lr=config.lr, total_steps=steps, cycle_momentum=False)
    return None


def _manual_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    chosen = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return (logits.logsumexp(1) - chosen).mean()


def _mse(logits: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(logits.softmax(1), F.one_hot(labels, logits.shape[1]).to(logits.dtype))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "manual": _manual_cross_entropy,
    "mse": _mse,
}
"""(float logits N×classes, labels N) -> the mean over the batch."""


@torch.no_grad()
def evaluate(
    network: nn.Module, part: Split, transform: Transform, loss: str, precision: Precision, device: torch.device
) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) over a part, in large batches, in the precision of training."""
    network.eval()
    batch_size = min(max(32, 800_000 // transform.image_size**2), 1024)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in zip(part.images.split(batch_size), part.labels.split(batch_size), strict=True):
        images, labels = images.to(device), labels.to(device)
        with autocast(precision, device):
            logits = network(_memory_format(transform(images), precision)).float()
        loss_sum += LOSSES[loss](logits, labels) * len(labels)
        correct += (logits.argmax(1) == labels).sum()
    return float(loss_sum) / len(part), int(correct) / len(part)


# --- batches ------------------------------------------------------------------------------------------------------


def _placed(part: Split, device: torch.device, where: str) -> Split:
    """The part on the device, or as it is where batches are streamed.  On a CPU nothing is copied."""
    if where == "stream":
        return part
    return replace(part, images=part.images.to(device), labels=part.labels.to(device))


def _batches(
    part: Split, config: TrainConfig, device: torch.device, order: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """The part once, in an order drawn from `order` on the CPU: the same on every device, resident or streamed."""
    steps = _steps(len(part), config.batch_size)
    indices = list(torch.randperm(len(part), generator=order).split(config.batch_size))[:steps]
    if config.input == "resident":
        for batch in indices:
            on_device = batch.to(part.labels.device)
            yield part.images[on_device], part.labels[on_device]
        return
    loader = DataLoader(
        _Streamed(part),
        sampler=indices,
        batch_size=None,
        pin_memory=config.pin_memory and device.type == "cuda",
        generator=torch.Generator(),  # or it draws from the one that dropout draws from
    )
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


class _Streamed(Dataset[tuple[Tensor, Tensor]]):
    """A whole batch an item, so that a DataLoader gathers it at once."""

    def __init__(self, part: Split) -> None:
        self.part = part

    def __getitem__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self.part.images[batch], self.part.labels[batch]

    def __len__(self) -> int:
        return len(self.part)


def _steps(images: int, batch_size: int) -> int:
    """Batches in an epoch.  A last one of a single image is left out: batch norm is undefined on it."""
    full, rest = divmod(images, batch_size)
    return full + (rest > 1 or (rest == 1 and full == 0))


# --- device and precision -----------------------------------------------------------------------------------------


def choose_precision(config: TrainConfig, device: torch.device) -> Precision:
    """What `amp` means on this device.

    auto: bf16 on CUDA from compute capability 8 and on CPUs with AVX512-BF16 or AMX, fp16 on older CUDA, else fp32.
    Raises ModelError for fp16 on a CPU, where nothing is gained by it.
    """
    if not config.amp:
        return "fp32"
    if config.amp_dtype == "bf16":
        return "bf16"
    if config.amp_dtype == "fp16":
        if device.type == "cpu":
            raise ModelError("amp_dtype: fp16 needs a GPU; on a CPU give auto or bf16")
        return "fp16"
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"
    return "fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """torch.autocast in this precision; switched off for fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def _memory_format(images: Tensor, precision: Precision) -> Tensor:
    return images if precision == "fp32" else images.contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """PyTorch's process-wide switch, put back afterwards: the next trial in this process may want another."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # PyTorch asks for it before it multiplies on CUDA
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def _clock(device: torch.device) -> float:
    """Monotonic seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


# --- the svm ------------------------------------------------------------------------------------------------------


def check_classes(splits: Splits) -> None:
    """Raise ModelError where an svm has one class alone to learn."""
    if len(splits.train.labels.unique()) < 2:
        raise ModelError(f"svm: the {len(splits.train):,} training images are of one class")


def _fit_svm(svc: SVC, splits: Splits, report: Report) -> Fitted:
    """Fit on the CPU in one go, which counts as one epoch.  It has no loss: NaN."""
    check_classes(splits)
    transform = Transform.of(splits, torch.device("cpu"))
    train, val, test = (transform(part.images).flatten(1).numpy() for part in (splits.train, splits.val, splits.test))
    start = time.perf_counter()
    svc.fit(train, splits.train.labels.numpy())
    train_time_s = time.perf_counter() - start
    val_accuracy = float(svc.score(val, splits.val.labels.numpy()))
    report(EpochMetrics(1, math.nan, math.nan, val_accuracy, train_time_s))
    result = TrainResult(
        val_accuracy=val_accuracy,
        val_loss=math.nan,
        test_accuracy=float(svc.score(test, splits.test.labels.numpy())),
        test_loss=math.nan,
        best_epoch=1,
        epochs=1,
        train_time_s=train_time_s,
        precision="fp64",
        device="cpu",
        threads=1,
        params=None,
        macs=int(svc.n_support_.sum()) * train.shape[1],
        seed=None,
    )
    return Fitted(svc, result)

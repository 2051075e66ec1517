"""One config trained in this process, without Ray, and its model written to a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

import models
from datasets import load_splits
from models import TrainConfig, weights
from models.precision import as_before, tiny_as_zero
from models.result import EpochMetrics, TrainResult
from models.training import fit
from profiling.options import MOST_THREADS
from tune_jobs.device import choose_device
from tune_jobs.errors import UsageError
from tune_jobs.results.atomic import check_output, replacing
from tune_jobs.results.best import Config


def train_one(
    config: Config, data_dir: Path | None, output: Path, say: Callable[[str], None], *, is_beside: bool
) -> TrainResult:
    """Train, write the model to `output`, and say how it went, an epoch a line.

    `is_beside`: whether that is where the weights of a run's best config are, which those of other images are not.

    It computes with the threads and the device that the config's resources name, and, on the same kind of device, in
    the precision that its result names where this machine has it, so that the numbers are those of the search; without
    them, with all this machine has.

    Raises UsageError where the output cannot be written, DataError, ModelError, and DivergedError.
    """
    check_output(output)
    train_config = TrainConfig(**config.train)
    with tiny_as_zero(torch.device("cpu")):  # PyTorch starts its threads for it, and they compute the training too
        splits = load_splits(config.dataset, data_dir)
    models.check(train_config, splits.channels, len(splits.classes), splits.image_size, len(splits.train))
    if config.data_sha256 not in (None, splits.sha256):
        if is_beside:
            raise UsageError("these are not the images that the config was chosen on; give --output for its weights")
        say("note: these are not the images that the config was chosen on")
    if config.resources is not None:
        if config.resources.threads > MOST_THREADS:
            raise UsageError(f"resources.cpu: {config.resources.cpu:g}: at most {MOST_THREADS} threads in one process")
        torch.set_num_threads(config.resources.threads)
    device = choose_device(1 if config.resources is None else config.resources.gpu)
    recorded_precision = config.result.get("precision")
    is_same_device = config.result.get("device") == device.type
    as_run = as_before(train_config, recorded_precision, device) if is_same_device else train_config

    if config.resources is not None and config.resources.gpu and device.type == "cpu":
        say(f"note: the config asks for gpu {config.resources.gpu}, and PyTorch sees none here: it trains on the CPU")
    threads = torch.get_num_threads()
    on = f"{device.type}, {threads} thread{'s' * (threads > 1)}"
    say(f"training {train_config.model} on {len(splits.train):,} images, {on}")
    with replacing(output) as path:  # first, so that a place that cannot be written is known before the training
        fitted = fit(as_run, splits, device, lambda metrics: say(_epoch_line(metrics)))
        weights.save(fitted.model, train_config, splits.preparation, path)
    result = fitted.result
    say(
        f"validation accuracy {result.val_accuracy:.4%} (epoch {result.best_epoch}), "
        f"test accuracy {result.test_accuracy:.4%}, {result.train_time_s:.1f} s of training, {result.precision}"
    )
    recorded = config.result.get("val_accuracy")
    if isinstance(recorded, float):
        say(_compared(result, recorded, config))
    say(f"model: {output}")
    return result


def _compared(result: TrainResult, recorded: float, config: Config) -> str:
    """What came out beside what the search has recorded, with the reasons that are known for a difference."""
    same = "the same as" if result.val_accuracy == recorded else f"not the {recorded:.4%}"
    precision, fused = config.result.get("precision"), config.result.get("fused")
    other = "" if precision in (None, result.precision) else f", which ran in {precision}"
    if fused and result.val_accuracy != recorded:
        other += f", where {fused} were trained as one and rounded in another order"
    return f"that is {same} in the search{other}"


def _epoch_line(metrics: EpochMetrics) -> str:
    loss = (
        ""
        if math.isnan(metrics.train_loss)
        else f"train loss {metrics.train_loss:.4f}, val loss {metrics.val_loss:.4f}, "
    )
    return f"epoch {metrics.epoch}: {loss}val accuracy {metrics.val_accuracy:.2%}, {metrics.epoch_time_s:.1f} s"

"""What runs in a Ray worker: one config is trained, and every epoch reported.

Messages to the driver are EpochMetrics as dicts; the last one has the TrainResult under `result` besides.  A trial that
diverged says so with `failure` and `reason`, and a `val_accuracy` that is NaN, without which Tune refuses a message.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from ray import tune

from datasets import Splits
from models import TrainConfig, is_network
from models.training import DivergedError, EpochMetrics, fit
from tune_jobs.device import choose_device
from tune_jobs.results.ledger import fold_of

# Read by Ray in this process when a reused worker takes its next trial: how long the last one may take to end.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")

TRIAL_KEY = "trial"
"""Beside the fields of TrainConfig, Ray's config holds the trial's id in the ledger."""


def run_trial(config: dict[str, Any], splits: Sequence[Splits]) -> None:
    """Train one trial on the splits of its repeat.

    A diverged one is reported as such; any other error is left to Ray, which retries.
    """
    fold = fold_of(config[TRIAL_KEY]) or 0
    own_splits = splits[min(fold, len(splits) - 1)]
    asked = {key: value for key, value in config.items() if key != TRIAL_KEY}
    resources = tune.get_context().get_trial_resources().required_resources
    torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
    device = choose_device(resources.get("GPU", 0))
    try:
        train_config = TrainConfig(**asked)
        last = train_config.epochs if is_network(train_config.model) else 1
        held: list[EpochMetrics] = []
        fitted = fit(train_config, own_splits, device, lambda metrics: _report(metrics, last, held))
    except DivergedError as error:
        tune.report({"val_accuracy": math.nan, "failure": "diverged", "reason": str(error), "done": True})
        return
    finally:
        gc.collect()  # the next trial in this process starts with the memory of this one
        if device.type == "cuda":
            torch.cuda.empty_cache()
    tune.report(dataclasses.asdict(held[0]) | {"result": dataclasses.asdict(fitted.result), "done": True})


def _report(metrics: EpochMetrics, last: int, held: list[EpochMetrics]) -> None:
    """Report an epoch; the last one waits for the result, so that no scheduler stops a trial that has done its work."""
    if metrics.epoch < last:
        tune.report(dataclasses.asdict(metrics))
    else:
        held.append(metrics)

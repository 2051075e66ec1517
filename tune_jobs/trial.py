"""What runs in a Ray worker: one config is trained, and every epoch reported.

Messages to the driver are dicts with one of the keys `epoch` (EpochMetrics), `result` (TrainResult) and `failure`, and
`val_accuracy`, without which Tune refuses them.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
from typing import Any

import torch
from ray import tune

from datasets import Splits
from models import TrainConfig
from models.training import DivergedError, EpochMetrics, fit
from tune_jobs.device import choose_device

# Read by Ray in this process when a reused worker takes its next trial: how long the last one may take to end.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")

TRIAL_KEY = "trial"
"""Beside the fields of TrainConfig, Ray's config holds the trial's id in the ledger."""


def run_trial(config: dict[str, Any], splits: Splits) -> None:
    """Train one trial.  A diverged one is reported as such; any other error is left to Ray, which retries."""
    asked = {key: value for key, value in config.items() if key != TRIAL_KEY}
    resources = tune.get_context().get_trial_resources().required_resources
    torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
    device = choose_device(resources.get("GPU", 0))
    try:
        fitted = fit(TrainConfig(**asked), splits, device, _report)
    except DivergedError as error:
        tune.report({"val_accuracy": math.nan, "failure": "diverged", "reason": str(error)})
        return
    finally:
        gc.collect()  # the next trial in this process starts with the memory of this one
        if device.type == "cuda":
            torch.cuda.empty_cache()
    result = dataclasses.asdict(fitted.result)
    tune.report({"val_accuracy": result["val_accuracy"], "result": result})


def _report(metrics: EpochMetrics) -> None:
    tune.report(dataclasses.asdict(metrics))

"""What runs in a Ray worker: one config is trained, and every epoch reported.

The first message to the driver says where it runs.  Those that follow are EpochMetrics as dicts; the last one has the
TrainResult under `result` besides.  A trial that failed in a way that it knows says so with `failure` (a class of
`tune_jobs.failures`), `reason`, and `main_memory`, whether it was that which ran out.  `refused` says why it does not
go on from a checkpoint.  A message without an epoch has a `val_accuracy` that is NaN, without which Tune refuses it.
Each says `where`: node and cards.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from datasets import Splits
from datasets.reasons import is_no_room
from models import ModelError, TrainConfig, allocator, can_be_stacked, is_network, weights
from models.checkpoint import CheckpointError
from models.out_of_memory import is_of_main_memory, is_out_of_memory
from models.result import DivergedError, EpochMetrics, Fitted
from models.training import Checkpoint, Report, fit
from tune_jobs.checkpoints import Checkpoints
from tune_jobs.device import Place
from tune_jobs.failures import STORE_PAUSE_S
from tune_jobs.fusing import DEATHS, AgainError, FuserLostError, Fusing
from tune_jobs.resources import Fuse, Request
from tune_jobs.results.ledger import fold_of
from tune_jobs.storage import StoreError

# Read by Ray in this process when a reused worker takes its next trial: how long the last one may take to end.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")

TRIAL_KEY = "trial"
"""Key of Ray's config, beside the fields of TrainConfig: the trial's id in the ledger."""
REQUEST_KEY = "request"
"""Key of Ray's config: the Request that the trial was granted, as a dict."""
KNOWN_KEY = "known_epochs"
"""Key of Ray's config: how many epochs the ledger has of the trial, and the training loss of the first."""
AWAY_KEY = "kept_from"
"""Key of Ray's config: the ids of the nodes to which the trial is not to go."""
SLOT_KEY = "slot"
"""Key of Ray's config: the number of the slot that a worker made for the trial is named by."""
OWN_KEYS = (TRIAL_KEY, REQUEST_KEY, KNOWN_KEY, AWAY_KEY, SLOT_KEY)


def run_trial(config: dict[str, Any], splits: Sequence[Splits], folder: str, keep_model: bool, fuse: Fuse) -> None:
    """Train one trial on the splits of its repeat, from its last checkpoint in `folder` if it has one there.

    A failure whose class is known here is reported; any other error is left to Ray.
    """
    fold = fold_of(config[TRIAL_KEY]) or 0
    train_config = TrainConfig(**{key: value for key, value in config.items() if key not in OWN_KEYS})
    place = Place(Request(**config[REQUEST_KEY]))
    try:
        # Before all that may fail: so it is known who shares what, and which node it was where it is broken.
        tune.report({"val_accuracy": math.nan} | _where())
        fusing = None
        if fuse and place.request.shares and can_be_stacked(train_config):
            fusing = Fusing(place.request, splits, fold, folder, fuse)
        _train(train_config, splits[min(fold, len(splits) - 1)], place, config, folder, keep_model, fusing)
    except Exception as error:
        failure, reason = _classify(error, place)
        if failure is None:
            raise
        if failure == "store_lost":
            time.sleep(STORE_PAUSE_S)  # it may be a hiccup
        told = {"failure": failure, "reason": reason, "main_memory": is_of_main_memory(error)}
        tune.report({"val_accuracy": math.nan, "done": True} | told | _where())
    finally:
        gc.collect()  # the next trial in this process starts with the memory of this one
        allocator.give_back()
        _keep_what_is_there()


@functools.cache
def _keep_what_is_there() -> None:
    """What is there after the first trial stays; to go through it at every collection takes tenths of a second."""
    gc.freeze()


def _train(
    config: TrainConfig,
    splits: Splits,
    place: Place,
    asked: dict[str, Any],
    folder: str,
    keep_model: bool,
    fusing: Fusing | None,
) -> None:
    checkpoints = Checkpoints(folder, asked[TRIAL_KEY])
    told = _Told(config.epochs if is_network(config.model) else 1)
    fitted, deaths = None, 0
    while fusing is not None and deaths < DEATHS:
        try:
            fitted = _gone_on(functools.partial(fusing.fit, config), checkpoints, told, asked)
            break
        except AgainError:
            continue
        except FuserLostError:
            deaths += 1
    if fitted is None:
        place.take()
        if fusing is not None:
            config = fusing.seeded(config, None)
        alone = functools.partial(_fit_alone, config, splits, place.device)
        fitted = _gone_on(alone, checkpoints, told, asked)
    assert fitted is not None
    if keep_model:
        with tempfile.TemporaryDirectory() as scratch:
            checkpoints.write_model(_model_writer(fitted, config, splits), Path(scratch))
    result = dataclasses.asdict(fitted.result) | {"peak_memory_mib": place.peak_mib()}
    tune.report(_message(told.held[-1]) | {"result": result, "done": True})


def _fit_alone(
    config: TrainConfig,
    splits: Splits,
    device: torch.device,
    report: Report,
    checkpoint: Checkpoint,
    start: dict[str, Any] | None,
) -> Fitted | None:
    return fit(config, splits, device, report, checkpoint, start)


def _gone_on(
    train: Callable[[Report, Checkpoint, dict[str, Any] | None], Fitted | None],
    checkpoints: Checkpoints,
    told: _Told,
    asked: dict[str, Any],
) -> Fitted | None:
    """What comes of the training from the newest checkpoint that it goes on from, or from its beginning."""
    for state in checkpoints.load():
        unheard = _unheard([EpochMetrics(**metrics) for metrics in state["epochs"]], *asked[KNOWN_KEY])

        def report(metrics: EpochMetrics, unheard: list[EpochMetrics] = unheard) -> None:
            while unheard:
                told.report(unheard.pop(0))
            told.report(metrics)

        try:
            return train(report, checkpoints.save, state)
        except CheckpointError as error:  # of an older version, or in a precision not to be had here
            refused = f"{error} (of epoch {len(state['epochs'])})"
            tune.report({"val_accuracy": math.nan, "refused": refused} | _where())
    told.begin_again()
    return train(told.report, checkpoints.save, None)


def _unheard(epochs: list[EpochMetrics], known: int, loss: float | None) -> list[EpochMetrics]:
    """Those of a checkpoint behind the `known` that the ledger has: the driver died before it heard of them.

    All, where the first one's training `loss` is another: the trial began again meanwhile, where the checkpoint was of
    no use.
    """
    return epochs[known:] if known == 0 or epochs[0].train_loss == loss else list(epochs)


class _Told:
    """What the driver has heard of the epochs, the `last` of which waits for the result, so that no scheduler stops a
    trial that has done its work."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.held: list[EpochMetrics] = []
        self._epochs = 0

    def begin_again(self) -> None:
        """It is trained from its beginning, to other numbers maybe."""
        self._epochs = 0

    def report(self, metrics: EpochMetrics) -> None:
        """An epoch that had to be trained again on the way from a checkpoint is not told again."""
        if metrics.epoch >= self.last:
            self.held.append(metrics)
        elif metrics.epoch > self._epochs:
            self._epochs = metrics.epoch
            tune.report(_message(metrics))


def _message(metrics: EpochMetrics) -> dict[str, Any]:
    """`timesteps_total` is what TensorBoard counts by: epochs, not messages."""
    return dataclasses.asdict(metrics) | {"timesteps_total": metrics.epoch} | _where()


def _model_writer(fitted: Fitted, config: TrainConfig, splits: Splits) -> Any:
    return lambda path: weights.save(fitted.model, config, splits.preparation, path)


def _where() -> dict[str, Any]:
    """The node, by its address and by Ray's id, and the cards of it that Ray gave this worker."""
    context = ray.get_runtime_context()
    cards = context.get_accelerator_ids().get("GPU", [])
    return {"where": {"node": ray.util.get_node_ip_address(), "node_id": context.get_node_id(), "cards": cards}}


def _classify(error: Exception, place: Place) -> tuple[str | None, str]:
    """The class of a failure and its reason; None for one that is not known here."""
    if isinstance(error, DivergedError):
        return "diverged", str(error)
    if is_out_of_memory(error):
        return "out_of_memory", place.out_of_memory(error)
    if isinstance(error, ModelError):
        return "user_error", str(error)
    if isinstance(error, StoreError):
        return "store_lost", str(error)
    if isinstance(error, OSError) and is_no_room(error):
        return "disk_full", f"no room for its checkpoint: {error.strerror or error}"
    return None, ""

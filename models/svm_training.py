"""How the support vector machine is fitted: on the CPU, in one go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from datasets.splits import Splits
from datasets.transforms import Transform
from models.config import ModelError
from models.result import EpochMetrics, Fitted, TrainResult

if TYPE_CHECKING:
    from sklearn.svm import SVC


def check_classes(splits: Splits) -> None:
    """Raise ModelError where an svm has one class alone to learn."""
    if len(splits.train.labels.unique()) < 2:
        raise ModelError(f"svm: the {len(splits.train):,} training images are of one class")


def fit_svm(svc: SVC, splits: Splits, report: Callable[[EpochMetrics], None]) -> Fitted:
    """Fit in one go, which counts as one epoch.  It has no loss: NaN."""
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

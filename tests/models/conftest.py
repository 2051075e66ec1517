"""Small data, one thread, and one training run with all its reports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datasets import DatasetConfig, Splits, load_splits
from datasets.config import SplitSizes
from models import Model, TrainConfig, graph, stacked, training
from models.result import EpochMetrics, Fitted
from models.training import fit

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_splits() -> Callable[..., Splits]:
    """(train, val, test, image_size=8, split_seed=0) -> that many digits in each part."""

    def make(train: int, val: int, test: int, image_size: int = 8, split_seed: int = 0) -> Splits:
        sizes = SplitSizes(train=train, val=val, test=test)
        return load_splits(DatasetConfig(name="digits", image_size=image_size, split=sizes, split_seed=split_seed))

    return make


@pytest.fixture(scope="session")
def small(make_splits: Callable[..., Splits]) -> Splits:
    """60 + 20 + 20 digits of 8×8."""
    return make_splits(60, 20, 20)


@pytest.fixture(scope="session")
def tiny(make_splits: Callable[..., Splits]) -> Splits:
    """8 + 8 + 8 digits of 20×20, where no convolution of a resnet is left with a single pixel: for all networks."""
    return make_splits(8, 8, 8, image_size=20)


@pytest.fixture
def train() -> Callable[..., tuple[Fitted, list[EpochMetrics]]]:
    """(splits, **fields of TrainConfig) -> the fitted model and what was reported on the way, trained on the CPU."""

    def run(splits: Splits, **fields: Any) -> tuple[Fitted, list[EpochMetrics]]:
        reports: list[EpochMetrics] = []
        return fit(TrainConfig(**fields), splits, CPU, reports.append), reports

    return run


@pytest.fixture
def arrays() -> Callable[[Model], dict[str, np.ndarray[Any, Any]]]:
    """A model -> copies of all its numbers by name."""

    def of(model: Model) -> dict[str, np.ndarray[Any, Any]]:
        if isinstance(model, nn.Module):
            return {name: value.numpy().copy() for name, value in model.state_dict().items()}
        names = ["support_", "support_vectors_", "dual_coef_", "intercept_", "n_support_", "classes_"]
        if model.kernel != "linear":  # which is computed without
            names.append("_gamma")
        return {name: np.array(getattr(model, name)) for name in names}

    return of


@pytest.fixture
def bits(
    arrays: Callable[[Model], dict[str, np.ndarray[Any, Any]]],
) -> Callable[[tuple[Fitted, list[EpochMetrics]]], dict[str, str]]:
    """A run -> every number that came out of it, to the last digit, times left out."""

    def of(run: tuple[Fitted, list[EpochMetrics]]) -> dict[str, str]:
        fitted, reports = run
        found = {
            f"result.{name}": repr(value) for name, value in asdict(fitted.result).items() if name != "train_time_s"
        }
        for report in reports:
            numbers = {name: value for name, value in asdict(report).items() if name != "epoch_time_s"}
            found[f"epoch {report.epoch}"] = repr(numbers)
        for name, array in arrays(fitted.model).items():
            content = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
            found[f"weights.{name}"] = hashlib.sha256(content).hexdigest()
        return found

    return of


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every full batch goes through a recorded step, of one training or of a stack, and a replay runs its body; grows
    by one for each replay."""
    seen: list[int] = []

    def record(body: Callable[[], None], _: list[dict[str, Any]]) -> Callable[[], None]:
        body()  # a capture leaves no trace either

        def replay() -> None:
            seen.append(1)
            body()

        return replay

    monkeypatch.setattr(graph, "record", record)
    for module in (training, stacked):
        monkeypatch.setattr(module, "can_be_recorded", lambda *_: True)
    return seen

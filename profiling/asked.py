"""What a person wrote on the command line, by commas, as values."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
from datasets import DatasetConfig, Splits, load_splits
from models import TrainConfig
from profiling import ProfilingError, harness
from profiling.devices import PRECISIONS, Case, cases, check
from profiling.files import check_output

DATASETS = ("digits", "fashion_mnist", "mnist")
"""Those that need no path."""
STEP_REPEATS = 5
"""Of --steps, where no number is given."""


def comma_words(option: str, text: str) -> list[str]:
    """The words, each once, in their order."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ProfilingError(f"{option} {text!r}: is not a list by commas")
    return list(dict.fromkeys(words))


def comma_choices(option: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    """Words, each one of those allowed."""
    words = comma_words(option, text)
    for word in words:
        if word not in allowed:
            raise ProfilingError(f"{option} {word!r}: there are {', '.join(allowed)}")
    return words


def comma_ints(option: str, text: str, least: int = 1, most: int = 2**31 - 1) -> list[int]:
    """Whole numbers from `least` to `most`."""
    values = []
    for word in comma_words(option, text):
        if not (word.isascii() and word.isdigit() and least <= int(word) <= most):
            raise ProfilingError(f"{option} {word!r}: is not a whole number from {least} to {most:,}")
        values.append(int(word))
    return values


def comma_models(text: str) -> list[TrainConfig]:
    """A config with all defaults for each model; all that are registered where none is named."""
    names = comma_choices("--models", text, tuple(models.names())) if text else models.names()
    return [TrainConfig(model=name) for name in names]


@dataclass(frozen=True)
class Benchmark:
    """The device benchmark as it was asked for."""

    models: tuple[str, ...]
    optimizers: tuple[str, ...]
    image_sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    precisions: tuple[str, ...]
    steps: int | None
    repeats: int
    dataset: str
    limit: int | None

    @property
    def cases(self) -> list[Case]:
        """A case for each combination.  Raises ProfilingError for steps of a model that has none."""
        return cases(
            self.models, self.optimizers, self.image_sizes, self.batch_sizes, self.precisions, self.steps, self.repeats
        )

    def load(self, data_dir: Path | None) -> Splits:
        """The data.  Raises DataError, and ModelError where a model cannot take it."""
        splits = load_splits(DatasetConfig(name=self.dataset, limit=self.limit), data_dir)
        check(self.cases, splits)
        return splits


def benchmark(
    *,
    models_: str,
    optimizers: str,
    image_sizes: str,
    batch_sizes: str,
    precisions: str,
    steps: int | None,
    repeats: int | None,
    dataset: str,
    limit: int | None,
) -> Benchmark:
    """What the options say.  Raises ProfilingError, one line, for what they may not."""
    if dataset not in DATASETS:
        raise ProfilingError(f"--dataset {dataset!r}: there are {', '.join(DATASETS)}")
    return Benchmark(
        models=tuple(comma_choices("--models", models_, tuple(models.names()))),
        optimizers=tuple(comma_choices("--optimizers", optimizers, ("sgd", "adam", "adamw"))),
        image_sizes=tuple(comma_ints("--image-size", image_sizes, 4, 1024)),
        batch_sizes=tuple(comma_ints("--batch-size", batch_sizes)),
        precisions=tuple(comma_choices("--precision", precisions, PRECISIONS)),
        steps=steps,
        repeats=repeats or (1 if steps is None else STEP_REPEATS),
        dataset=dataset,
        limit=limit,
    )


def contest(
    *,
    models_: str,
    optimizers: str,
    batch_sizes: str,
    lrs: str,
    epochs: int,
    dataset: str,
    limit: int,
    idle: str,
    contenders: str,
    data_dir: Path | None,
) -> tuple[list[harness.Work], list[str]]:
    """What the speed benchmark is to do, and who takes part.  Raises ProfilingError, DataError and ModelError."""
    allowed = harness.IDLE_CONTENDERS if idle else harness.CONTENDERS
    names = comma_choices("--contenders", contenders, allowed) if contenders else list(allowed)
    if idle:
        return [harness.idle(trials) for trials in comma_ints("--idle", idle, most=100_000)], names
    if dataset not in DATASETS:
        raise ProfilingError(f"--dataset {dataset!r}: there are {', '.join(DATASETS)}")
    config = DatasetConfig(name=dataset, limit=limit)
    axes: dict[str, list[Any]] = {
        "model": comma_choices("--models", models_, tuple(models.names())),
        "batch_size": comma_ints("--batch-size", batch_sizes),
        "optimizer": comma_choices("--optimizers", optimizers, ("sgd", "adam")),
        "lr": comma_rates("--lr", lrs),
    }
    words = f"{', '.join(axes['model'])} on {limit:,} images of {dataset}, {epochs} epoch{'s' * (epochs > 1)}"
    asked = {"name": dataset, "limit": limit}
    return [harness.grid(load_splits(config, data_dir), asked, axes, epochs, words)], names


def comma_rates(option: str, text: str) -> list[float]:
    """Numbers above 0."""
    values = []
    for word in comma_words(option, text):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise ProfilingError(f"{option} {word!r}: is not a number above 0")
        values.append(value)
    return values


def rows_file(asked: Path | None, what: str = "devices") -> Path:
    """Where the rows go: as asked, or a new file under runs/.  Raises ProfilingError where they cannot."""
    if asked is None:
        folder = Path("runs")
        folder.mkdir(exist_ok=True)
        return folder / f"{what}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}.parquet"
    if asked.suffix != ".parquet":
        raise ProfilingError(f"--output {asked}: the rows' file ends in .parquet; the same goes into a .csv beside it")
    check_output(asked)
    return asked

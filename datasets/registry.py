"""Where images come from: one dict from a name to the function that reads it, and their split."""

from __future__ import annotations

from pathlib import Path

from datasets.config import DataError, DatasetConfig
from datasets.own_images import folder, npz
from datasets.sources import Dataset, Source, digits, fashion_mnist, mnist
from datasets.splits import Splits, split

SOURCES: dict[str, Source] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "npz": npz,
    "folder": folder,
}


def names() -> list[str]:
    """The names of all sources."""
    return list(SOURCES)


def load(config: DatasetConfig, data_dir: Path | None = None) -> Dataset:
    """All images of a source.

    `data_dir` is where a person keeps data: IDX files, and what a relative `path` is looked for in.
    Raises DataError, one line that names what is wrong and what to do.
    """
    if config.name not in SOURCES:
        raise DataError(f"dataset.name: {config.name!r} is not a dataset; there are {', '.join(SOURCES)}")
    if config.path is not None and config.name not in ("npz", "folder"):
        raise DataError(f"dataset.path: {config.name} has no path; only npz and folder read one")
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"data directory {data_dir}: there is no such folder")
    dataset = SOURCES[config.name](config, data_dir)
    if len(dataset.classes) < 2:
        raise DataError(f"dataset {config.name}: one class alone ({dataset.classes[0]}); two are needed to tell apart")
    return dataset


def load_splits(config: DatasetConfig, data_dir: Path | None = None) -> Splits:
    """The three parts that a run trains, chooses and tests on."""
    return split(load(config, data_dir), config)

"""Where images come from: one dict from a name to the function that reads it, and their split."""

from __future__ import annotations

from pathlib import Path

from datasets.config import DataError, DatasetConfig, check_data_dir
from datasets.own_images import npz
from datasets.pictures import files_of, folder
from datasets.sources import Dataset, Source, digits, fashion_mnist, mnist
from datasets.splits import Splits, split

SOURCES: dict[str, Source] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "npz": npz,
    "folder": folder,
}


def load(config: DatasetConfig, data_dir: Path | None = None) -> Dataset:
    """All images of a source; of a folder, those that `split` by this config uses.

    `data_dir` is where a person keeps data: IDX files, and what a relative `path` is looked for in.
    Raises DataError, one line that names what is wrong and what to do.
    """
    _check(config, data_dir)
    dataset = SOURCES[config.name](config, data_dir)
    _check_classes(config, dataset.classes)
    return dataset


def count(config: DatasetConfig, data_dir: Path | None = None) -> int:
    """How many images a source has; of a folder, without opening one.  Raises DataError as `load` does."""
    if config.name != "folder":
        return len(load(config, data_dir).labels)
    _check(config, data_dir)
    files = files_of(config, data_dir)
    _check_classes(config, files.classes)
    return len(files.paths)


def _check(config: DatasetConfig, data_dir: Path | None) -> None:
    if config.name not in SOURCES:
        raise DataError(f"dataset.name: {config.name!r} is not a dataset; there are {', '.join(SOURCES)}")
    if config.path is not None and config.name not in ("npz", "folder"):
        raise DataError(f"dataset.path: {config.name} has no path; only npz and folder read one")
    check_data_dir(data_dir)


def _check_classes(config: DatasetConfig, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"dataset {config.name}: one class alone ({classes[0]}); two are needed to tell apart")


def load_splits(config: DatasetConfig, data_dir: Path | None = None) -> Splits:
    """The three parts that a run trains, chooses and tests on."""
    return split(load(config, data_dir), config)

"""In what a run's conditions are not those of a published cell.

Where a report does not state how many images or epochs it trained on, those of the experiment that ships for its table
are the ones to compare by: they were chosen to be as the report's.
"""

from __future__ import annotations

import functools

from datasets.config import SplitSizes
from profiling.reports import Figure
from tune_jobs.experiment import Experiment, load, shipped
from tune_jobs.results.report.loaded import Loaded


def marks(figure: Figure, loaded: Loaded, epochs: int | None) -> tuple[str, ...]:
    """Each in words; with any, the accuracies do not compare.  `epochs`: asked of the trial; None where it has none."""
    experiment = loaded.experiment
    found = []
    if experiment.dataset.name != figure.dataset:
        found.append(f"stand-in: {experiment.dataset.name}")
    if experiment.quick is not None:
        return (*found, str(experiment.quick))
    images = loaded.environment["images"]["train"]
    if figure.train_images is None:
        meant = _shipped(figure.name)
        if not any(_same_images(experiment, each) for each in meant):
            found.append(f"{images:,} training images, where the table's experiment takes {_in_words(meant[0])}")
    elif images != figure.train_images:
        found.append(f"{images:,} training images for {figure.train_images:,}")
    wanted = _epochs(figure)
    # Of more epochs than are stated, the first ones are read; where none are stated, there is none to stop at.
    stated = figure.epochs is not None
    if epochs is not None and wanted is not None and (epochs < wanted if stated else epochs != wanted):
        found.append(f"{epochs} epochs for {wanted}")
    size = experiment.dataset.image_size
    if figure.image_size is not None and size != figure.image_size:
        found.append(f"{size or 'own'} pixels a side for {figure.image_size}")
    return tuple(found)


def _shipped(table: str) -> tuple[Experiment, ...]:
    """The experiments that do the table again; there is one for each."""
    return tuple(each for each in _presets() if table in each.published)


@functools.cache
def _presets() -> tuple[Experiment, ...]:
    """All that ship: a fifth of a second's reading."""
    return tuple(map(load, shipped()))


def _same_images(experiment: Experiment, meant: Experiment) -> bool:
    """Whether it takes the same numbers for its parts; which data set it is, is another matter."""
    return (experiment.dataset.split, experiment.dataset.limit) == (meant.dataset.split, meant.dataset.limit)


def _in_words(meant: Experiment) -> str:
    """How many images the shipped experiment trains on; none of them has a limit."""
    split = meant.dataset.split
    if isinstance(split, SplitSizes):
        return f"{split.train:,}"
    return "nine tenths of the official ones" if isinstance(split, str) else f"{split[0]:.0%} of all"


def _epochs(figure: Figure) -> int | None:
    """As published, or as the table's experiment has them; None where they are no single number."""
    if figure.epochs is not None:
        return figure.epochs
    found = {each.train.get("epochs") for each in _shipped(figure.name)}
    return found.pop() if len(found) == 1 else None

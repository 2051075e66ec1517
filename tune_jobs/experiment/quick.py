"""An experiment scaled down, to see in minutes whether it runs and what its report looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets import DatasetConfig
from datasets.config import SplitSizes
from models import TrainConfig, is_network
from tune_jobs import space as spaces
from tune_jobs.experiment import Experiment, Quick, check, named

IMAGES = 4000
"""At most, all parts together."""
EPOCHS = 5
"""One in so many is left, and at least one."""


def scaled_down(experiment: Experiment, data_dir: Path | None) -> Experiment:
    """The experiment on a subset and for fewer epochs, named and marked so, and without a warm start.  Everything else
    stays: also what suits the full size alone, as learning rates.

    Raises UsageError where the space is wrong, DataError where the data cannot be had.
    """
    space = spaces.of(experiment)
    dataset, images, of_images = _dataset(experiment.dataset, data_dir)
    document = experiment.document()
    scaled: dict[str, Any] = {"images": images, "of_images": of_images}
    if any(is_network(name) for name in space.models()):
        home = document["space" if "epochs" in document["space"] else "train"]
        asked = home.get("epochs", TrainConfig.model_fields["epochs"].default)
        home["epochs"] = _fewer(asked)
        scaled |= {"epochs": _most(home["epochs"]), "of_epochs": _most(asked)}
        _scale_mentions(document)
    document["search"]["warm_start"] = None  # which saw other images
    described = f"{experiment.description} ({Quick.model_validate(scaled)})".strip()
    name = named(experiment.name, "-quick")
    return check(document | {"name": name, "description": described, "dataset": dataset, "quick": scaled})


def _scale_mentions(document: dict[str, Any]) -> None:
    """Epochs where points to try first and conditions name them."""
    for point in document["search"]["enqueue"]:
        if "epochs" in point:
            point["epochs"] = _fewer(point["epochs"])
    for declared in document["space"].values():
        if isinstance(declared, dict) and "epochs" in declared.get("when", {}):
            named = declared["when"]["epochs"]
            declared["when"]["epochs"] = _fewer({"choice": named if isinstance(named, list) else [named]})["choice"]


def _dataset(config: DatasetConfig, data_dir: Path | None) -> tuple[dict[str, Any], int, int]:
    """The section scaled down, the number of images that it uses, and that it used before."""
    document = config.model_dump(mode="json")
    if isinstance(config.split, SplitSizes):
        sizes = config.split.model_dump()
        before = sum(sizes.values())
        share = min(1.0, IMAGES / before)
        document["split"] = {part: max(1, math.floor(share * size)) for part, size in sizes.items()}
        return document, sum(document["split"].values()), before
    before = config.limit or datasets.count(config, data_dir)
    document["limit"] = min(before, IMAGES)
    return document, document["limit"], before


def _fewer(asked: Any) -> Any:
    """A value of `epochs`, or an axis of it, with a fifth of the epochs."""
    if not isinstance(asked, Mapping):
        return max(1, int(asked) // EPOCHS)
    scaled = dict(asked)
    for kind, values in asked.items():
        if kind in ("grid", "choice"):
            scaled[kind] = list(dict.fromkeys(_fewer(value) for value in values))
        elif kind != "when":
            low, high = (_fewer(value) for value in values)
            scaled[kind] = [low, max(low + 1, high)]
    return scaled


def _most(asked: Any) -> int:
    if not isinstance(asked, Mapping):
        return int(asked)
    return max(int(value) for kind, values in asked.items() if kind != "when" for value in values)

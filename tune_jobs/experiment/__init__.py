"""The experiment file: loaded, checked, overridden."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from datasets import DatasetConfig
from datasets.config import refuse_truth_values
from models import TrainConfig
from profiling import reports
from tune_jobs import yaml
from tune_jobs.errors import UsageError, one_line
from tune_jobs.resources import Resources
from tune_jobs.space import MOST_CONFIGS

SHIPPED = Path(__file__).parents[1] / "experiments"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names of experiments and runs: they become folder names, and must not climb out of the storage."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    _numbers = field_validator("*", mode="before")(refuse_truth_values)


OBJECTIVES = ("val_accuracy", "val_loss", "train_time_s", "params", "macs")
"""What a search may aim at: numbers of a finished trial's result."""


class Search(_Section):
    """The `search:` section."""

    method: Literal["grid", "random", "optuna"] = "grid"
    """grid: every point of the space once.  random: `trials` points drawn from it.  optuna: chosen by `sampler`."""
    trials: int | None = Field(default=None, ge=1, le=MOST_CONFIGS)
    """How many trials random and optuna run, each of another config, or all that there are.  A grid runs its points."""
    sampler: Literal["tpe", "random", "gp", "qmc", "nsga2"] = "tpe"
    """Optuna's sampler: tree-structured Parzen estimator, random, Gaussian process, quasi-Monte Carlo or NSGA-II."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """The sampler's: with one trial at a time, the same seed gives the same configs in the same order."""
    startup_trials: int = Field(default=10, ge=1)
    """Random trials before tpe and gp start to model; nsga2's population, at least 2."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at once at most; null for as many as the cluster has room for.  1 makes a seeded search repeatable.  A
    sampler that learns is asked when there is room, so that a cluster grows for it only up to what is given here."""
    objectives: dict[str, Literal["max", "min"]] = {"val_accuracy": "max"}
    """What the search aims at, and which way; several give a Pareto front."""
    enqueue: list[dict[str, Any]] = []
    """Points to try first: each gives values to fields of the space that are choices or ranges."""
    warm_start: str | None = None
    """An earlier run, by its directory or its name under the storage, whose results optuna begins with."""

    @field_validator("objectives")
    @classmethod
    def _check_objectives(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = [name for name in value if name not in OBJECTIVES]
        if unknown or not value:
            raise ValueError(f"each is one of {', '.join(OBJECTIVES)}, with max or min")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.warm_start is not None and self.method != "optuna":
            raise ValueError(f"warm_start is of method optuna; {self.method} does not learn from results")
        if self.method == "grid":
            given = [name for name in ("trials", "enqueue") if name in self.model_fields_set and getattr(self, name)]
            if given:
                raise ValueError(f"{given[0]} is of methods random and optuna; a grid runs each of its points once")
        elif self.trials is None:
            raise ValueError(f"trials is missing: how many trials {self.method} is to run")
        if self.method == "optuna" and self.sampler == "nsga2" and self.startup_trials < 2:
            raise ValueError("startup_trials is nsga2's population: give 2 or more")
        return self


class Scheduler(_Section):
    """The `scheduler:` section: early stopping by the validation accuracy after each epoch."""

    name: Literal["none", "asha", "hyperband", "median"] = "none"
    """none: every trial runs all its epochs.  asha: asynchronous successive halving (Li et al. 2018, arXiv:1810.05934).
    hyperband: the same over several brackets.  median: stops what is below the median of the others' means."""
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs that every trial gets."""
    reduction_factor: float = Field(default=3, ge=1.1, le=1000)
    """asha and hyperband: one in so many goes on at each rung; 1.5 or more, so that each has an epoch of its own."""


class Budget(_Section):
    """The `budget:` section."""

    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """So many minutes after this call began to run trials none starts, and those that run are stopped; null for no
    limit."""
    trial_minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """A trial that runs longer FAILs as a timeout, whatever it is doing; null for no limit.  One that is started again
    has as long again."""


class Quick(_Section):
    """The `quick:` section: what `search --quick` left of the experiment."""

    images: int = Field(ge=3)
    """Images used, all parts together."""
    of_images: int = Field(ge=3)
    """Images that the experiment had."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs that a trial has at most; null where no model has any."""
    of_epochs: int | None = Field(default=None, ge=1)
    """Epochs that it had."""

    def __str__(self) -> str:
        images = f"quick: {self.images:,} of {self.of_images:,} images"
        if self.of_epochs is None:
            return images
        return f"{images}, {self.epochs} of {self.of_epochs} epoch{'s' * (self.of_epochs > 1)}"


SECTIONS = ("space", "train", "search", "scheduler", "resources", "budget")
"""Those that may be left out, or empty: then they have their defaults."""


class Experiment(_Section):
    """What is asked: one experiment file, resolved."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    """Names the run too, unless --name gives another: up to 100 letters, digits, '.', '_' and '-'."""
    description: str = ""
    """One line for the list of presets."""
    dataset: DatasetConfig
    """Which images, and how they are split."""
    space: dict[str, Any] = {}
    """What the trials differ in: a training field, and a value or an axis of values for it."""
    train: dict[str, Any] = {}
    """What they have in common: a value for each training field that the space leaves alone."""
    search: Search = Search()
    """How trials are chosen from the space."""
    scheduler: Scheduler = Scheduler()
    """Early stopping by the validation accuracy after each epoch."""
    resources: Resources = Resources()
    """What each trial asks of the machine or cluster; as many run at once as fit."""
    budget: Budget = Budget()
    """Limits on time."""
    repeats: int = Field(default=1, ge=1, le=1000)
    """How often each config is trained, under seeds that count up from its own; the search is told the mean."""
    retries: int = Field(default=2, ge=0, le=100)
    """How often a trial that failed is started again, from its last checkpoint; a node's death does not count."""
    min_usable: int = Field(default=1, ge=1)
    """With fewer configs COMPLETE, in all their repeats, and with an accuracy, the search ends with exit code 3 and
    without a best.yaml."""
    keep_models: int = Field(default=1, ge=0)
    """The weights of so many of the best trials are kept, the best one's beside best.yaml."""
    loggers: list[Literal["tensorboard", "mlflow", "wandb"]] = ["tensorboard"]
    """Whom each trial's epochs and result are told to besides the ledger; mlflow and wandb are optional extras."""
    published: list[str] = []
    """Tables of published reports that this experiment does again, as D/lr_batch_grid/mnist: report, table and data
    set.  `report --published` sets them beside the run."""
    quick: Quick | None = None
    """Written by `search --quick`: by how much the experiment was scaled down."""

    @field_validator(*SECTIONS, mode="before")
    @classmethod
    def _take_empty_section(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("loggers")
    @classmethod
    def _check_loggers(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each logger once")
        return value

    @field_validator("published")
    @classmethod
    def _check_published(cls, value: list[str]) -> list[str]:
        if any(name not in reports.tables() for name in value):
            raise ValueError(f"each is one of {', '.join(reports.tables())}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.scheduler.name != "none" and len(self.search.objectives) > 1:
            raise ValueError(f"scheduler {self.scheduler.name} stops by one objective, and there are several")
        return self

    def document(self) -> dict[str, Any]:
        """As plain data; loading it gives an equal experiment."""
        return self.model_dump(mode="json")


LONGEST = 100
"""Characters of a name."""


def check_name(name: str) -> str:
    """A run's name, as it is.  Raises UsageError for one that is no plain folder name."""
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: up to 100 letters, digits, '.', '_' and '-', the first a letter or digit")
    return name


def named(name: str, ending: str) -> str:
    """The name with an ending, cut where it would be too long."""
    return name[: LONGEST - len(ending)] + ending


def shipped() -> dict[str, Path]:
    """The experiments that ship: name -> file."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """An experiment from a path, or by the name of one that ships, with `--set` overrides applied.

    Raises UsageError, one line that names the key at fault.
    """
    path = Path(name_or_path)
    if not path.is_file():
        if name_or_path not in shipped():
            what = "is a directory" if path.is_dir() else "is no plain file" if path.exists() else "no such file"
            raise UsageError(
                f"experiment {name_or_path}: {what}, and none of that name ships; there are {', '.join(shipped())}"
            )
        path = shipped()[name_or_path]
    document = yaml.read(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path}: an experiment is a mapping of keys, as in `python -m tune_jobs presets`")
    return check(override(document, overrides))


def check(document: dict[str, Any]) -> Experiment:
    """Raises UsageError where the document is not an experiment."""
    try:
        return Experiment.model_validate(document)
    except ValidationError as error:
        raise UsageError(one_line(error, Experiment)) from error


def override(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply each `KEY=V[,V…]` to a copy of the document.

    A bare key is a training field: one value fixes it, several make a grid axis.  A dotted key is a path in the
    document, and so is a bare one that is a key of the file itself (retries); it takes one value.
    """
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    for key, values in _parse(overrides).items():
        if "." in key:
            _set_path(document, key, values)
        elif key in TrainConfig.model_fields:
            for section in ("space", "train"):
                document[section] = {} if document.get(section) is None else document[section]
            space, train = document["space"], document["train"]
            if not isinstance(space, dict) or not isinstance(train, dict):
                raise UsageError("space and train: each is a mapping of training fields to values")
            home = space if key in space or len(values) > 1 else train
            train.pop(key, None)
            home[key] = values[0] if len(values) == 1 else {"grid": values}
        elif key in Experiment.model_fields:
            _set_path(document, key, values)
        else:
            raise UsageError(
                f"--set {key}: there is no such training field; the fields are {', '.join(TrainConfig.model_fields)}; "
                "a key elsewhere in the file is written with its path, as dataset.limit"
            )
    return document


def _parse(overrides: Sequence[str]) -> dict[str, list[Any]]:
    parsed: dict[str, list[Any]] = {}
    for text in overrides:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise UsageError(f"--set {text}: write KEY=VALUE or KEY=VALUE,VALUE")
        if not all(part.strip() for part in key.split(".")):
            raise UsageError(f"--set {text}: write KEY.KEY=VALUE")
        if key in parsed:
            raise UsageError(f"--set {key}: is given twice; several values are written {key}=a,b")
        parsed[key] = yaml.parse(f"[{values}]", f"--set {text}")
    return parsed


def _set_path(document: dict[str, Any], key: str, values: list[Any]) -> None:
    if len(values) != 1:
        raise UsageError(
            f"--set {key}: takes one value; only training fields, as lr=1e-3,1e-4, make a grid axis; a list is written "
            "[a, b]"
        )
    *sections, last = key.split(".")
    here = document
    for section in sections:
        inner = here.get(section)
        here[section] = dict(inner) if isinstance(inner, dict) else {}
        if inner is not None and not isinstance(inner, dict):
            raise UsageError(f"--set {key}: {section} is not a section")
        here = here[section]
    here[last] = values[0]

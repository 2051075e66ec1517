"""The experiment file: loaded, checked, overridden."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets import DatasetConfig
from models import TrainConfig
from tune_jobs import yaml
from tune_jobs.errors import UsageError, one_line
from tune_jobs.resources import Resources

SHIPPED = Path(__file__).parent / "experiments"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names of experiments and runs: they become folder names, and must not climb out of the storage."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Search(_Section):
    """The `search:` section."""

    method: Literal["grid"] = "grid"
    """grid: every point of the space once."""


class Scheduler(_Section):
    """The `scheduler:` section."""

    name: Literal["none"] = "none"
    """none: every trial runs all its epochs."""


class Budget(_Section):
    """The `budget:` section."""

    minutes: None = None
    """null: no limit on the search."""
    trial_minutes: None = None
    """null: no limit on a trial."""


class Experiment(_Section):
    """What is asked: one experiment file, resolved."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    """Names the run too, unless --name gives another."""
    description: str = ""
    """One line for the list of presets."""
    dataset: DatasetConfig
    """Which images, and how they are split."""
    space: dict[str, Any] = {}
    """Field of the training config -> a plain value or {grid: [...]}."""
    train: dict[str, Any] = {}
    """Fields of the training config that the space leaves alone."""
    search: Search = Search()
    scheduler: Scheduler = Scheduler()
    resources: Resources = Resources()
    budget: Budget = Budget()
    retries: int = Field(default=2, ge=0, le=100)
    """How often a trial whose process failed is started again."""

    def document(self) -> dict[str, Any]:
        """As plain data; loading it gives an equal experiment."""
        return self.model_dump(mode="json")


def check_name(name: str) -> str:
    """A run's name, as it is.  Raises UsageError for one that is no plain folder name."""
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: up to 100 letters, digits, '.', '_' and '-', the first a letter or digit")
    return name


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
            raise UsageError(f"experiment {name_or_path}: no such file, and of those that ship: {', '.join(shipped())}")
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
            space, train = (document.setdefault(section, {}) for section in ("space", "train"))
            if not isinstance(space, dict) or not isinstance(train, dict):
                raise UsageError("space and train: each is a mapping of training fields to values")
            home = space if key in space or len(values) > 1 else train
            train.pop(key, None)
            home[key] = values[0] if len(values) == 1 else {"grid": values}
        elif key in Experiment.model_fields and len(values) == 1:
            document[key] = values[0]
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
        if key in parsed:
            raise UsageError(f"--set {key}: is given twice; several values are written {key}=a,b")
        parsed[key] = yaml.parse(f"[{values}]", f"--set {text}")
    return parsed


def _set_path(document: dict[str, Any], key: str, values: list[Any]) -> None:
    if len(values) != 1:
        raise UsageError(f"--set {key}: takes one value; only training fields, as lr=1e-3,1e-4, make a grid axis")
    *sections, last = key.split(".")
    here = document
    for section in sections:
        inner = here.get(section)
        here[section] = dict(inner) if isinstance(inner, dict) else {}
        if inner is not None and not isinstance(inner, dict):
            raise UsageError(f"--set {key}: {section} is not a section")
        here = here[section]
    here[last] = values[0]

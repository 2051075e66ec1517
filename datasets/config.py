"""What decides which images a run sees."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator


class DataError(ValueError):
    """The data cannot be had as asked; the message is one line for the person who asked."""


def check_data_dir(data_dir: Path | None) -> None:
    """Raise DataError for a folder of data that is not there; None is none."""
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"data directory {data_dir}: there is no such folder")


def names() -> list[str]:
    """The names of all sources."""
    return ["digits", "fashion_mnist", "mnist", "npz", "folder"]


class SplitSizes(BaseModel):
    """Numbers of images in each part, drawn without overlap from all images."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    train: int = Field(ge=1)
    val: int = Field(ge=1)
    test: int = Field(ge=1)


Fraction = Annotated[float, Field(gt=0, lt=1)]
Fractions = tuple[Fraction, Fraction, Fraction]


def _check_split(value: Any) -> Any:
    if value == "official" or isinstance(value, SplitSizes):
        return value
    if isinstance(value, dict) and not any(isinstance(part, bool) for part in value.values()):
        with contextlib.suppress(ValidationError):  # the line below says what is allowed
            return SplitSizes.model_validate(value)
    if (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(part, int | float) and not isinstance(part, bool) and 0 < part < 1 for part in value)
        and abs(sum(value) - 1) < 1e-9
    ):
        return tuple(float(part) for part in value)
    raise ValueError(
        "a split is three positive fractions that sum to 1, as [0.7, 0.1, 0.2], or official, "
        "or numbers of images of at least 1, as {train: 800, val: 100, test: 1000}"
    )


SplitRule = Annotated[Fractions | Literal["official"] | SplitSizes, BeforeValidator(_check_split)]


NO_NUMBER = "true or false is no value for it"


def refuse_truth_values(value: object) -> object:
    """Of fields that are none: Python, and so pydantic, takes true for 1."""
    if isinstance(value, bool):
        raise ValueError(NO_NUMBER)
    return value


class DatasetConfig(BaseModel):
    """The `dataset:` section of an experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    _numbers = field_validator("image_size", "split_seed", "limit", mode="before")(refuse_truth_values)

    name: str
    """Which source: digits, fashion_mnist, mnist, npz or folder."""
    path: str | None = None
    """The .npz file or the folder of class folders; for npz and folder alone."""
    image_size: int | None = Field(default=None, ge=4, le=1024)
    """Pixels a side that the models see; null keeps the images' own size (28 for digits)."""
    split: SplitRule = (0.7, 0.1, 0.2)
    """Train, validation and test: fractions of all images that sum to 1; official, the published test set, with a tenth
    of the training set to choose by; or numbers of images."""
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides which image falls into which part, by its lower 32 bits; apart from the training seed."""
    limit: int | None = Field(default=None, ge=3)
    """Use this many images alone, drawn by split_seed before they are split; null uses all."""

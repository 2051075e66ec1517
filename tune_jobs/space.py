"""A declared space -> the points of a grid, each with exactly the fields that its model reads."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

import models
from models import ModelError, TrainConfig
from tune_jobs.errors import UsageError, one_line

Point = dict[str, Any]
"""Field of TrainConfig -> value."""


def axes(space: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Each field of the space with its values, checked one by one; a plain value is an axis of one.

    Raises UsageError for an unknown field, an axis that is not a grid, no values, or one value twice.
    """
    checked = {}
    for field, declared in space.items():
        values = [declared]
        if isinstance(declared, Mapping):
            if set(declared) != {"grid"} or not isinstance(declared["grid"], list):
                raise UsageError(f"space.{field}: {dict(declared)!r}: give a plain value or {{grid: [a, b, ...]}}")
            values = declared["grid"]
        elif isinstance(declared, list):
            raise UsageError(f"space.{field}: {declared!r}: several values are written {{grid: [a, b, ...]}}")
        if not values:
            raise UsageError(f"space.{field}: a grid needs at least one value")
        values = [check_value(field, value, "space") for value in values]
        for index, value in enumerate(values):
            if _key(value) in map(_key, values[:index]):
                raise UsageError(f"space.{field}: {value!r} stands in the grid twice")
        checked[field] = values
    return checked


def check_value(field: str, value: Any, where: str) -> Any:
    """The value as TrainConfig holds it (`"1e-3"` becomes 0.001).  Raises UsageError that says what is allowed."""
    if field not in TrainConfig.model_fields:
        raise UsageError(
            f"{where}.{field}: there is no such field; the fields are {', '.join(TrainConfig.model_fields)}"
        )
    if field == "model" and value not in models.names():
        raise UsageError(f"{where}.model: {value!r} is not a model; there are {', '.join(models.names())}")
    try:
        return getattr(TrainConfig(**({"model": "resnet18"} | {field: value})), field)
    except ValidationError as error:
        raise UsageError(one_line(error, TrainConfig, where)) from error


def expand(space: Mapping[str, Any], train: Mapping[str, Any]) -> list[Point]:
    """The distinct points of the grid, in the order of the file, the last axis varying fastest.

    A point holds the fields that its run reads, defaults included, in TrainConfig's order: a mixed svm and resnet18
    grid does not multiply by axes that one of them does not have.

    Raises UsageError where a field stands in both, no model is named, an axis is read by no point, or values do not
    go together.
    """
    both = [field for field in space if field in train]
    if both:
        raise UsageError(f"{both[0]} stands in both space and train")
    fixed = {field: check_value(field, value, "train") for field, value in train.items()}
    grid = axes(space)
    if "model" not in fixed | grid:
        raise UsageError(f"model: is missing from space and train; there are {', '.join(models.names())}")

    points: dict[str, Point] = {}
    read_anywhere: set[str] = set()
    for values in itertools.product(*grid.values()):
        asked = fixed | dict(zip(grid, values, strict=True))
        point = relevant(asked)
        read_anywhere |= set(point)
        points.setdefault(_key(point), point)
    for axis, several in grid.items():
        if axis not in read_anywhere and len(several) > 1:
            chosen = grid.get("model", [fixed.get("model")])
            raise UsageError(f"space.{axis}: is read by none of the trials asked for (models: {', '.join(chosen)})")
    return list(points.values())


def unread(space: Mapping[str, Any], train: Mapping[str, Any], points: list[Point]) -> list[str]:
    """Fields given one value that no point reads: harmless, but the person should know."""
    return [field for field in [*space, *train] if all(field not in point for point in points)]


def relevant(values: Mapping[str, Any]) -> Point:
    """The fields that a run with these values reads, with the values it will use.  Raises UsageError."""
    try:
        fields = models.fields_read(values)
        config = TrainConfig(**{field: value for field, value in values.items() if field in fields})
    except ValidationError as error:
        raise UsageError(one_line(error, TrainConfig)) from error
    except ModelError as error:
        raise UsageError(str(error)) from error
    return {field: getattr(config, field) for field in TrainConfig.model_fields if field in fields}


def _key(value: Any) -> str:
    """Tells values apart as Python types do: 1 and True are two things."""
    return repr(value)

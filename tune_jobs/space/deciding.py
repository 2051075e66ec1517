"""Which axes are part of a trial: a model reads some fields, a condition holds, and what decides stands before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import models
from models.config import CONDITIONS
from tune_jobs.errors import UsageError
from tune_jobs.space.axis import Axis, key


def decides(field: str, axes: tuple[Axis, ...]) -> bool:
    """Whether this field's value decides if some other axis is part of a trial."""
    return field == "model" or any(field in axis.when or field == decider(axis.field) for axis in axes)


def decider(field: str) -> str:
    """The field whose value decides whether a run reads this one."""
    return CONDITIONS[field][0] if field in CONDITIONS else "model"


def in_deciding_order(axes: tuple[Axis, ...]) -> list[Axis]:
    """The axes so that each stands after those that decide whether it is part of a trial, else in the file's order."""
    waits = {axis.field: {"model", decider(axis.field), *axis.when} - {axis.field} for axis in axes}
    left, ordered = list(axes), []
    while left:
        fields = {axis.field for axis in left}
        ready = next((axis for axis in left if not waits[axis.field] & fields), None)
        if ready is None:
            raise UsageError(f"space.{left[0].field}.when: waits for a field that can only be decided after it")
        left.remove(ready)
        ordered.append(ready)
    return ordered


def is_part(axis: Axis, asked: Mapping[str, Any]) -> bool:
    """Whether the axis is part of a trial for which these values are decided."""
    if not all(_holds(condition, asked) for condition in axis.when.items()):
        return False
    return axis.field == "model" or axis.field in models.fields_read(asked)


def _holds(condition: tuple[str, tuple[Any, ...]], asked: Mapping[str, Any]) -> bool:
    """A condition on a field that is no part of this trial does not hold."""
    field, allowed = condition
    return field in asked and key(asked[field]) in map(key, allowed)

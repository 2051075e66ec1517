"""One field of a declared space.

An axis is a plain value, `{grid: [...]}` (method grid), or `{choice: [...]}`, `{uniform: [low, high]}`,
`{loguniform: [low, high]}`, `{int: [low, high]}`, `{logint: [low, high]}` (methods random and optuna; both ends belong
to the range).  `when: {field: value or list of values, ...}` beside it makes it part of a trial only while all hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

import models
from models import TrainConfig
from tune_jobs.errors import UsageError, one_line, shown

if TYPE_CHECKING:
    import optuna

LISTS = ("grid", "choice")
REAL_RANGES = ("uniform", "loguniform")
RANGES = (*REAL_RANGES, "int", "logint")


@dataclass(frozen=True)
class Axis:
    """One field of the space, checked."""

    field: str
    kind: str
    """value, grid, choice, uniform, loguniform, int or logint."""
    values: tuple[Any, ...]
    """All of them; of a range its low and high end."""
    when: Mapping[str, tuple[Any, ...]]
    """Field -> the values with which this axis is part of a trial; all must hold."""

    @property
    def sampled(self) -> bool:
        return self.kind not in ("value", "grid")

    @property
    def count(self) -> float:
        """How many values it has; infinite for a range of real numbers."""
        if self.kind in REAL_RANGES:
            return math.inf
        return len(self.values) if self.kind not in RANGES else int(self.values[1]) - int(self.values[0]) + 1

    def every(self) -> Iterable[Any]:
        """All its values; of a range of real numbers the ends alone."""
        low, high = self.values[0], self.values[-1]
        return map(type(low), range(int(low), int(high) + 1)) if self.kind in ("int", "logint") else self.values

    def cases(self, axes: Iterable[Axis]) -> list[tuple[Any, float]]:
        """Values that tell apart which other axes are part of a trial, each with how many values it stands for.

        Of a range of whole numbers: each value within it that a condition of `axes` names stands for itself, and one
        other value for all the rest.  Of anything else: each value, for itself.
        """
        if self.kind not in ("int", "logint"):
            return [(value, 1) for value in self.values]
        named = {value for axis in axes for value in axis.when.get(self.field, ()) if self.holds(value)}
        rest = next((value for value in self.every() if value not in named), None)
        return [(value, 1) for value in sorted(named)] + ([(rest, self.count - len(named))] if rest is not None else [])

    def candidates(self, axes: Iterable[Axis]) -> list[Any]:
        """Values that stand for all when it is asked which other axes are part of a trial: of a range, its low end
        and what conditions name within it."""
        if self.kind not in RANGES:
            return list(self.values)
        named = [value for axis in axes for value in axis.when.get(self.field, ())]
        return [self.values[0], *(value for value in named if self.holds(value))]

    def holds(self, value: Any) -> bool:
        """Whether the axis can take this value."""
        if self.kind in RANGES:
            between = isinstance(value, int | float) and bool(self.values[0] <= value <= self.values[1])
            return between and (self.kind in REAL_RANGES or float(value).is_integer())
        return key(value) in map(key, self.values)

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        """A value by Optuna, or the only one."""
        low, high = self.values[0], self.values[-1]
        match self.kind:
            case "uniform" | "loguniform":
                return trial.suggest_float(self.field, low, high, log=self.kind == "loguniform")
            case "int" | "logint":
                return type(low)(trial.suggest_int(self.field, low, high, log=self.kind == "logint"))
            case "choice" | "grid":
                return trial.suggest_categorical(self.field, self.values)
        return low


LARGEST = 10**300
"""What an end of a range is below."""


def parse_axis(field: str, declared: Any, method: str) -> Axis:
    """A field of the space as the file declares it.  Raises UsageError that says what is allowed."""
    where = f"space.{field}"
    if isinstance(declared, list):
        wanted = "grid" if method == "grid" else "choice"
        raise UsageError(f"{where}: {shown(declared)}: several values are written {{{wanted}: [a, b, ...]}}")
    if not isinstance(declared, Mapping):
        return Axis(field, "value", (check_value(field, declared, "space"),), {})
    kinds = [key for key in declared if key != "when"]
    if len(kinds) != 1 or kinds[0] not in LISTS + RANGES or not isinstance(declared[kinds[0]], list):
        raise UsageError(
            f"{where}: {shown(dict(declared))}: give a plain value, or {' or '.join(LISTS)}: [a, b, ...], "
            f"or {', '.join(RANGES)}: [low, high]; and, if wanted, when: {{field: value}}"
        )
    kind = kinds[0]
    if (kind == "grid") != (method == "grid"):
        cure = "write {choice: [...]}" if kind == "grid" else "write {grid: [...]}, or search by random or optuna"
        raise UsageError(f"{where}: method {method} does not take a {kind}; {cure}")
    values = _list_values(field, declared[kind]) if kind in LISTS else _ends(field, kind, declared[kind])
    return Axis(field, kind, values, _conditions(field, declared.get("when", {})))


def _list_values(field: str, given: list[Any]) -> tuple[Any, ...]:
    if not given:
        raise UsageError(f"space.{field}: needs at least one value")
    values = [check_value(field, value, "space") for value in given]
    seen = set[str]()
    for value in values:
        if key(value) in seen:
            raise UsageError(f"space.{field}: {shown(value)} stands in it twice")
        seen.add(key(value))
    return tuple(values)


def _ends(field: str, kind: str, given: list[Any]) -> tuple[Any, Any]:
    where = f"space.{field}"
    if len(given) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in given):
        raise UsageError(f"{where}: {shown(given)}: {kind} takes two numbers, [low, high]")
    low, high = given
    if not all(abs(end) < LARGEST for end in given):
        raise UsageError(f"{where}: the ends of {kind} are below 1e300")
    if kind in ("int", "logint") and not all(isinstance(end, int) for end in given):
        raise UsageError(f"{where}: {shown(given)}: the ends of {kind} are whole numbers")
    if not low < high:
        raise UsageError(f"{where}: {shown(given)}: the low end must be below the high one")
    if kind.startswith("log") and low <= 0:
        raise UsageError(f"{where}: {shown(given)}: a log scale starts above zero")
    if kind in ("uniform", "loguniform"):
        if _is_whole(field):
            whole = "logint" if kind == "loguniform" else "int"
            raise UsageError(f"{where}: {shown(given)}: {field} takes whole numbers; write {{{whole}: [low, high]}}")
        check_value(field, low + (high - low) / math.pi, "space")  # a flag takes 0 and 1 and nothing between
        low, high = float(low), float(high)
    elif low < 0 < high:
        check_value(field, 0, "space")  # -1 may stand for no limit, and 0 for nothing
    return check_value(field, low, "space"), check_value(field, high, "space")


def _is_whole(field: str) -> bool:
    """Whether a training field takes whole numbers and no fractions."""
    known = TrainConfig.model_fields.get(field)
    kinds = () if known is None else (known.annotation, *get_args(known.annotation))
    return int in kinds and float not in kinds


def _conditions(field: str, given: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(given, Mapping):
        raise UsageError(f"space.{field}.when: {shown(given)}: write {{field: value}} or {{field: [value, ...]}}")
    conditions = {}
    for other, allowed in given.items():
        values = allowed if isinstance(allowed, list) else [allowed]
        if not values:
            raise UsageError(f"space.{field}.when.{other}: needs at least one value")
        conditions[other] = tuple(check_value(other, value, f"space.{field}.when") for value in values)
    return conditions


def check_value(field: str, value: Any, where: str) -> Any:
    """The value as TrainConfig holds it (`"1e-3"` becomes 0.001).  Raises UsageError that says what is allowed."""
    if field not in TrainConfig.model_fields:
        raise UsageError(
            f"{where}.{field}: there is no such field; the fields are {', '.join(TrainConfig.model_fields)}"
        )
    if field == "model" and value not in models.names():
        raise UsageError(f"{where}.model: {shown(value)} is not a model; there are {', '.join(models.names())}")
    try:
        return getattr(TrainConfig(**({"model": "resnet18"} | {field: value})), field)
    except ValidationError as error:
        raise UsageError(one_line(error, TrainConfig, where)) from error


def key(value: Any) -> str:
    """Tells points and values apart as Python types do: 1 and True are two things."""
    return repr(value)

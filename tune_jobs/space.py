"""A declared space -> the points of a grid, or what Optuna samples, each with exactly the fields that its model reads.

An axis is a plain value, `{grid: [...]}` (method grid), or `{choice: [...]}`, `{uniform: [low, high]}`,
`{loguniform: [low, high]}`, `{int: [low, high]}`, `{logint: [low, high]}` (methods random and optuna; both ends belong
to the range).  `when: {field: value or list of values, ...}` beside it makes it part of a trial only while all hold.
"""

from __future__ import annotations

import graphlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import models
from models import ModelError, TrainConfig
from models.config import CONDITIONS
from tune_jobs.errors import UsageError, one_line

if TYPE_CHECKING:
    import optuna

Point = dict[str, Any]
"""Field of TrainConfig -> value."""

LISTS = ("grid", "choice")
RANGES = ("uniform", "loguniform", "int", "logint")


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

    def candidates(self, axes: Iterable[Axis]) -> list[Any]:
        """Values that stand for all when it is asked which other axes are part of a trial: of a range, its low end
        and what conditions name within it."""
        if self.kind not in RANGES:
            return list(self.values)
        named = [value for axis in axes for value in axis.when.get(self.field, ())]
        return [self.values[0], *(value for value in named if self.values[0] <= value <= self.values[1])]

    def holds(self, value: Any) -> bool:
        """Whether the axis can take this value."""
        if self.kind in RANGES:
            return bool(self.values[0] <= value <= self.values[1])
        return key(value) in map(key, self.values)

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        """A value by Optuna, or the only one."""
        low, high = self.values[0], self.values[-1]
        match self.kind:
            case "uniform" | "loguniform":
                return trial.suggest_float(self.field, low, high, log=self.kind == "loguniform")
            case "int" | "logint":
                return trial.suggest_int(self.field, low, high, log=self.kind == "logint")
            case "choice" | "grid":
                return trial.suggest_categorical(self.field, self.values)
        return low


@dataclass(frozen=True)
class Space:
    """A checked space with the fixed fields beside it.  Picklable."""

    axes: tuple[Axis, ...]
    """In the order of the file."""
    fixed: Mapping[str, Any]

    def suggest(self, trial: optuna.trial.BaseTrial) -> Point:
        """One point, define-by-run: Optuna is asked for the axes that are part of this trial, and for no others.

        Raises UsageError where the values do not go together.
        """
        return relevant(self._asked(lambda axis: axis.suggest(trial)))

    def grid(self) -> list[Point]:
        """The distinct points, in the order of the file, the last axis varying fastest.

        A mixed svm and resnet18 grid does not multiply by axes that one of them does not have.
        """
        found: dict[str, tuple[list[int], Point]] = {}
        for chosen in self._combinations(list(_in_deciding_order(self.axes)), dict(self.fixed)):
            place = [axis.values.index(chosen[axis.field]) if axis.field in chosen else 0 for axis in self.axes]
            point = relevant(chosen)
            found.setdefault(key(point), (place, point))
        return [point for _, point in sorted(found.values(), key=lambda item: item[0])]

    def _combinations(self, left: list[Axis], asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """All ways to give the axes that are left their values; an axis that is no part of a trial is passed over."""
        if not left:
            yield asked
            return
        axis, *others = left
        if not _is_part(axis, asked):
            yield from self._combinations(others, asked)
            return
        for value in axis.values:
            yield from self._combinations(others, asked | {axis.field: value})

    def params(self, point: Point) -> dict[str, Any]:
        """What Optuna keeps of a point: the fields that are axes."""
        return {axis.field: point[axis.field] for axis in self.axes if axis.kind != "value" and axis.field in point}

    def check_enqueued(self, points: Iterable[Point]) -> None:
        """Raise UsageError where a point that is to be tried first is not part of what is sampled."""
        sampled = {axis.field: axis for axis in self.axes if axis.sampled}
        for field, given in (item for point in points for item in point.items()):
            where = f"search.enqueue.{field}"
            if field not in sampled:
                raise UsageError(f"{where}: is no choice and no range of the space")
            axis, value = sampled[field], check_value(field, given, "search.enqueue")
            if not axis.holds(value):
                allowed = (
                    "outside {} to {}" if axis.kind in RANGES else "none of " + ", ".join(["{}"] * len(axis.values))
                )
                raise UsageError(f"{where}: {value!r}: is {allowed.format(*axis.values)}")

    def contains(self, point: Point) -> bool:
        """Whether a trial of this space could have this config, seeds apart."""
        if not all(axis.holds(point[axis.field]) for axis in self.axes if axis.field in point):
            return False
        try:
            own = relevant(self._asked(lambda axis: point[axis.field]))
        except KeyError:  # an axis that is part of the trial, and that the config does not have
            return False
        return own | {"seed": None} == point | {"seed": None}

    def models(self) -> list[str]:
        """The names of all models that a trial may have."""
        return next((list(axis.values) for axis in self.axes if axis.field == "model"), None) or [self.fixed["model"]]

    def reachable(self) -> frozenset[str]:
        """The axes that are part of at least one possible trial."""
        deciding = {axis.field: axis.candidates(self.axes) for axis in self.axes if _decides(axis.field, self.axes)}
        found: set[str] = set()
        for values in itertools.product(*deciding.values()):
            chosen = dict(zip(deciding, values, strict=True))
            asked = self._asked(lambda axis: chosen.get(axis.field, axis.values[0]))  # noqa: B023 - called at once
            found |= set(asked)
        return frozenset(found)

    def shapes(self) -> list[Point]:
        """Points that have every model with every value, or both ends, of what decides the shape of its layers."""
        fields = ("model", "batch_size", "amp_dtype", *models.building_fields())
        axes = [axis for axis in self.axes if axis.field in fields]
        points = []
        for values in itertools.product(*(axis.values for axis in axes)):
            chosen = {axis.field: value for axis, value in zip(axes, values, strict=True)}
            points.append(relevant(self._asked(lambda axis: chosen.get(axis.field, axis.values[0]))))  # noqa: B023
        return points

    def most_epochs(self) -> int:
        """The most that a trial may be asked for."""
        default: int = self.fixed.get("epochs", TrainConfig.model_fields["epochs"].default)
        return next((max(axis.values) for axis in self.axes if axis.field == "epochs"), default)

    def _asked(self, pick: Callable[[Axis], Any]) -> dict[str, Any]:
        """The fixed fields and a value for each axis that is part of the trial."""
        asked = dict(self.fixed)
        for axis in _in_deciding_order(self.axes):
            if _is_part(axis, asked):
                asked[axis.field] = pick(axis)
        return asked


@dataclass(frozen=True)
class Points(Space):
    """A space that is a list of points."""

    points: tuple[Point, ...] = ()

    def suggest(self, trial: optuna.trial.BaseTrial) -> Point:
        return self.points[trial.suggest_categorical("point", list(range(len(self.points))))]

    def grid(self) -> list[Point]:
        return list(self.points)

    def params(self, point: Point) -> dict[str, Any]:
        return {"point": self.points.index(point)}

    def models(self) -> list[str]:
        return list(dict.fromkeys(point["model"] for point in self.points))

    def shapes(self) -> list[Point]:
        return list(self.points)

    def most_epochs(self) -> int:
        return max(int(point.get("epochs", 1)) for point in self.points)


def parse(space: Mapping[str, Any], train: Mapping[str, Any], method: str) -> Space:
    """The space of an experiment, checked whole.

    Raises UsageError that names the field at fault: unknown, in both `space` and `train`, no values, one value twice,
    a low end over the high one, a log scale through zero, a condition on an unknown or later field, a kind of axis
    that the method does not take, no model, a grid axis that no point reads.
    """
    both = [field for field in space if field in train]
    if both:
        raise UsageError(f"{both[0]} stands in both space and train")
    fixed = {field: check_value(field, value, "train") for field, value in train.items()}
    axes = tuple(_axis(field, declared, method) for field, declared in space.items())
    if "model" not in fixed and not any(axis.field == "model" for axis in axes):
        raise UsageError(f"model: is missing from space and train; there are {', '.join(models.names())}")
    _check_conditions(axes, fixed)
    checked = Space(axes, fixed)
    reachable = checked.reachable()
    for axis in axes:
        if axis.field not in reachable and axis.kind != "value":
            chosen = ", ".join(checked.models())
            raise UsageError(f"space.{axis.field}: is read by none of the trials asked for (models: {chosen})")
    if method != "grid" and not any(axis.sampled for axis in axes):
        raise UsageError(f"search.method: {method} samples, but no field of the space is a choice or a range")
    return checked


def _axis(field: str, declared: Any, method: str) -> Axis:
    where = f"space.{field}"
    if isinstance(declared, list):
        wanted = "grid" if method == "grid" else "choice"
        raise UsageError(f"{where}: {declared!r}: several values are written {{{wanted}: [a, b, ...]}}")
    if not isinstance(declared, Mapping):
        return Axis(field, "value", (check_value(field, declared, "space"),), {})
    kinds = [key for key in declared if key != "when"]
    if len(kinds) != 1 or kinds[0] not in LISTS + RANGES or not isinstance(declared[kinds[0]], list):
        raise UsageError(
            f"{where}: {dict(declared)!r}: give a plain value, or {' or '.join(LISTS)}: [a, b, ...], "
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
    for index, value in enumerate(values):
        if key(value) in map(key, values[:index]):
            raise UsageError(f"space.{field}: {value!r} stands in it twice")
    return tuple(values)


def _ends(field: str, kind: str, given: list[Any]) -> tuple[Any, Any]:
    where = f"space.{field}"
    if len(given) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in given):
        raise UsageError(f"{where}: {given!r}: {kind} takes two numbers, [low, high]")
    low, high = given
    if kind in ("int", "logint") and not all(isinstance(end, int) for end in given):
        raise UsageError(f"{where}: {given!r}: the ends of {kind} are whole numbers")
    if not low < high:
        raise UsageError(f"{where}: {given!r}: the low end must be below the high one")
    if kind.startswith("log") and low <= 0:
        raise UsageError(f"{where}: {given!r}: a log scale starts above zero")
    if kind in ("uniform", "loguniform"):
        check_value(field, low + (high - low) / math.pi, "space")  # a field of whole numbers does not take it
        low, high = float(low), float(high)
    return check_value(field, low, "space"), check_value(field, high, "space")


def _conditions(field: str, given: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(given, Mapping):
        raise UsageError(f"space.{field}.when: {given!r}: write {{field: value}} or {{field: [value, ...]}}")
    conditions = {}
    for other, allowed in given.items():
        values = allowed if isinstance(allowed, list) else [allowed]
        if not values:
            raise UsageError(f"space.{field}.when.{other}: needs at least one value")
        conditions[other] = tuple(check_value(other, value, f"space.{field}.when") for value in values)
    return conditions


def _check_conditions(axes: tuple[Axis, ...], fixed: Mapping[str, Any]) -> None:
    """Conditions are on fields that stand before; a cycle, which must break that, gets words of its own."""
    position = {axis.field: index for index, axis in enumerate(axes)}
    for axis in axes:
        for other in axis.when:
            if other not in position and other not in fixed:
                raise UsageError(f"space.{axis.field}.when: {other} stands neither in space nor in train")
    try:
        graphlib.TopologicalSorter({axis.field: axis.when for axis in axes}).prepare()
    except graphlib.CycleError as error:
        cycle = sorted(set(error.args[1]), key=position.__getitem__)
        how = f"{' and '.join(cycle)} wait for each other" if len(cycle) > 1 else "waits for itself"
        raise UsageError(f"space.{cycle[0]}.when: {how}") from error
    for axis in axes:
        for other in axis.when:
            if position.get(other, -1) > position[axis.field]:
                raise UsageError(f"space.{axis.field}.when: {other} stands later in the space; put it first")


def _decides(field: str, axes: tuple[Axis, ...]) -> bool:
    """Whether this field's value decides if some other axis is part of a trial."""
    return field == "model" or any(field in axis.when or field == _decider(axis.field) for axis in axes)


def _decider(field: str) -> str:
    return CONDITIONS[field][0] if field in CONDITIONS else "model"


def _in_deciding_order(axes: tuple[Axis, ...]) -> list[Axis]:
    """The axes so that each stands after those that decide whether it is part of a trial, else in the file's order."""
    waits = {axis.field: {"model", _decider(axis.field), *axis.when} - {axis.field} for axis in axes}
    left, ordered = list(axes), []
    while left:
        fields = {axis.field for axis in left}
        ready = next((axis for axis in left if not waits[axis.field] & fields), None)
        if ready is None:
            raise UsageError(f"space.{left[0].field}.when: waits for a field that can only be decided after it")
        left.remove(ready)
        ordered.append(ready)
    return ordered


def _is_part(axis: Axis, asked: Mapping[str, Any]) -> bool:
    """Whether the axis is part of a trial for which these values are decided."""
    if not all(_holds(condition, asked) for condition in axis.when.items()):
        return False
    return axis.field == "model" or axis.field in models.fields_read(asked)


def _holds(condition: tuple[str, tuple[Any, ...]], asked: Mapping[str, Any]) -> bool:
    """A condition on a field that is no part of this trial does not hold."""
    field, allowed = condition
    return field in asked and key(asked[field]) in map(key, allowed)


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


def unread(space: Space) -> list[str]:
    """Fields given one value that no trial reads: harmless, but the person should know."""
    possible = frozenset(field for name in space.models() for field in models.fields_possible(name))
    single = [*(axis.field for axis in space.axes if axis.kind == "value"), *space.fixed]
    return [field for field in single if field not in possible]


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


def key(value: Any) -> str:
    """Tells points and values apart as Python types do: 1 and True are two things."""
    return repr(value)

"""A declared space -> the points of a grid, or what Optuna samples, each with just the fields that its model reads."""

from __future__ import annotations

import functools
import graphlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import models
from models import ModelError, TrainConfig
from tune_jobs.errors import UsageError, one_line
from tune_jobs.space.axis import RANGES, Axis, check_value, key, parse_axis
from tune_jobs.space.deciding import decider, decides, in_deciding_order, is_part

if TYPE_CHECKING:
    import optuna

    from tune_jobs.experiment import Experiment

Point = dict[str, Any]
"""Field of TrainConfig -> value."""

MOST_CONFIGS = 10**6
"""What a search tries at most."""


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
        return list(self._grid)

    @functools.cached_property
    def _grid(self) -> list[Point]:
        found: dict[str, tuple[list[int], Point]] = {}
        for chosen in self._combinations(in_deciding_order(self.axes), dict(self.fixed)):
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
        if not is_part(axis, asked):
            yield from self._combinations(others, asked)
            return
        for value in axis.every():
            yield from self._combinations(others, asked | {axis.field: value})

    def every(self) -> Iterator[Point]:
        """All points of a space whose `size` is finite."""
        return map(relevant, self._combinations(in_deciding_order(self.axes), dict(self.fixed)))

    def size(self) -> float:
        """How many distinct points there are: infinite with a range of real numbers, and where a training has no seed,
        which comes out otherwise each time."""
        return self._size(in_deciding_order(self.axes), dict(self.fixed), unseeded=math.inf)

    def check_size(self) -> None:
        """Raise UsageError for a grid of more points than a search tries, before any is made."""
        count = self._size(in_deciding_order(self.axes), dict(self.fixed), unseeded=1)
        if count > MOST_CONFIGS:
            raise UsageError(
                f"space: a grid of {count:,} points, and at most {MOST_CONFIGS:,} are run: give fewer values, or draw "
                "from them by search.method: random or optuna"
            )

    def _size(self, left: list[Axis], asked: dict[str, Any], unseeded: float) -> float:
        if not left:
            return unseeded if is_unseeded(asked) else 1
        axis, *others = left
        if not is_part(axis, asked):
            return self._size(others, asked, unseeded)
        if math.isinf(axis.count):
            return math.inf
        if None in axis.values or decides(axis.field, self.axes):  # of the seed's values None is like no other
            return sum(
                count * self._size(others, asked | {axis.field: value}, unseeded)
                for value, count in axis.cases(self.axes)
            )
        return axis.count * self._size(others, asked | {axis.field: axis.values[0]}, unseeded)

    def params(self, point: Point) -> dict[str, Any]:
        """What Optuna keeps of a point: the axes that it was asked for.

        A field that a condition leaves out is no part of it, though the training reads it and the point has its
        default.
        """
        asked = self._asked(lambda axis: point.get(axis.field))
        return {
            axis.field: asked[axis.field]
            for axis in self.axes
            if axis.kind != "value" and axis.field in asked and axis.field in point
        }

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
        try:
            asked = self._asked(lambda axis: point[axis.field])
        except KeyError:  # an axis that is part of the trial, and that the config does not have
            return False
        parts = [axis for axis in self.axes if axis.field in asked and (axis.field, axis.kind) != ("seed", "value")]
        if not all(axis.holds(asked[axis.field]) for axis in parts):
            return False
        return relevant(asked) | {"seed": None} == point | {"seed": None}

    def models(self) -> list[str]:
        """The names of all models that a trial may have."""
        return next((list(axis.values) for axis in self.axes if axis.field == "model"), None) or [self.fixed["model"]]

    def varied(self) -> list[str]:
        """The model, and the fields that trials differ in."""
        return ["model", *(axis.field for axis in self.axes if axis.kind != "value" and axis.field != "model")]

    def reachable(self) -> frozenset[str]:
        """The axes that are part of at least one possible trial."""
        return frozenset().union(*self._parts())

    def always(self) -> list[str]:
        """The sampled axes that are part of every possible trial."""
        everywhere = functools.reduce(frozenset.intersection, self._parts())
        return [axis.field for axis in self.axes if axis.sampled and axis.field in everywhere]

    def _parts(self) -> Iterator[frozenset[str]]:
        """What each possible trial is asked for."""
        deciding = {axis.field: axis.candidates(self.axes) for axis in self.axes if decides(axis.field, self.axes)}
        for values in itertools.product(*deciding.values()):
            chosen = dict(zip(deciding, values, strict=True))
            yield frozenset(self._asked(lambda axis: chosen.get(axis.field, axis.values[0])))  # noqa: B023 - at once

    def shapes(self) -> list[Point]:
        """Points that have every model with every value, or both ends, of what decides the shape of its layers."""
        return self.meeting("model", "batch_size", "amp", "amp_dtype", *models.building_fields())

    def meeting(self, *fields: str) -> list[Point]:
        """Points that have the values, or both ends, of these fields in every combination, and of those that decide
        whether they are part of a trial.  Raises UsageError where they do not go together."""
        wanted = {"model", *fields}
        for axis in reversed(in_deciding_order(self.axes)):  # those that decide stand before
            if axis.field in wanted:
                wanted |= {decider(axis.field), *axis.when}
        axes = [axis for axis in self.axes if axis.field in wanted]
        points = []
        ends = [{key(value): value for value in (*axis.candidates(self.axes), axis.values[-1])} for axis in axes]
        for values in itertools.product(*(found.values() for found in ends)):
            chosen = {axis.field: value for axis, value in zip(axes, values, strict=True)}
            points.append(relevant(self._asked(lambda axis: chosen.get(axis.field, axis.values[0]))))  # noqa: B023
        return points

    def most_epochs(self) -> int:
        """The most that a trial may be asked for; an svm is done in one."""
        return max(int(point.get("epochs", 1)) for point in self.meeting("epochs"))

    def _asked(self, pick: Callable[[Axis], Any]) -> dict[str, Any]:
        """The fixed fields and a value for each axis that is part of the trial."""
        asked = dict(self.fixed)
        for axis in in_deciding_order(self.axes):
            if is_part(axis, asked):
                asked[axis.field] = pick(axis)
        return asked


def of(experiment: Experiment, *, extends: bool = False) -> Space:
    """The space that an experiment declares.  Raises UsageError as `parse` does."""
    return parse(experiment.space, experiment.train, experiment.search.method, extends=extends)


def parse(space: Mapping[str, Any], train: Mapping[str, Any], method: str, *, extends: bool = False) -> Space:
    """A declared space beside the fixed fields, for a method of search, checked whole.

    Raises UsageError that names the field at fault: unknown, in both `space` and `train`, no values, one value twice,
    a low end over the high one, a log scale through zero, a condition on an unknown or later field, a kind of axis
    that the method does not take, no model, a grid axis that no point reads, more points than a search tries.
    One that `extends` a run's may have axes that its own points do not read: those of the run may.
    """
    both = [field for field in space if field in train]
    if both:
        raise UsageError(f"{both[0]} stands in both space and train")
    fixed = {field: check_value(field, value, "train") for field, value in train.items()}
    axes = tuple(parse_axis(field, declared, method) for field, declared in space.items())
    if "model" not in fixed and not any(axis.field == "model" for axis in axes):
        raise UsageError(f"model: is missing from space and train; there are {', '.join(models.names())}")
    _check_conditions(axes, fixed)
    checked = Space(axes, fixed)
    if method == "grid":
        checked.check_size()
    reachable = checked.reachable()
    for axis in axes:
        if axis.field not in reachable and axis.kind != "value" and not extends:
            chosen = ", ".join(checked.models())
            raise UsageError(f"space.{axis.field}: is read by none of the trials asked for (models: {chosen})")
    if method != "grid" and not any(axis.sampled for axis in axes):
        raise UsageError(f"search.method: {method} samples, but no field of the space is a choice or a range")
    return checked


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


def is_unseeded(values: Mapping[str, Any]) -> bool:
    """Whether a run with these values comes out otherwise each time: it reads a seed and has none."""
    default = TrainConfig.model_fields["seed"].default
    return "seed" in models.fields_read(values) and values.get("seed", default) is None


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

"""A space that is a list of points: what was chosen in an earlier search, to be trained again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_jobs.space import Point, Space

if TYPE_CHECKING:
    import optuna


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

    def meeting(self, *fields: str) -> list[Point]:  # noqa: ARG002 - all of them have all that they have
        return list(self.points)

"""The configs that a search has already: one that is drawn again would come out the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tune_jobs import space as spaces
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.space import Point, Space
from tune_jobs.space.axis import key

Groups = Mapping[int, Sequence[TrialRecord]]
"""Number in the study -> the trial's repeats, of which the first has the config that was drawn."""


def config_key(config: Mapping[str, Any]) -> str:
    """Tells configs apart, a stored one as a point of today: an older version's may lack a field, which then has its
    default."""
    try:
        return key(spaces.relevant(config))
    except (UsageError, KeyError):  # it has a field or a value that there is no more; or was lost, and has none
        return key(config)


class Drawn:
    """Which trial has a config.  One without a seed comes out otherwise each time, and is always new."""

    def __init__(self, groups: Groups) -> None:
        self._numbers: dict[str, int] = {}
        for number, group in sorted(groups.items()):
            self.add(number, group[0].config)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, point: Point) -> None:
        """Trial `number` has it."""
        if point and not spaces.is_unseeded(point):  # one that was lost is put back later
            self._numbers.setdefault(config_key(point), number)

    def same_as(self, point: Point) -> int | None:
        """The number of the trial that has it; None where it is new."""
        return self._numbers.get(config_key(point))


def to_draw(experiment: Experiment, space: Space, groups: Groups) -> int:
    """How many configs a sampled search is still to draw: of a space that ends, no more than it has."""
    if experiment.search.trials is None:
        return 0  # a grid's are all known
    left = experiment.search.trials - len(groups)
    size = space.size()
    if left > 0 and not math.isinf(size):
        left = min(left, int(size) - len(Drawn(groups)))
    return max(0, left)

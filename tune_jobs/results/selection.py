"""Which config is best, and why; which are on the Pareto front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tune_jobs.errors import UsageError
from tune_jobs.results.ledger import by_number, number_of
from tune_jobs.results.table import Row, config_order


@dataclass(frozen=True)
class Candidate:
    """One config with all its repeats, each COMPLETE with a validation accuracy that is a number."""

    rows: tuple[Row, ...]

    @property
    def place(self) -> tuple[str, int]:
        """Among those that tie: by its config, then by the number of its id."""
        return config_order(self.rows[0].config), number_of(self.rows[0].id)

    @property
    def accuracy(self) -> float:
        """Validation accuracy, mean over the repeats, 0 to 1."""
        return statistics.fmean(row.val_accuracy for row in self.rows)

    @property
    def test_accuracy(self) -> float:
        """Mean over the repeats, 0 to 1; NaN where one has none."""
        return statistics.fmean(row.test_accuracy for row in self.rows)

    @property
    def train_time_s(self) -> float:
        """Mean over the repeats."""
        return statistics.fmean(row.train_time_s for row in self.rows)

    def value(self, objective: str) -> float:
        """Mean over the repeats; NaN where one has none."""
        found = [getattr(row, objective) for row in self.rows]
        return math.nan if None in found else statistics.fmean(found)

    @property
    def in_words(self) -> str:
        """Its accuracy as a person reads it, with the spread over its repeats."""
        if len(self.rows) == 1:
            return f"{self.accuracy:.2%}"
        spread = statistics.stdev(row.val_accuracy for row in self.rows)
        if "seed" not in self.rows[0].config:  # it is not read: an svm
            return f"{self.accuracy:.2%}, which depends on no seed"
        return f"{self.accuracy:.2%} ± {100 * spread:.2f} over {len(self.rows)} seeds"


def candidates(rows: Sequence[Row]) -> list[Candidate]:
    """The configs that may be chosen, best first: by accuracy, then less training time, then config, then id."""
    found = [
        Candidate(tuple(group))
        for group in by_number(rows).values()
        if all(row.state == "COMPLETE" and math.isfinite(row.val_accuracy) for row in group)
    ]
    return sorted(found, key=lambda c: (-c.accuracy, c.train_time_s, c.place))


def distinct(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The first of those that differ in nothing but the seed: under fresh seeds they are one config."""
    first: dict[str, Candidate] = {}
    for candidate in ranked:
        first.setdefault(config_order(candidate.rows[0].config), candidate)
    return list(first.values())


Rule = Callable[[Sequence[Candidate], float | None], tuple[Candidate, str]]
"""(candidates, best first, at least one; how far below the best one may be, 0 to 1, or None) -> the chosen one and the
reason in words."""


def best(found: Sequence[Candidate], within: float | None) -> tuple[Candidate, str]:  # noqa: ARG001 - a Rule
    """Highest validation accuracy; ties by less training time, then by config, as in the tables."""
    chosen = found[0]
    tied = sum(candidate.accuracy == chosen.accuracy for candidate in found)
    reason = f"highest validation accuracy, {chosen.in_words}, of {len(found)} complete configs"
    if tied > 1:
        reason += f"; {tied} share it, of which this one trained in the least time"
        reason += shared_differently([row for candidate in found[:tied] for row in candidate.rows])
    return chosen, reason


def cheapest(found: Sequence[Candidate], within: float | None) -> tuple[Candidate, str]:
    """Least training time among those within `within` of the best.  Raises UsageError where that is not known."""
    near = _near(found, within, "cheapest")
    chosen = min(near, key=lambda c: (c.train_time_s, -c.accuracy, c.place))
    reason = f"least training time, {chosen.train_time_s:.1f} s, of {_near_in_words(near, found, within)}"
    return chosen, reason + shared_differently([row for candidate in near for row in candidate.rows])


ALIKE = 0.5
"""Rows of which none had more company than another by so many trials, on average, shared alike."""


def company(rows: Sequence[Row]) -> tuple[float, float]:
    """The least and the most other trials of its search that one of the rows ran beside, on average; NaN where none
    knows."""
    return _range([row.shared_with for row in rows])


def company_on_card(rows: Sequence[Row]) -> tuple[float, float]:
    """The same of those on one card, over the rows that had one."""
    return _range([row.shared_card_with for row in rows])


def _range(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    return min(known, default=math.nan), max(known, default=math.nan)


def shared_differently(rows: Sequence[Row]) -> str:
    """A clause for a ranking by time, where some of the rows had more company than others; empty where none had.

    Trials that share a socket or a card slow each other.
    """
    beside = unlike(rows)
    return f"; times of trials that ran beside {beside}, so they do not quite compare" if beside else ""


def unlike(rows: Sequence[Row]) -> str:
    """The company of rows that shared a node, a card or their steps differently, in words; empty where none did."""
    (least, most), (least_on_card, most_on_card) = company(rows), company_on_card(rows)
    parts = [f"{least:.1f} to {most:.1f} others of the search"] if most - least >= ALIKE else []
    if most_on_card - least_on_card >= ALIKE:
        parts.append(f"{least_on_card:.1f} to {most_on_card:.1f} others of the search on the same card")
    if len(fused := {(row.fused or 1) - 1 for row in rows}) > 1:
        parts.append(f"{min(fused)} to {max(fused)} others fused with them")
    return " and ".join(parts)


def smallest(found: Sequence[Candidate], within: float | None) -> tuple[Candidate, str]:
    """Fewest multiply-accumulates among those within `within` of the best.  Raises UsageError as `cheapest`."""
    near = _near(found, within, "smallest")
    chosen = min(near, key=lambda c: (c.value("macs"), -c.accuracy, c.place))
    count = f"{chosen.value('macs') / 1e6:.2f} M multiply-accumulates"
    return chosen, f"smallest, {count} an image, of {_near_in_words(near, found, within)}"


RULES: dict[str, Rule] = {"best": best, "cheapest": cheapest, "smallest": smallest}


def pareto_front(found: Sequence[Candidate], objectives: Mapping[str, str]) -> list[Candidate]:
    """The candidates that no other one beats: as good in every objective and better in one.

    One that lacks an objective is on no front.
    """
    signs = {name: 1 if way == "max" else -1 for name, way in objectives.items()}
    scored = [(c, tuple(sign * c.value(name) for name, sign in signs.items())) for c in found]
    scored = [(c, score) for c, score in scored if not any(math.isnan(value) for value in score)]
    return [
        candidate
        for candidate, score in scored
        if not any(other != score and all(o >= s for o, s in zip(other, score, strict=True)) for _, other in scored)
    ]


def with_front(rows: Sequence[Row], objectives: Mapping[str, str]) -> list[Row]:
    """The rows, each saying whether its config is on the Pareto front, where there are several objectives."""
    if len(objectives) == 1:
        return list(rows)
    front = {row.id for candidate in pareto_front(candidates(rows), objectives) for row in candidate.rows}
    return [replace(row, pareto=row.id in front) for row in rows]


def _near(found: Sequence[Candidate], within: float | None, rule: str) -> list[Candidate]:
    if within is None:
        raise UsageError(
            f"--rule {rule}: how far below the best may it be?  Give --within POINTS, or confirm the run first, "
            "which gives the best one an interval, where its score depends on the seed"
        )
    if math.isnan(within):
        raise UsageError("--within: nan: is a number of percentage points, from 0 to 100")
    return [candidate for candidate in found if candidate.accuracy >= found[0].accuracy - within]


def _near_in_words(near: Sequence[Candidate], found: Sequence[Candidate], within: float | None) -> str:
    assert within is not None
    return (
        f"{len(near)} of {len(found)} configs within {100 * within:.2f} points of the best "
        f"validation accuracy, {found[0].in_words}"
    )

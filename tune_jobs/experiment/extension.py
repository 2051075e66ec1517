"""An experiment that adds grid points to an earlier one."""

from __future__ import annotations

from typing import Any

from tune_jobs import space as spaces
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment, check


def extended(before: Experiment, after: Experiment) -> Experiment:
    """`after` with the values that `before` had on each grid axis put first, so that it only adds to it.

    A field with one value in one of them and several in the other, or another one, becomes an axis with all of them;
    one that `before` does not name has the value there that its points read.
    Only grids have points to add; raises UsageError for a sampled search, which is extended by more trials.
    """
    if before.search.method != after.search.method:
        raise UsageError(
            f"--extend: the run is of search.method {before.search.method}, and this is {after.search.method}; give it "
            "another --name"
        )
    if after.search.method != "grid":
        raise UsageError("--extend: a sampled search is extended by more trials: --set search.trials=N")
    space, train, unnamed = dict(before.space), {**before.train, **after.train}, _unnamed(before)
    for field in dict.fromkeys([*before.space, *after.space, *before.train, *after.train]):
        old, new = (_values(experiment, field) for experiment in (before, after))
        old = unnamed.get(field) if old is None else old
        if old is None or new is None:  # only one of them has it: whether that adds or changes is checked later
            if field in after.space:
                space[field] = after.space[field]
            continue
        values = old + [value for value in new if repr(value) not in map(repr, old)]
        if len(values) == 1:
            continue
        train.pop(field, None)
        declared = [given for own in (before, after) if isinstance(given := own.space.get(field), dict)]
        conditions = [{"when": given["when"]} for given in declared if "when" in given]
        space[field] = {"grid": values} | (conditions[-1] if conditions else {})
    return check(after.document() | {"space": space, "train": train})


def _unnamed(before: Experiment) -> dict[str, list[Any]]:
    """Field that it does not name, and that some of its points read -> its default there."""
    try:
        points = spaces.of(before).grid()
    except UsageError:  # of an earlier version, which took what is refused now
        return {}
    read = {field: value for point in points for field, value in point.items()}
    return {field: [value] for field, value in read.items() if field not in {**before.space, **before.train}}


def _values(experiment: Experiment, field: str) -> list[Any] | None:
    """The values of a field in a grid; None where it is in neither section."""
    declared = experiment.space.get(field, experiment.train.get(field))
    if declared is None:
        return None
    return list(declared["grid"]) if isinstance(declared, dict) and "grid" in declared else [declared]

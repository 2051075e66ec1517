"""The figures of configs by their fields: all at once, and any two against each other."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tune_jobs.results import table
from tune_jobs.results.report.drawing import Figure, spec
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.wording import is_number, label, levels, on_times
from tune_jobs.space.axis import RANGES

MOST_LEVELS = 12
"""Of an axis of the heat map: numbers with more are shown in parts of equal counts."""
MOST_OF_RANGE = 5
"""The same of numbers that were drawn from a range."""


def parallel(loaded: Loaded) -> Iterator[Figure]:
    """plotly's, since Optuna's leaves out every trial that lacks one of the fields."""
    found = loaded.candidates
    if len(found) < 2:
        return
    varied = table.varied([candidate.rows[0].config for candidate in found])
    dimensions = [_dimension(loaded, name) for name in loaded.fields if name in varied]
    missing = any(
        name not in candidate.rows[0].config for candidate in found for name in loaded.fields if name in varied
    )
    unread = "; “not read” is where the model has no such field." if missing else "."
    accuracy = [100 * candidate.accuracy for candidate in found]
    dimensions.append({"label": "accuracy, %", "values": accuracy})
    # A few very bad trials would take all the colours: the scale covers the upper three quarters.
    ends = float(np.quantile(accuracy, 0.25)), max(accuracy)
    line = {
        "color": accuracy,
        "colorscale": [[0, "var(--l0)"], [1, "var(--l1)"]],
        "cmin": ends[0],
        "cmax": ends[1],
        "showscale": False,
    }
    figure = go.Figure({"type": "parcoords", "dimensions": dimensions, "line": line}, skip_invalid=False)
    yield Figure(
        "parallel",
        "All configs at once",
        "A line a complete config, lighter or darker by accuracy. Drag along an axis to pick a range" + unread,
        spec(figure, 420, margin={"t": 60, "l": 70, "r": 50, "b": 30}) | {"wide": 110 * len(dimensions)},
    )


def _dimension(loaded: Loaded, name: str) -> dict[str, Any]:
    """An axis; numbers over more than two decades by their logarithm."""
    values = [candidate.rows[0].config.get(name) for candidate in loaded.candidates]
    numbers = [v for v in values if is_number(v)]
    distinct = levels([value for value in values if value is not None])
    if len(numbers) == len(values) and len(distinct) > (MOST_OF_RANGE if _is_range(loaded, name) else MOST_LEVELS):
        if min(numbers) > 0 and max(numbers) / min(numbers) > 100:
            decades = range(math.floor(math.log10(min(numbers))), math.ceil(math.log10(max(numbers))) + 1)
            return {
                "label": name, "values": [math.log10(value) for value in numbers],
                "tickvals": list(decades), "ticktext": [f"{10.0**decade:g}" for decade in decades],
            }  # fmt: skip
        return {"label": name, "values": numbers}
    ordered = ([None] if None in values else []) + distinct
    # Of many values, those of numbers that only some models read, a tick for a few.
    every = math.ceil(len(ordered) / MOST_LEVELS)
    places = {repr(value): place for place, value in enumerate(ordered)}
    return {
        "label": name,
        "values": [places[repr(value)] for value in values],
        "tickvals": list(range(len(ordered)))[::every],
        "ticktext": [html.escape(label(value)) for value in ordered][::every],
    }


def _is_range(loaded: Loaded, name: str) -> bool:
    return name in loaded.axes and loaded.axes[name].kind in RANGES


def heat(loaded: Loaded) -> Iterator[Figure]:
    """The page itself makes it, of the two axes that a person chooses."""
    found = loaded.candidates
    axes = {}
    for name in loaded.fields:
        places, labels = _levels(loaded, name)
        if len(labels) > 1:
            axes[name] = {"labels": labels, "of": places}
    if len(axes) < 2:
        return
    preferred = [name for name in ("lr", "batch_size") if name in axes]
    values = {
        "validation accuracy, %": [100 * candidate.accuracy for candidate in found],
        "training time, s": [c.train_time_s if math.isfinite(c.train_time_s) else None for c in found],
    }
    first = (preferred + [name for name in axes if name not in preferred])[:2]
    yield Figure(
        "heat",
        "Any two fields against each other",
        "The mean, or the best, over all complete configs in a cell; ranges are cut into parts of equal counts. Cells "
        "far from the rest have the colour of the scale's end." + on_times(loaded),
        {"axes": axes, "values": values, "first": first},
    )


def _levels(loaded: Loaded, name: str) -> tuple[list[int | None], list[str]]:
    """For each candidate the number of its level, None where it does not read the field; and the levels' names."""
    values = [candidate.rows[0].config.get(name) for candidate in loaded.candidates]
    distinct = levels([value for value in values if value is not None])
    numbers = all(is_number(v) for v in distinct)
    is_range = _is_range(loaded, name)
    if not numbers or len(distinct) <= (MOST_OF_RANGE if is_range else MOST_LEVELS):
        places = {repr(value): place for place, value in enumerate(distinct)}
        return [places.get(repr(value)) for value in values], [label(value) for value in distinct]
    # Of a range, each config has a value of its own: without several to a part, the map would be a row of dots.
    parts = np.array_split(np.array(distinct), min(6, len(distinct) // 3) if is_range else 6)
    ends = [part[-1] for part in parts]
    of = [None if value is None else int(np.searchsorted(ends, value)) for value in values]
    return of, [f"{label(part[0].item())} to {label(part[-1].item())}" for part in parts]

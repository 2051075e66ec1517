"""The figures of accuracy against what it costs, with the Pareto front."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from tune_jobs.results import selection
from tune_jobs.results.report.drawing import Figure, axis, grouped, spec
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.views import opened, range_of
from tune_jobs.results.report.wording import in_words, label, on_times
from tune_jobs.results.selection import Candidate
from tune_jobs.results.table import Row


def trade_offs(loaded: Loaded) -> Iterator[Figure]:
    for key, title, metric, more in (
        ("time", "Accuracy against training time", "train_time_s", on_times(loaded)),
        ("macs", "Accuracy against multiply-accumulates", "macs", _on_macs(loaded)),
    ):
        found = [c for c in loaded.candidates if math.isfinite(c.value(metric)) and c.value(metric) > 0]
        if len({c.value(metric) for c in found}) < 2:
            continue
        front = selection.pareto_front(found, {"val_accuracy": "max", metric: "min"})
        figure = _trade_off(loaded, found, metric, front)
        view = opened((100 * c.accuracy for c in found), "below")
        outside = "" if view is None else view.told(sum(not view.has(100 * c.accuracy) for c in found), "config")
        best = "the line joins those that none beats in both"
        if len(front) == 1:
            best = f"none does better than trial {front[0].rows[0].id} in either"
        caption = f"Every complete config; {best}.{more}{outside}"
        x = axis(in_words(metric), **_scale([c.value(metric) for c in found]))
        y = axis(in_words("val_accuracy"), **range_of(view))
        yield Figure(key, title, caption, spec(figure, xaxis=x, yaxis=y))


def _on_macs(loaded: Loaded) -> str:
    return " An svm's are support vectors × features." if "svm" in loaded.models else ""


def _scale(values: Sequence[float]) -> dict[str, Any]:
    """For plotly: a log axis over more than a decade, on which several values are named also where it has few."""
    low, high = math.log10(min(values)), math.log10(max(values))
    if high - low <= 1:
        return {}
    if high - low > 3:
        return {"type": "log", "dtick": 1}
    decades = range(math.floor(low), math.ceil(high) + 1)
    return {"type": "log", "tickvals": [step * 10.0**decade for decade in decades for step in (1, 2, 5)]}


def _trade_off(loaded: Loaded, found: Sequence[Candidate], metric: str, front: Sequence[Candidate]) -> go.Figure:
    figure = go.Figure()
    for model, look in grouped(loaded.models).items():
        own = [c for c in found if c.rows[0].config["model"] == model]
        if not own:
            continue
        figure.add_scatter(
            x=[c.value(metric) for c in own],
            y=[100 * c.accuracy for c in own],
            text=[_hover(loaded, c.rows[0]) for c in own],
            name=html.escape(model),
            mode="markers",
            marker=look | {"size": 9, "opacity": 0.85},
            hovertemplate="%{text}<br>%{y:.2f} %, %{x:.4g}<extra></extra>",
        )
    if len(front) == 1:
        return figure
    front = sorted(front, key=lambda c: c.value(metric))
    figure.add_scatter(
        x=[c.value(metric) for c in front],
        y=[100 * c.accuracy for c in front],
        mode="lines",
        name="Pareto front",
        line={"shape": "hv", "color": "var(--ink)", "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    return figure


def _hover(loaded: Loaded, row: Row) -> str:
    config = "<br>".join(
        f"{html.escape(name)}: {html.escape(label(row.config[name]))}" for name in loaded.fields if name in row.config
    )
    return f"trial {html.escape(row.id)}<br>{config}"

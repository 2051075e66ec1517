"""The figures of accuracy and loss over epochs."""

from __future__ import annotations

import html
from collections.abc import Iterator

import plotly.graph_objects as go

from tune_jobs.results.report.drawing import Figure, axis, grouped, spec
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.views import View, opened, range_of
from tune_jobs.results.report.wording import in_words


def curves(loaded: Loaded) -> Iterator[Figure]:
    chosen = loaded.choice.row.id if loaded.choice else None
    for key, title, metric, scale in (
        ("accuracy", "Validation accuracy over epochs", "val_accuracy", 100),
        ("loss", "Validation loss over epochs", "val_loss", 1),
    ):
        figure = _curves_of(loaded, metric, scale, chosen)
        if figure is None:
            continue
        best = f" The thick line is trial {chosen}." if chosen else ""
        view = _view(loaded, metric, scale)
        outside = "" if view is None else view.told(_partly_out(loaded, metric, scale, view), "trial")
        yield Figure(
            key,
            title,
            f"A line a trial; one that was stopped or failed ends early.{best}{outside}",
            spec(
                figure, xaxis=axis("epoch", dtick=_whole_ticks(loaded)), yaxis=axis(in_words(metric), **range_of(view))
            ),
        )


def _curves_of(loaded: Loaded, metric: str, scale: float, chosen: str | None) -> go.Figure | None:
    """All lines of a model are one trace, parted by gaps: a thousand traces would take seconds to draw."""
    by_model: dict[str, list[tuple[str, int | None, float | None]]] = {}
    for trial in loaded.trials:
        points = [(e["epoch"], e[metric]) for e in trial.epochs if e.get(metric) is not None]
        if not points or "model" not in trial.config:
            continue
        line = by_model.setdefault(trial.config["model"], [])
        line += [(trial.id, epoch, scale * value) for epoch, value in points]
        line.append((trial.id, None, None))
    if not by_model:
        return None
    many = len(loaded.trials) > 60
    looks = grouped(loaded.models)
    figure = go.Figure()
    for model, line in by_model.items():
        ids, x, y = zip(*line, strict=True)
        figure.add_scatter(
            x=x, y=y, text=ids, name=html.escape(model), mode="lines+markers", line_color=looks[model]["color"],
            line_width=1, marker={"size": 3 if many else 5, "symbol": looks[model]["symbol"]},
            opacity=0.35 if many else 0.8, hovertemplate="trial %{text}<br>epoch %{x}: %{y:.4g}",
        )  # fmt: skip
    thick = [p for model, line in by_model.items() for p in line if p[0] == chosen]
    if thick:
        ids, x, y = zip(*thick, strict=True)
        figure.add_scatter(
            x=x, y=y, text=ids, name=f"trial {chosen}", mode="lines+markers", line_color="var(--ink)", line_width=3,
            hovertemplate="trial %{text}<br>epoch %{x}: %{y:.4g}",
        )  # fmt: skip
    return figure


def _view(loaded: Loaded, metric: str, scale: float) -> View | None:
    values = (scale * e[metric] for trial in loaded.trials for e in trial.epochs if e.get(metric) is not None)
    return opened(values, "below" if metric == "val_accuracy" else "above")


def _partly_out(loaded: Loaded, metric: str, scale: float, view: View) -> int:
    return sum(
        any(e.get(metric) is not None and not view.has(scale * e[metric]) for e in trial.epochs)
        for trial in loaded.trials
    )


def _whole_ticks(loaded: Loaded) -> int | None:
    return 1 if max((row.epochs for row in loaded.rows), default=0) <= 15 else None

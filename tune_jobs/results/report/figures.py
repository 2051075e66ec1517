"""The report's figures, as plotly makes them: Optuna's own where it has one, the rest from the rows.

Accuracies are shown in percent.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from tune_jobs.results.report.curves import curves
from tune_jobs.results.report.drawing import Figure, axis, grouped, spec
from tune_jobs.results.report.effects import Effect
from tune_jobs.results.report.fields import heat, parallel
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.slots import time_line
from tune_jobs.results.report.studied import history, importance, objectives
from tune_jobs.results.report.trade_offs import trade_offs
from tune_jobs.results.report.wording import in_words


def figures(loaded: Loaded, effects: Sequence[Effect]) -> list[Figure]:
    """Those that the run has something to show for, in the order of the page."""
    if not loaded.rows:
        return []
    return [
        *curves(loaded),
        *history(loaded),
        *importance(loaded, effects),
        *heat(loaded),
        *parallel(loaded),
        *trade_offs(loaded),
        *objectives(loaded),
        *time_line(loaded),
    ]


def comparison(runs: Sequence[tuple[str, Loaded]]) -> Figure:
    """How the best of each run rose over its trials; `runs` are names, all different, with what was read."""
    looks = grouped([name for name, _ in runs])
    figure = go.Figure()
    for (name, loaded), dash in zip(runs, itertools.cycle(("solid", "dash", "dot", "dashdot")), strict=False):
        ended = sorted((t for t in loaded.trials if t.finished), key=lambda trial: trial.since)
        scores = {row.id: row.val_accuracy for row in loaded.rows if row.state == "COMPLETE"}
        best = list(itertools.accumulate((100 * scores.get(t.id, math.nan) for t in ended), np.fmax))
        figure.add_scatter(
            x=list(range(1, len(best) + 1)), y=best, mode="lines", name=html.escape(name),
            line={"shape": "hv", "width": 2.5, "color": looks[name]["color"], "dash": dash},
        )  # fmt: skip
    return Figure(
        "runs",
        "The best so far, over trials",
        "By the number of trials that had ended; single scores.",
        spec(figure, xaxis=axis("trials ended"), yaxis=axis(in_words("val_accuracy"))),
    )

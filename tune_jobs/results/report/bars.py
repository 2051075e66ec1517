"""The figure of how fast each device trained: CPU against GPU, from a benchmark's rows."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from profiling.rows import Row
from tune_jobs.results.report.drawing import COLOURS, Figure, axis, spec

PATTERNS = ("", "/", "x", "\\", ".", "+")
"""That tell the devices apart also without colour."""
_PARTS: dict[str, Callable[[Row], str | None]] = {
    "optimizer": lambda row: row.optimizer,
    "size": lambda row: f"{row.image_size} px",
    "batch": lambda row: None if row.batch_size is None else f"batch {row.batch_size}",
    "precision": lambda row: f"precision {row.asked_precision}",
    "data": lambda row: f"{row.dataset}, {row.images:,} images an epoch",
}
"""What besides the model makes a row's work."""


def bars(rows: Sequence[Row]) -> Figure | None:
    """A group of bars for each work, a bar for each device that did it; None where no row is complete."""
    complete = [row for row in rows if row.complete and math.isfinite(row.images_per_s)]
    if not complete:
        return None
    varied = [name for name, part in _PARTS.items() if len({part(row) for row in complete if part(row)}) > 1]
    works = list(dict.fromkeys(_label(row, varied) for row in complete))
    devices = list(dict.fromkeys((row.machine, row.compute) for row in sorted(complete, key=lambda r: r.kind != "cpu")))
    several = len({machine for machine, _ in devices}) > 1
    rates = [row.images_per_s for row in complete]
    log = max(rates) / min(rates) >= 20
    figure = go.Figure()
    for index, device in enumerate(devices):
        own = [row for row in complete if (row.machine, row.compute) == device]
        name = f"{own[0].compute.upper() if own[0].kind == 'cpu' else own[0].compute}: {own[0].device_name}"
        figure.add_bar(
            x=[row.images_per_s for row in own],
            y=[_label(row, varied) for row in own],
            orientation="h",
            name=html.escape(f"{name} ({device[0]})" if several else name),
            text=[_speed_up(row) for row in own],
            textposition="outside",
            cliponaxis=False,
            customdata=[_hover(row) for row in own],
            hovertemplate="%{customdata}<extra></extra>",
            marker={"color": f"var(--c{index % COLOURS})", "line": {"width": 0},
                    "pattern": {"shape": PATTERNS[index % len(PATTERNS)], "fgcolor": "var(--paper)", "size": 6,
                                "fillmode": "overlay"}},
        )  # fmt: skip
    x = axis("images a second", **_scale(rates, log))
    y = axis("", type="category", categoryorder="array", categoryarray=works, autorange="reversed")
    height = 130 + len(works) * (22 + 20 * len(devices))
    drawn = spec(figure, height, barmode="group", bargap=0.25, showlegend=True, xaxis=x, yaxis=y)
    return Figure("bars", "Training speed, device by device", _caption(rows, complete, varied, log), drawn)


def _label(row: Row, varied: Sequence[str]) -> str:
    parts = [part for name in varied if (part := _PARTS[name](row)) is not None]
    return html.escape(row.model) + (f"<br>{html.escape(', '.join(parts))}" if parts else "")


def _speed_up(row: Row) -> str:
    if row.kind == "cpu":
        return f"{row.images_per_s:,.0f}/s"
    if math.isnan(row.speedup):
        return "no CPU row"
    return f"{row.speedup:.2f}×" if row.speedup < 10 else f"{row.speedup:.0f}×"


def _hover(row: Row) -> str:
    about = "about " if row.estimated else ""
    lines = [
        f"{row.model}{f' {row.optimizer}' if row.optimizer else ''} on {row.compute}, {row.device_name}",
        f"{row.images_per_s:,.1f} images/s, {about}{row.train_time_ms:,.0f} ms an epoch",
        ", ".join(
            [
                f"precision {row.precision or row.asked_precision}",
                f"{row.threads} thread{'s' if row.threads > 1 else ''}",
                *([] if row.batch_size is None else [f"batch {row.batch_size}"]),
            ]
        ),
    ]
    if row.kind != "cpu" and not math.isnan(row.speedup):
        lines.append(f"{row.speedup:.2f} times the rate of the CPU")
    if not math.isnan(row.spread):
        lines.append(f"spread {row.spread:.0%} over {row.repeats} repeats")
    return "<br>".join(map(html.escape, lines))


def _scale(rates: Sequence[float], log: bool) -> dict[str, object]:
    """With room for the text beyond the longest bar."""
    if not log:
        return {"range": [0, 1.25 * max(rates)]}
    low, high = math.floor(math.log10(min(rates))), math.log10(max(rates))
    return {"type": "log", "dtick": 1, "range": [low, high + 0.25 * (high - low)]}


def _caption(rows: Sequence[Row], complete: Sequence[Row], varied: Sequence[str], log: bool) -> str:
    same = [
        part for name, get in _PARTS.items() if name not in varied for part in {get(row) for row in complete} if part
    ]
    ran = _ran(complete)
    words = [
        "Images a second while training, each row alone on its device; longer is faster.",
        f"The same for all: {', '.join(same)}." if same else "",
        f"Precision auto was {', '.join(ran)}." if ran else "",
        "The axis is logarithmic: compare where bars end." if log else "",
    ]
    if any(row.kind != "cpu" for row in complete):
        words.append("×: the rate over that of the CPU for the same work on the same machine.")
    elif any(row.kind != "cpu" for row in rows):
        words.append("No row on an accelerator could be measured (the table has the reasons): its half is empty.")
    else:
        words.append("No accelerator was there to be measured: its half is empty, and there is no speed-up to show.")
    return " ".join(filter(None, words))


def _ran(complete: Sequence[Row]) -> list[str]:
    """What auto was on each kind of device; empty where a precision was asked for."""
    ran: dict[str, dict[str, None]] = {}
    for row in complete:
        if row.asked_precision == "auto" and row.precision is not None:
            ran.setdefault(row.compute, {})[row.precision] = None
    return [f"{' and '.join(precisions)} on {compute}" for compute, precisions in ran.items()]

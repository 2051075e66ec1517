"""The figure of when and where trials ran."""

from __future__ import annotations

import html
from collections.abc import Iterator

import plotly.graph_objects as go

from tune_jobs.results.report import timeline
from tune_jobs.results.report.drawing import Figure, axis, spec
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.timeline import Attempt


def time_line(loaded: Loaded) -> Iterator[Figure]:
    """A bar an attempt, on the lane of its slot; nothing before the first has started."""
    if not loaded.attempts:
        return
    start = loaded.attempts[0].start
    whole = max(attempt.end for attempt in loaded.attempts) - start
    unit, name = (60.0, "minutes") if whole > 180 else (1.0, "seconds")
    lanes = timeline.lanes(loaded.attempts)
    looks = {"COMPLETE": "var(--c0)", "PRUNED": "var(--c1)", "FAIL": "var(--bad)",
             "WAITING": "var(--c4)", "RUNNING": "var(--muted)"}  # fmt: skip
    words = {"WAITING": "tried again later", "RUNNING": "no end known"}
    patterns = {"FAIL": "x", "PRUNED": "/", "WAITING": "."}
    figure = go.Figure()
    for state in looks:
        own = [(a, place) for place, lane in enumerate(lanes) for a in lane.attempts if a.state == state]
        if own:
            figure.add_bar(
                base=[(attempt.start - start) / unit for attempt, _ in own],
                x=[(attempt.end - attempt.start) / unit for attempt, _ in own],
                y=[place for _, place in own],
                text=[_attempt_in_words(attempt) for attempt, _ in own],
                textposition="none",
                orientation="h",
                name=words.get(state, state),
                marker={"color": looks[state], "pattern": {"shape": patterns.get(state, ""), "fgcolor": "var(--paper)",
                                    "fillmode": "overlay"},
                        "line": {"width": 0.5, "color": "var(--paper)"}},
                hovertemplate=f"%{{text}}<br>%{{x:.1f}} {name}<extra></extra>",
            )  # fmt: skip
    ticks = {"tickvals": list(range(len(lanes))), "ticktext": [html.escape(lane.label) for lane in lanes]}
    yield Figure(
        "timeline",
        "When and where trials ran",
        _time_line_in_words(loaded),
        spec(figure, min(140 + 26 * len(lanes), 700), barmode="overlay", xaxis=axis(name),
             yaxis=axis("", autorange="reversed", **ticks)),
    )  # fmt: skip


def _attempt_in_words(attempt: Attempt) -> str:
    words = f"trial {html.escape(attempt.trial)}, attempt {attempt.number}"
    if attempt.node is not None:
        words += f"<br>node {html.escape(attempt.node)}"
        words += f", card {html.escape(', '.join(attempt.cards))}" if attempt.cards else ""
    return words


def _time_line_in_words(loaded: Loaded) -> str:
    told = "A lane a slot, as the ledger has it: a worker process that takes one trial after another."
    silent = sum(attempt.slot is None for attempt in loaded.attempts)
    if silent == len(loaded.attempts):
        return (
            "A lane a trial that ran at the same time as others. This ledger does not say which worker had a trial: "
            "the lanes are packed from starts and ends."
        )
    if silent:
        return f"{told} {silent} of {len(loaded.attempts)} attempts ended before they said where they ran: “not told”."
    return told

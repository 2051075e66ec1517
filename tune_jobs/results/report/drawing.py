"""What all figures of the report share.

Colours are CSS variables, which the page fills in for light or dark; so a figure holds no colour of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

COLOURS = 6
"""Of --c0, --c1, …: more groups than these start again, with another symbol."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
SEQUENTIAL = [[i / 4, f"var(--s{i})"] for i in range(5)]


@dataclass(frozen=True)
class Figure:
    """One figure with its words."""

    key: str
    title: str
    caption: str
    spec: dict[str, Any]
    """What plotly.js draws; of the heat map, what the page makes it from."""


def spec(figure: go.Figure, height: int = 380, **layout: Any) -> dict[str, Any]:
    """A figure as plain JSON values, without plotly's template: the page has its own looks."""
    plain: dict[str, Any] = json.loads(figure.to_json())
    plain["layout"] = {k: v for k, v in plain["layout"].items() if k not in ("template", "title")}
    plain["layout"] |= {"height": height} | layout
    return plain


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis under this title."""
    return {"title": {"text": title}} | more


def grouped(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Name -> its colour and its symbol, which tell it apart also without colour."""
    distinct = list(dict.fromkeys(names))
    return {
        name: {"color": f"var(--c{index % COLOURS})", "symbol": SYMBOLS[index % len(SYMBOLS)]}
        for index, name in enumerate(distinct)
    }

"""The tables that a person sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from profiling.flops import Count


def flops_table(counts: Sequence[Count]) -> Table:
    """A row a count; millions of multiply-accumulates for one image."""
    columns = ("macs M", "fvcore M", "thop M", "torch M", "params", "activations")
    table = _table(["model", "channels", "size"], columns, ["by operator, M", "not counted", "counted on"])
    for one in counts:
        operators = ", ".join(f"{name} {value / 1e6:,.4g}" for name, value in one.by_operator.items() if value)
        skipped = ", ".join(f"{name} ×{calls}" for name, calls in one.not_counted.items())
        millions = [_millions(value) for value in (one.macs, one.macs_fvcore, one.macs_thop, one.macs_torch)]
        whole = ["–" if value is None else f"{value:,}" for value in (one.params, one.activations)]
        sizes = [one.model, str(one.channels), str(one.image_size)]
        table.add_row(*sizes, *millions, *whole, operators, skipped, one.counted_on)
    return table


def flops_lines(counts: Sequence[Count]) -> list[str]:
    """What the columns mean, and whether the two counters agree."""
    lines = [
        "macs: convolutions and linear layers; fvcore: all it counts; thop: batch norm counted twice as often as by "
        "fvcore; torch: half of torch.utils.flop_counter's"
    ]
    checked = [one for one in counts if one.macs_torch is not None]
    apart = [f"{one.model} at {one.image_size}" for one in checked if one.macs_torch != one.macs]
    if apart:
        lines.append(f"fvcore and torch.utils.flop_counter differ: {', '.join(apart)}")
    elif checked:
        lines.append(f"fvcore and torch.utils.flop_counter agree on all {len(checked)}")
    return lines


def _table(words: Sequence[str], figures: Sequence[str], more: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in words:
        table.add_column(name)
    for name in figures:
        table.add_column(name, justify="right")
    for name in more:
        table.add_column(name, overflow="fold")
    return table


def _millions(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.2f}" if value < 1e9 else f"{value / 1e6:,.1f}"


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"

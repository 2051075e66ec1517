"""Whether training times compare: said wherever the report ranks by them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tune_jobs.results import selection
from tune_jobs.results.table import Row


def sentence(rows: Sequence[Row], side_by_side: bool) -> str:
    """On the times of these rows; empty where each ran alone, on the same node and kind of device.

    `side_by_side`: whether the ledger's times show trials at once, which is all that one of an earlier version knows.
    """
    timed = [row for row in rows if not math.isnan(row.train_time_s)]
    if len(timed) < 2:
        return ""
    shared, others = _shared(timed, side_by_side), _places(timed)
    fused = (
        " The time of a fused trial is that of all that were trained as one with it." if any(map(_fused, timed)) else ""
    )
    if not shared and not others:
        return fused.strip()
    return (
        " ".join(filter(None, ["Times are of trials that ran", shared, f"on {others}" if others else ""]))
        + (": small differences mean nothing." if _alike(timed) and not others else ": they do not quite compare.")
        + fused
    )


def spent(rows: Sequence[Row]) -> float:
    """Training time of all rows, in s, those without one left out; of trials that were trained as one, each has its
    share of the time that is theirs together."""
    return sum(row.train_time_s / (row.fused or 1) for row in rows if not math.isnan(row.train_time_s))


def _fused(row: Row) -> bool:
    return row.fused is not None


def _alike(rows: Sequence[Row]) -> bool:
    return not selection.unlike(rows)


def _shared(rows: Sequence[Row], side_by_side: bool) -> str:
    most = selection.company(rows)[1]
    if math.isnan(most):
        return "side by side, beside how many is not known" if side_by_side else ""
    silent = sum(math.isnan(row.shared_with) for row in rows)
    unknown = f" ({silent} do not say)" if silent else ""
    if not _alike(rows):
        return f"beside {selection.unlike(rows)}{unknown}"
    others = "one other" if f"{most:.1f}" == "1.0" else f"{most:.1f} others"
    return f"side by side, each beside about {others} of the search{unknown}" if most >= selection.ALIKE else ""


def _places(rows: Sequence[Row]) -> str:
    """The kinds of device, or the number of nodes, where there are several."""
    devices = sorted({row.device.partition(":")[0] for row in rows if row.device})
    nodes = {row.node for row in rows if row.node}
    parts = [" and ".join(devices)] if len(devices) > 1 else []
    parts += [f"{len(nodes)} nodes"] if len(nodes) > 1 else []
    return ", ".join(parts)

"""The tables of the page that a person sorts and filters, and numbers as the page says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.wording import label
from tune_jobs.results.table import Row, rank

TRAINED = "epochs trained"
"""The column's name where the config's `epochs` are another one."""


@dataclass(frozen=True)
class Cell:
    """One cell of the table of trials."""

    text: str
    sort: str
    """What it is sorted and filtered by; numbers in full."""


@dataclass(frozen=True)
class Column:
    """A column of the table of trials."""

    name: str
    number: bool


def count(value: float | None) -> str:
    """A large number, to three digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if value < 1000:
        return f"{value:g}"
    rounded = float(f"{value:.3g}")
    size, letter = next(unit for unit in UNITS if rounded >= unit[0])
    return f"{rounded / size:,.0f} {letter}" if rounded >= 1000 * size else f"{rounded / size:.3g} {letter}"


UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def of_trials(loaded: Loaded) -> tuple[list[Column], list[tuple[Row, list[Cell]]]]:
    """Best first; what is not COMPLETE at the end.

    With how many others a trial ran, and on what, is there where that matters or differs.
    """
    values = {name: [row.config.get(name) for row in loaded.rows] for name in loaded.fields}
    columns = [Column("trial", False), Column("state", False), Column("val %", True), Column("test %", True)]
    columns += [Column(name, all(v is None or type(v) in (int, float) for v in values[name])) for name in loaded.fields]
    trained = TRAINED if "epochs" in loaded.fields else "epochs"
    if any(row.fold for row in loaded.rows):
        columns.append(Column("seed", True))
    columns += [Column(name, True) for name in ("best epoch", trained, "train s", "params", "MACs")]
    if any(row.shared_with >= 0.05 for row in loaded.rows):
        columns.append(Column("beside", True))
    if any(row.shared_card_with >= 0.05 for row in loaded.rows):
        columns.append(Column("on its card", True))
    if any(row.fused for row in loaded.rows):
        columns.append(Column("fused", True))
    if len({(row.node, row.device) for row in loaded.rows if row.device}) > 1:
        columns.append(Column("on", False))
    if any(row.reason for row in loaded.rows):
        columns.append(Column("reason", False))
    ordered = sorted(loaded.rows, key=rank)
    return columns, [(row, [_cell(row, column.name, loaded.fields) for column in columns]) for row in ordered]


def _cell(row: Row, column: str, fields: Sequence[str]) -> Cell:
    if column in fields:
        value = row.config.get(column)
        return Cell("–", "") if value is None else Cell(label(value), str(value))
    match column:
        case "trial":
            return Cell(row.id + (" ★" if row.pareto else ""), row.id)
        case "state":
            return Cell(row.state, row.state)
        case "val %" | "test %":
            return number(100 * (row.val_accuracy if column == "val %" else row.test_accuracy))
        case "train s":
            return number(row.train_time_s)
        case "params" | "MACs":
            cost = row.params if column == "params" else row.macs
            return Cell(count(cost), "" if cost is None else str(cost))
        case "beside":
            return number(row.shared_with, 1)
        case "on its card":
            return number(row.shared_card_with, 1)
        case "on":
            text = " ".join(filter(None, (row.device, row.node))) or "–"
            return Cell(text, text)
        case "reason":
            text = f"{row.failure}: {row.reason}" if row.failure else row.reason or ""
            return Cell(text, text)
    value = {
        "best epoch": row.best_epoch,
        "fused": row.fused,
        "epochs": row.epochs,
        TRAINED: row.epochs,
        "seed": row.seed,
    }[column]
    return Cell("–", "") if value is None else Cell(label(value), str(value))


def number(value: float, digits: int = 2) -> Cell:
    """A dash where there is none."""
    return Cell("–", "") if math.isnan(value) else Cell(f"{value:,.{digits}f}", repr(value))

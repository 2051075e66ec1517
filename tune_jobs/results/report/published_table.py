"""A published table beside ours as text, for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune_jobs.results.report.published import Table
from tune_jobs.results.report.published_cell import Cell
from tune_jobs.results.report.wording import label


@dataclass(frozen=True)
class Shown:
    """One table as it is read."""

    title: str
    words: list[str]
    """Heads of the columns of words, which stand first."""
    numbers: list[str]
    """Heads of the columns of numbers, which stand behind them."""
    rows: list[list[str]]
    notes: list[str]


def shown(table: Table) -> Shown:
    """A row a cell, in the order of the report."""
    parameters = any(cell.figure.params is not None for cell in table.cells)
    epochs = any(cell.figure.best_epoch is not None for cell in table.cells)
    numbers = ["published %", "ours %", "difference", "noise ±"]
    numbers += ["params", "our params"] * parameters + ["best epoch", "our best epoch"] * epochs
    report, name, dataset = table.name.split("/")
    marks = [cell.marks for cell in table.cells if cell.ours]
    common = [mark for mark in marks[0] if all(mark in each for each in marks)] if len(marks) > 1 else []
    notes = [f"does not compare, all cells: {'; '.join(common)}"] if common else []
    return Shown(
        title=f"Report {report}, {name}, {dataset}: {table.run} of {len(table.cells)} cells",
        words=[*table.fields, "verdict"],
        numbers=numbers,
        rows=[_row(table, cell, common, parameters, epochs) for cell in table.cells],
        notes=[*table.notes, *notes],
    )


def _row(table: Table, cell: Cell, common: Sequence[str], parameters: bool, epochs: bool) -> list[str]:
    first = cell.ours[0] if cell.ours else None
    values = [table.value(cell, field) for field in table.fields]
    row = ["–" if value is None else label(value) for value in values]
    row += [
        "; ".join([cell.verdict, *(mark for mark in cell.marks if mark not in common)]),
        f"{_percent(cell.figure.accuracy)} ({cell.figure.metric})",
    ]
    if first is None:
        row += ["–", "–", "–"]
    else:
        ours = [first.metric] + [f"mean of {len(cell.ours)}"] * (len(cell.ours) > 1)
        row += [f"{_percent(cell.accuracy)} ({', '.join(ours)})", f"{100 * cell.difference:+.2f}"]
        row.append("–" if cell.marks else _percent(cell.noise))
    row += [_whole(cell.figure.params), _whole(first.row.params if first else None)] * parameters
    row += [_whole(cell.figure.best_epoch), _whole(first.best_epoch if first else None)] * epochs
    return row


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"

"""What a person sees: lines as trials finish, and the table.  Plain lines where the output is no terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.table import Row, varied

LOG_WIDTH = 200
"""Columns of a table in a log, where nobody can say how wide the reader's window is."""


def console(stderr: bool = False) -> Console:
    """Colours and the window's width in a terminal; plain and wide in a log."""
    probe = Console(stderr=stderr, highlight=False)
    return probe if probe.is_terminal else Console(stderr=stderr, highlight=False, width=LOG_WIDTH)


def say(out: Console, line: str) -> None:
    """A line as it is: not wrapped, not read as markup."""
    out.print(line, markup=False, soft_wrap=True)


def finished_line(trial: TrialRecord, finished: int, total: int, fields: Sequence[str]) -> str:
    """One line for a trial that has just finished."""
    config = " ".join(f"{name}={_text(trial.config[name])}" for name in fields if name in trial.config)
    head = f"[{finished}/{total}] {trial.id} {trial.state}"
    if trial.state == "COMPLETE":
        accuracy, seconds = trial.result["val_accuracy"], trial.result["train_time_s"]
        return f"{head}  {config}  val {accuracy:.2%}  train {seconds:.1f} s"
    return f"{head}  {config}  {trial.failure}: {trial.reason}"


def trials_table(rows: Sequence[Row], plain: bool) -> Table:
    """The rows, best first, with the config fields in which they differ; failures at the end with their reasons."""
    fields = varied([row.config for row in rows]) or ["model"]
    table = Table(box=None if plain else Table().box, pad_edge=False, header_style="bold")
    failures = any(row.failure for row in rows)
    for name in ("id", "state", *fields):
        table.add_column(name, no_wrap=name in ("id", "state"))
    for name in ("val acc", "test acc", "best epoch", "epochs", "train s", "wall s"):
        table.add_column(name, justify="right")
    if failures:
        table.add_column("failure")
    for row in sorted(rows, key=_rank):
        cells = [row.id, row.state, *(_text(row.config.get(name)) for name in fields)]
        cells += [percent(row.val_accuracy), percent(row.test_accuracy)]
        cells += [_text(row.best_epoch), str(row.epochs), _seconds(row.train_time_s), _seconds(row.wall_time_s)]
        if failures:
            cells.append(f"{row.failure}: {row.reason}" if row.failure else "")
        table.add_row(*map(escape, cells))
    return table


def percent(value: float) -> str:
    """A share from 0 to 1; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.2%}"


def _rank(row: Row) -> tuple[bool, float]:
    return row.state != "COMPLETE", -row.val_accuracy if not math.isnan(row.val_accuracy) else math.inf


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)

"""What five course reports published, cell by cell, beside what our runs found.

A row of ours belongs to a published cell where it has every field of the config that the cell's table states.  A run
whose experiment names the table may differ in the data set, the number of images and the epochs; that is marked, and
nothing is concluded from such a cell.  Any other run must have those as the table states them, or its experiment.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profiling import reports
from profiling.reports import Figure
from tune_jobs.errors import UsageError
from tune_jobs.results import table
from tune_jobs.results.ledger import TrialRecord, number_of
from tune_jobs.results.report.conditions import marks
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.published_cell import Cell, Match
from tune_jobs.results.statistics import LEVEL
from tune_jobs.results.table import Row

MANY = 5
"""Cells that compare, of which it is said how many lie outside by chance."""


@dataclass(frozen=True)
class Table:
    """One published table."""

    name: str
    """report/table/dataset."""
    fields: list[str]
    """Fields in which its cells differ."""
    cells: list[Cell]
    notes: list[str]

    def value(self, cell: Cell, field: str) -> Any:
        return _stated(cell.figure).get(field)

    @property
    def run(self) -> int:
        """How many of its cells were."""
        return sum(bool(cell.ours) for cell in self.cells)


def beside(runs: Sequence[Loaded]) -> list[Table]:
    """The published tables of which the runs have a cell.  Raises UsageError where there is none."""
    found = [beside_table(name, runs) for name in reports.tables()]
    touched = [each for each in found if each.run]
    if not touched:
        names = ", ".join(each.run.name for each in runs)
        raise UsageError(
            f"--published: no finished trial of {names} is a cell of a published table; the tables are "
            f"{', '.join(reports.tables())}, and `presets` lists the experiments that do them again"
        )
    return touched


def not_run(tables: Sequence[Table]) -> list[str]:
    """The published tables that are not among these, each with its number of cells."""
    have = {each.name for each in tables}
    return [
        f"{name} ({sum(figure.name == name for figure in reports.read())})"
        for name in reports.tables()
        if name not in have
    ]


def beside_table(name: str, runs: Sequence[Loaded]) -> Table:
    """One table, with what the runs have of it."""
    figures = [figure for figure in reports.read() if figure.name == name]
    fields = list(dict.fromkeys(field for figure in figures for field in figure.config))
    taken: set[tuple[str, str]] = set()
    cells = []
    for figure in figures:
        repeated = sum(_stated(other) == _stated(figure) for other in figures) > 1
        matches = [
            match for match in _matches(figure, fields, runs) if (str(match.loaded.run.path), match.row.id) not in taken
        ]
        cell = _one_of_several(figure, matches) if repeated else _cell(figure, matches)
        if repeated:  # a figure for each training: a training of ours for each
            taken |= {(str(match.loaded.run.path), match.row.id) for match in cell.ours}
        cells.append(cell)
    varied = table.varied([_stated(figure) for figure in figures])
    # A field that one half of the table states and the other leaves out tells them apart, too.
    halves = [
        field
        for field in dict.fromkeys(field for figure in figures for field in _stated(figure))
        if field not in varied and not all(field in _stated(figure) for figure in figures)
    ]
    return Table(name, [*varied, *halves] or list(_stated(figures[0])), cells, _notes(cells))


def _stated(figure: Figure) -> dict[str, Any]:
    """What tells a table's cells apart."""
    more = {"epochs": figure.epochs, "device": figure.device}
    return figure.config | {key: value for key, value in more.items() if value is not None}


def _matches(figure: Figure, fields: Sequence[str], runs: Sequence[Loaded]) -> list[Match]:
    """Our rows that are this cell's, those in its very conditions alone where there are any."""
    found = []
    for loaded in runs:
        named = loaded.experiment.published
        if named and figure.name not in named:
            continue
        trials = {trial.id: trial for trial in loaded.trials}
        for row in loaded.rows:
            if row.state != "COMPLETE" or not math.isfinite(row.val_accuracy):
                continue
            if any(row.config.get(field) != figure.config.get(field) for field in fields):
                continue
            if figure.device is not None and row.device != figure.device:
                continue
            match = _match(figure, loaded, row, trials[row.id])
            if match is not None and (named or not match.marks):
                found.append(match)
    fewest = min((len(match.marks) for match in found), default=0)
    return [match for match in found if len(match.marks) == fewest]


def _match(figure: Figure, loaded: Loaded, row: Row, trial: TrialRecord) -> Match | None:
    """The row as this cell's; None where fewer epochs cannot be read from it."""
    asked = row.config.get("epochs")
    epochs = trial.epochs
    if asked is not None and figure.epochs is not None and figure.epochs < asked:
        if row.config.get("lr_schedule") != "constant":
            return None
        epochs = [epoch for epoch in epochs if epoch["epoch"] <= figure.epochs]
    best = max(epochs, key=lambda epoch: (epoch["val_accuracy"], -epoch["epoch"]), default=None)
    if best is None:
        return None
    # The weights of the best epoch are the same ones, whether the training went on behind it or not.
    tested = figure.metric == "test" and best["epoch"] == row.best_epoch and math.isfinite(row.test_accuracy)
    return Match(
        loaded=loaded,
        row=row,
        accuracy=row.test_accuracy if tested else best["val_accuracy"],
        metric="test" if tested else "val",
        best_epoch=best["epoch"],
        marks=marks(figure, loaded, asked),
    )


def _cell(figure: Figure, matches: Sequence[Match]) -> Cell:
    """The best by validation of the configs that fit, with all its repeats."""
    groups: dict[tuple[str, int], list[Match]] = {}
    for match in matches:
        groups.setdefault((str(match.loaded.run.path), number_of(match.row.id)), []).append(match)
    if not groups:
        return Cell(figure, (), 0)
    best = max(groups.values(), key=lambda group: statistics.fmean(match.row.val_accuracy for match in group))
    return Cell(figure, tuple(best), len(groups))


def _one_of_several(figure: Figure, matches: Sequence[Match]) -> Cell:
    """The first that no figure before took."""
    return Cell(figure, tuple(matches[:1]), 1 if matches else 0)


def _notes(cells: Sequence[Cell]) -> list[str]:
    """What has to be known to read the table."""
    ours = [match for cell in cells for match in cell.ours]
    if not ours:
        return []
    figure = cells[0].figure
    runs = {str(match.loaded.run.path): match.loaded for match in ours}
    notes = [f"ours: {', '.join(loaded.run.name for loaded in runs.values())}"]
    trained = sorted({int(loaded.environment["images"]["train"]) for loaded in runs.values()})
    if figure.train_images is None:
        notes.append(f"training images: theirs are not stated, ours are {' and '.join(f'{n:,}' for n in trained)}")
    asked = sorted({match.row.config["epochs"] for match in ours if "epochs" in match.row.config})
    if figure.epochs is None and asked:
        notes.append(f"epochs: theirs are not stated, ours are {' and '.join(map(str, asked))}")
    if any(match.metric != cell.figure.metric for cell in cells for match in cell.ours):
        notes.append(
            "val for test: our validation accuracy beside their test accuracy, where the cell is the beginning of a "
            "longer training whose test came later; the two do not compare"
        )
    if any(cell.chosen_from > 1 for cell in cells):
        notes.append("several of our configs fit a cell: the one with the highest validation accuracy stands there")
    if comparing := [cell for cell in cells if cell.ours and not cell.marks]:
        seeds = {str(cell.ours[0].loaded.run.path): cell.ours[0].loaded for cell in comparing if cell.with_seeds}
        sources = dict.fromkeys(cell.noise_source for cell in comparing)
        notes.append(
            "noise: 95 % of the difference by chance, binomial over "
            + "; ".join(sources)
            + "".join(
                f"; over seeds by {each.noise.source} ({each.run.name}) on {each.noise.degrees} degrees of freedom"
                for each in seeds.values()
            )
        )
        if any(cell.without_seeds for cell in comparing):
            notes.append("seeds are not in the noise of an unrepeated run: it is the least that chance does")
        if len(comparing) >= MANY:
            by_chance = len(comparing) * (1 - LEVEL)
            notes.append(f"of {len(comparing)} cells that compare, about {by_chance:.1f} lie outside by chance alone")
    return notes

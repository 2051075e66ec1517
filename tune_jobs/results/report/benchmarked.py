"""What the report shows of a benchmark run: bars, rows, break-even, and published rows beside ours."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from profiling import breakeven, published, rows, tables
from profiling.rows import Row
from tune_jobs.results.report.bars import bars
from tune_jobs.results.report.cells import Cell, Column, count, number
from tune_jobs.results.report.drawing import Figure
from tune_jobs.results.report.finding import Finding
from tune_jobs.results.report.published_table import Shown
from tune_jobs.results.rundir import RunDir


@dataclass(frozen=True)
class Benchmark:
    """A benchmark run's files, and all that the page shows of them."""

    key: str
    run: RunDir
    environment: dict[str, Any]
    rows: list[Row]

    @property
    def states(self) -> dict[str, int]:
        return dict(Counter(row.state for row in self.rows))

    @property
    def devices(self) -> list[str]:
        """Each that has a complete row, in words."""
        found = {(row.machine, row.compute): row for row in self.rows if row.complete}
        return [f"{row.compute}: {row.device_name} ({row.machine})" for row in found.values()]

    @property
    def machines(self) -> list[str]:
        """Each that measured a row, in words; empty where none came back.  The driver's may be another one."""
        found = {row.machine: row for row in self.rows if row.cpu}
        return [
            f"{name}: {row.cpu}, {row.cpu_cores} cores, {row.memory_gib:g} GiB; Python {row.python}, torch {row.torch}"
            for name, row in found.items()
        ]

    @cached_property
    def figure(self) -> Figure | None:
        return bars(self.rows)

    @property
    def findings(self) -> list[Finding]:
        """From which batch size a GPU pays; empty where none was measured."""
        if not breakeven.find(self.rows):
            return []
        told = [line.partition(": ") for line in breakeven.lines(self.rows)]
        return [Finding("note", lead, text) for lead, _, text in told]

    @property
    def notes(self) -> list[str]:
        """What the rows were measured on, and what they do not say."""
        return tables.devices_lines(self.rows)

    @cached_property
    def columns(self) -> list[Column]:
        several = len({row.machine for row in self.rows}) > 1
        words = ["compute", "state", *(["machine"] if several else []), "model", "optimizer"]
        numbers = ["size", "batch", "images/s", "speed-up", "epoch ms", "spread %", "test %", "MACs",
                   "nominal % of peak", "memory MiB", "threads"]  # fmt: skip
        failed = ["reason"] if any(row.reason for row in self.rows) else []
        return [
            *(Column(name, False) for name in words),
            *(Column(name, True) for name in numbers),
            *(Column(name, False) for name in ["precision", *failed]),
        ]

    @property
    def table(self) -> list[tuple[Row, list[Cell]]]:
        """In the order they were asked for."""
        columns = self.columns
        return [(row, [_cell(row, column.name) for column in columns]) for row in self.rows]

    @cached_property
    def published(self) -> Shown | None:
        """Rows of published reports for the same work on the same kind of device; None where there are none."""
        found = published.beside(self.rows)
        if not found:
            return None
        return Shown(
            title="Beside published rows",
            words=list(tables.PUBLISHED_WORDS),
            numbers=list(tables.PUBLISHED_FIGURES),
            rows=[tables.published_cells(one) for one in found],
            notes=tables.published_lines(),
        )


def load(key: str, run: RunDir) -> Benchmark:
    """Raises UsageError or ProfilingError where a file is missing or damaged."""
    return Benchmark(key, run, run.read_environment(), rows.read(run.benchmark))


def _cell(row: Row, column: str) -> Cell:
    match column:
        case "images/s":
            return number(row.images_per_s, 1)
        case "speed-up":
            return number(row.speedup)
        case "epoch ms":
            cell = number(row.train_time_ms, 0)
            return Cell(f"~{cell.text}", cell.sort) if row.estimated and cell.sort else cell
        case "spread %":
            return number(100 * row.spread, 1)
        case "test %":
            return number(100 * row.test_accuracy)
        case "nominal % of peak":
            return number(100 * row.peak_share, 1)
        case "memory MiB":
            return number(row.peak_memory_mib, 0)
        case "MACs":
            return Cell(count(row.macs), "" if row.macs is None else str(row.macs))
    value = {
        "machine": row.machine, "compute": row.compute, "state": row.state, "model": row.model,
        "optimizer": row.optimizer, "size": row.image_size, "batch": row.batch_size, "threads": row.threads,
        "precision": row.precision or row.asked_precision, "reason": row.reason,
    }[column]  # fmt: skip
    return Cell("–", "") if value is None else Cell(str(value), str(value))

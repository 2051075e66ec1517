"""The tables that a person sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from profiling import breakeven, published
from profiling.console import say
from profiling.devices import BATCH_SIZE, LR
from profiling.flops import Count
from profiling.memory import Needed
from profiling.published import Beside
from profiling.rows import Row


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
        "fvcore; torch: half of torch.utils.flop_counter's",
        "not counted: what fvcore lists as such; ReLU and dropout it passes over without listing them",
    ]
    checked = [one for one in counts if one.macs_torch is not None]
    apart = [f"{one.model} at {one.image_size}" for one in checked if one.macs_torch != one.macs]
    if apart:
        lines.append(f"fvcore and torch.utils.flop_counter differ: {', '.join(apart)}")
    elif checked:
        lines.append(f"fvcore and torch.utils.flop_counter agree on all {len(checked)}")
    return lines


def devices_table(rows: Sequence[Row]) -> Table:
    """A row each, in their order; failures with their reasons."""
    words = ["compute", "model", "optimizer", "size", "batch", "precision"]
    figures = (
        "test %", "train ms", "step ms", "spread %", "images/s", "MACs M", "nominal GFLOP/s", "peak GFLOP/s",
        "nominal % of peak", "memory MiB", "threads", "speed-up",
    )  # fmt: skip
    table = _table(words, figures, ["top operators, or why it failed"])
    for row in rows:
        about = "~" if row.estimated and row.complete else ""
        cells = [
            row.compute, row.model, row.optimizer or "–", str(row.image_size), str(row.batch_size or "–"),
            row.precision or row.asked_precision,
            _number(100 * row.test_accuracy, 2), about + _number(row.train_time_ms, 0), _number(row.step_time_ms, 2),
            _number(100 * row.spread, 1), _number(row.images_per_s, 1), _millions(row.macs),
            _number(row.achieved_flop_per_s / 1e9, 1), _number(row.peak_flop_per_s / 1e9, 1),
            _number(100 * row.peak_share, 1), _number(row.peak_memory_mib, 0), str(row.threads),
            _number(row.speedup, 2), row.reason or row.top_operators or "",
        ]  # fmt: skip
        table.add_row(*map(escape, cells))
    return table


NOMINAL = (
    "nominal: of the whole network's operations; where kernel taps touch padding alone they are left out, so that "
    "fewer are executed and the device reaches less of its peak"
)


def devices_lines(rows: Sequence[Row]) -> list[str]:
    """What the rows were measured on, and what they do not say."""
    lines = []
    for row in {(row.machine, row.compute): row for row in rows if row.device_name}.values():  # none of a lost process
        clock = "" if math.isnan(row.device_clock_mhz) else f", {row.device_clock_mhz:,.0f} MHz"
        lines.append(f"{row.machine} {row.compute}: {row.device_name}{clock}, torch {row.torch}")
    if any(row.training_flops is not None and row.complete for row in rows):
        lines.append(NOMINAL)
    if all(row.kind == "cpu" for row in rows):
        lines.append("no accelerator was measured: these are the CPU's rows alone")
    if any(row.estimated for row in rows):
        lines.append("~ an epoch estimated from the timed steps; no test accuracy is measured then")
    return lines


PUBLISHED_WORDS = ("compute", "model", "optimizer", "size", "precision", "report", "note")
PUBLISHED_FIGURES = ("our epoch ms", "their epoch ms", "theirs/ours", "our test %", "their test %")


def published_cells(one: Beside) -> list[str]:
    """Our row with a report's, in the order of `PUBLISHED_WORDS` and `PUBLISHED_FIGURES`."""
    row, theirs = one.row, one.published
    return [
        row.compute, row.model, row.optimizer or "–", str(row.image_size), row.precision or row.asked_precision,
        theirs.report, "; ".join(one.marks), ("~" if one.is_reckoned else "") + _number(one.epoch_ms, 0),
        _number(theirs.train_time_ms, 0), _number(one.ratio, 2), _number(100 * row.test_accuracy, 2),
        _number(100 * theirs.test_accuracy, 2),
    ]  # fmt: skip


def published_table(found: Sequence[Beside]) -> Table:
    """Our rows with the reports'."""
    table = _table(PUBLISHED_WORDS, PUBLISHED_FIGURES)
    for one in found:
        table.add_row(*map(escape, published_cells(one)))
    return table


def published_lines() -> list[str]:
    """What has to be known to read the ratios."""
    return [
        f"beside three course reports, for one epoch of {published.IMAGES:,} images; ~ is reckoned from some steps or "
        "from another number of images",
        f"what a report does not state is taken to be as here: one epoch, {published.IMAGES:,} images, batch size "
        f"{BATCH_SIZE}, lr {LR:g}; their machines and precisions are not named, and C's 224 has three channels where "
        "FashionMNIST here has one",
    ]


def comparison_table(ours: Sequence[Row], theirs: Sequence[Row]) -> Table:
    """Two machines side by side: rows that did the same work on the same kind of device."""
    words = ["model", "optimizer", "size", "batch", "precision", "ours", "theirs"]
    table = _table(
        words, ("our images/s", "their images/s", "ours/theirs", "our nominal % of peak", "their nominal % of peak")
    )
    for mine, other in pairs(ours, theirs):
        cells = [
            mine.model, mine.optimizer or "–", str(mine.image_size), str(mine.batch_size or "–"), _both(mine, other),
            f"{mine.compute} {mine.device_name}", f"{other.compute} {other.device_name}",
            _number(mine.images_per_s, 1), _number(other.images_per_s, 1),
            _number(mine.images_per_s / other.images_per_s, 2),
            _number(100 * mine.peak_share, 1), _number(100 * other.peak_share, 1),
        ]  # fmt: skip
        table.add_row(*map(escape, cells))
    return table


def _both(mine: Row, other: Row) -> str:
    """The precisions that ran: they may differ where auto was asked for."""
    return " / ".join(dict.fromkeys(str(row.precision) for row in (mine, other)))


def pairs(ours: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Complete rows of the same model, optimizer, size, batch, precision and data on the same kind of device.

    How many images an epoch had does not matter, since rates are compared; but an svm's time is not proportional to it.
    """
    return [
        (mine, other)
        for mine in ours
        for other in theirs
        if mine.complete and other.complete and mine.kind == other.kind and mine.work[:-1] == other.work[:-1]
        if mine.images == other.images or mine.batch_size is not None
    ]


def memory_table(found: Sequence[Needed]) -> Table:
    """A row a config and device; failures with their reasons."""
    words = ["device", "model", "optimizer", "size", "batch", "precision"]
    failed = ["why it failed"] if any(one.reason for one in found) else []
    table = _table(words, ("peak MiB", "on the card MiB"), failed)
    for one in found:
        config, peak = one.config, one.peak
        cells = [str(one.device), config.model, config.optimizer, str(one.image_size), str(config.batch_size)]
        cells += [one.precision, _number(peak.peak_memory_mib, 0), _number(peak.card_memory_mib, 0)]
        table.add_row(*map(escape, [*cells, *([one.reason or ""] if failed else [])]))
    return table


def row_line(row: Row) -> str:
    """One line for a row that has just been measured."""
    batch = "" if row.batch_size is None else f" batch {row.batch_size}"
    head = f"{row.compute} {row.model} {row.optimizer or ''}".rstrip() + f" at {row.image_size}{batch}"
    if not row.complete:
        return f"{head}: {row.reason}"
    about = " (estimated)" if row.estimated else ""
    return f"{head}: {row.train_time_ms:,.0f} ms an epoch{about}, {row.images_per_s:,.1f} images/s, {row.precision}"


def print_report(out: Console, rows: Sequence[Row], others: Sequence[Row]) -> None:
    """All that the rows say: the table, the reports beside it, break-even, and another machine's rows."""
    out.print(devices_table(rows))
    for line in [*devices_lines(rows), *breakeven.lines(rows)]:
        say(out, line)
    if found := published.beside(rows):
        say(out, "")
        out.print(published_table(found))
        for line in published_lines():
            say(out, line)
    if others:
        say(out, "")
        if pairs(rows, others):
            out.print(comparison_table(rows, others))
        else:
            say(out, "nothing to compare: no complete row of the other file did the same work on such a device")


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

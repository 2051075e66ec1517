"""What the speed benchmark's runs say, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from profiling.harness import Cell, Run
from profiling.timing import Timing


def markdown(runs: Sequence[Run], cells: Sequence[Cell]) -> str:
    """A table of contenders for each work, accuracies for each cell, and what it was measured on.  `runs` is not
    empty."""
    parts = [
        _table(work, [run for run in runs if run.work == work]) for work in dict.fromkeys(run.work for run in runs)
    ]
    if cells:
        parts.append(_accuracies(cells))
    one = runs[0]
    busy = max(run.cores_busy_before for run in runs)
    parts.append(
        f"{one.cpu}, {one.cpu_cores} cores, {one.memory_gib:g} GiB; Python {one.python}, torch {one.torch}, "
        f"Ray {one.ray}, Optuna {one.optuna}; commit {one.git_commit or 'unknown'}; "
        f"before a run others kept at most {busy:.1f} cores busy"
    )
    return "\n\n".join(parts)


def _table(work: str, runs: Sequence[Run]) -> str:
    """Medians over the rounds; of ratios, of those within each round, with the least and the greatest."""
    by = {name: [run for run in runs if run.contender == name] for name in dict.fromkeys(run.contender for run in runs)}
    others = [name for name in ("sequential", "stock") if name in by]
    floor = by.get("floor")
    lines = [f"{work}, {runs[0].trials} trials, {max(map(len, by.values()))} rounds:", ""]
    heads = ["contender", "wall s", "spread", *(f"{name} / it" for name in others)]
    heads += ["it / floor"] if floor else []
    heads += [
        "training s",
        "overhead a trial s",
        "val % (mean ± sd over seeds)",
        "driver MiB at 100",
        "at 500",
        "at the end",
    ]
    lines += [_row(heads), _row(["---"] * len(heads))]
    for name, own in by.items():
        wall = Timing(tuple(run.wall_s for run in own))
        figures = [name, f"{wall.median_s:.1f}", f"{wall.spread:.0%}" if len(own) > 1 else "–"]
        figures += [_ratio(by[other], own) for other in others]
        figures += [_ratio(own, floor)] if floor else []
        figures += [
            f"{statistics.median(run.train_time_s for run in own):.1f}",
            f"{statistics.median(run.overhead_s for run in own):.3f}",
            _accuracy([run.val_accuracy for run in own]),
            _whole(statistics.median(run.driver_mib_100 for run in own)),
            _whole(statistics.median(run.driver_mib_500 for run in own)),
            _whole(statistics.median(run.driver_mib_last for run in own)),
        ]
        lines.append(_row(figures))
    return "\n".join(lines)


def _ratio(above: Sequence[Run], below: Sequence[Run]) -> str:
    """The median of the rounds' ratios of wall time, with the least and the greatest: a machine that is slow for a
    round is slow for both."""
    walls = {run.round: run.wall_s for run in below}
    found = sorted(run.wall_s / walls[run.round] for run in above if run.round in walls)
    if not found:
        return "–"
    median = f"{statistics.median(found):.2f}"
    return median if len(found) == 1 or above is below else f"{median} ({found[0]:.2f} to {found[-1]:.2f})"


def _accuracies(cells: Sequence[Cell]) -> str:
    """A row a cell, a column a contender: validation accuracy after the last epoch, over the rounds' seeds."""
    names = list(dict.fromkeys(cell.contender for cell in cells))
    heads = ["model", "batch", "optimizer", "lr", *(f"{name} val %" for name in names)]
    lines = [_row(heads), _row(["---"] * len(heads))]
    keys = sorted({(cell.model, cell.batch_size, cell.optimizer, cell.lr) for cell in cells})
    for key in keys:
        own = [cell for cell in cells if (cell.model, cell.batch_size, cell.optimizer, cell.lr) == key]
        found = [[cell.val_accuracy for cell in own if cell.contender == name] for name in names]
        lines.append(_row([*map(str, key[:3]), f"{key[3]:g}", *map(_accuracy, found)]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _accuracy(values: Sequence[float]) -> str:
    if not values or any(math.isnan(value) for value in values):
        return "–"
    deviation = f" ± {statistics.stdev(values) * 100:.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values) * 100:.2f}{deviation}"


def _whole(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"

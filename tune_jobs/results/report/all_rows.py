"""The rows of several runs as one CSV table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from profiling import rows
from tune_jobs.errors import UsageError
from tune_jobs.results import table
from tune_jobs.results.report import loaded
from tune_jobs.results.rundir import RunDir


def csv(runs: Sequence[RunDir]) -> str:
    """The rows of all runs, with the name of the run before each.

    Raises UsageError for searches and benchmarks together, whose rows have no column in common, and where a file is
    missing or damaged.
    """
    if len({run.is_benchmark for run in runs}) > 1:
        raise UsageError("--format csv: the rows of searches and of benchmarks are no one table; ask for each alone")
    frames = []
    for run in runs:
        data = rows.frame(rows.read(run.benchmark)) if run.is_benchmark else table.frame(loaded.rows(run))
        data.insert(0, "run", run.name)
        frames.append(data)
    with_rows = [frame for frame in frames if len(frame)] or frames[:1]
    text: str = pd.concat(with_rows, ignore_index=True).to_csv(index=False)
    return text

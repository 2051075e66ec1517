"""The report as Markdown, for a README or a paper, and the rows as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from tune_jobs.results import table
from tune_jobs.results.report import published
from tune_jobs.results.report.compared import lines, times
from tune_jobs.results.report.effects import label
from tune_jobs.results.report.findings import findings, wilson
from tune_jobs.results.report.loaded import Loaded, load
from tune_jobs.results.report.published_table import shown
from tune_jobs.results.rundir import RunDir


def markdown(runs: Sequence[RunDir]) -> str:
    """Tables and findings of each run."""
    loaded = [load(run) for run in runs]
    parts = [_comparison(loaded)] if len(loaded) > 1 else []
    return "\n\n".join(parts + [_run(each) for each in loaded]) + "\n"


def csv(runs: Sequence[RunDir]) -> str:
    """The rows of all runs, with the name of the run before each."""
    frames = []
    for run in runs:
        data = table.frame(load(run).rows)
        data.insert(0, "run", run.name)
        frames.append(data)
    with_rows = [frame for frame in frames if len(frame)] or frames[:1]
    text: str = pd.concat(with_rows, ignore_index=True).to_csv(index=False)
    return text


def beside_published(runs: Sequence[RunDir]) -> str:
    """Published tables with our figures in every cell.  Raises UsageError where the runs have no cell of any."""
    tables = published.beside([load(run) for run in runs])
    parts = []
    for each in map(shown, tables):
        notes = "\n".join(f"- {_escaped(note)}" for note in each.notes)
        parts += [f"## {_escaped(each.title)}", _table(each.words, each.numbers, each.rows), notes]
    if missing := published.not_run(tables):
        parts.append(f"Published, and none of its cells here (cells): {_escaped(', '.join(missing))}.")
    return "\n\n".join(parts) + "\n"


def _run(loaded: Loaded) -> str:
    parts = [f"# {_escaped(loaded.run.name)}"]
    if loaded.experiment.description:
        parts.append(_escaped(loaded.experiment.description))
    parts += [_best(loaded), "## Trials", _trials(loaded)]
    if loaded.confirmation is not None:
        parts += ["## Confirmed over fresh seeds", _confirmed(loaded)]
    found = [f"- **{_escaped(finding.lead)}.** {_escaped(finding.text)}" for finding in findings(loaded)]
    if found:
        parts += ["## What the rows say", "\n".join(found)]
    return "\n\n".join(parts)


def _best(loaded: Loaded) -> str:
    if loaded.choice is None:
        return "No usable trial: none is COMPLETE with an accuracy."
    row, accuracy = loaded.choice.row, loaded.choice.candidate.accuracy
    low, high = wilson(loaded, accuracy)
    return (
        f"Best: trial {row.id}, validation accuracy {accuracy:.2%} in the search ({low:.2%} to {high:.2%} by "
        f"{loaded.val_images:,} images alone, 95 %), test accuracy {row.test_accuracy:.2%}. "
        f"{'Confirmed below.' if loaded.confirmation else 'Not confirmed over fresh seeds.'}"
    )


def _trials(loaded: Loaded) -> str:
    """Best first; times with the note that they need."""
    ordered = sorted(
        loaded.rows,
        key=lambda row: (
            row.state != "COMPLETE",
            math.inf if math.isnan(row.val_accuracy) else -row.val_accuracy,
            row.id,
        ),
    )
    stated = any(row.state != "COMPLETE" for row in ordered)
    heads = ["trial", *(["state"] if stated else []), *loaded.fields]
    numbers = ["val %", "test %", "best epoch", "train s"]
    cells = [
        [
            row.id,
            *([f"{row.state}: {row.reason}" if row.reason else row.state] if stated else []),
            *(label(row.config[name]) if name in row.config else "–" for name in loaded.fields),
            _fixed(100 * row.val_accuracy),
            _fixed(100 * row.test_accuracy),
            "–" if row.best_epoch is None else str(row.best_epoch),
            _fixed(row.train_time_s),
        ]
        for row in ordered
    ]
    note = loaded.times(loaded.rows)
    return _table(heads, numbers, cells) + (f"\n\n{_escaped(note)}" if note else "")


def _confirmed(loaded: Loaded) -> str:
    assert loaded.confirmation is not None
    cells = []
    for config in loaded.confirmation.configs:
        versus = config.versus_first
        verdict = "first" if versus is None else "tied" if versus.tied else "worse"
        val = config.val
        numbers = [_fixed(100 * config.search_val_accuracy), str(val.n), _fixed(100 * val.mean), _fixed(100 * val.std)]
        cells.append([config.trial, verdict, *numbers, f"{_fixed(100 * val.low)} to {_fixed(100 * val.high)}"])
    return _table(["trial", "verdict"], ["search %", "seeds", "mean %", "std", "95 % interval"], cells)


def _comparison(loaded: Sequence[Loaded]) -> str:
    cells = []
    for line in lines([(each.run.name, each) for each in loaded]):
        numbers = [_fixed(100 * line.accuracy), _fixed(100 * line.test_accuracy), _fixed(line.train_time_s)]
        cells.append([line.name, line.verdict or "–", str(line.trials), *numbers])
    note = times(loaded)
    head = ["run", "against the first"]
    return (
        "# Runs\n\n"
        + _table(head, ["trials", "best val %", "test %", "training s"], cells)
        + (f"\n\n{_escaped(note)}" if note else "")
    )


def _table(words: Sequence[str], numbers: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """The columns of words to the left, those of numbers to the right."""
    heads = [[*words, *numbers], ["---"] * len(words) + ["---:"] * len(numbers)]
    rows = heads + [[_escaped(cell) for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _fixed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _escaped(text: str) -> str:
    """So that names and reasons are shown as they are, and break no table."""
    for mark in "\\`*[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())

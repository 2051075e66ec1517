"""The report as Markdown, for a README or a paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tune_jobs.errors import UsageError
from tune_jobs.results import table
from tune_jobs.results.report import benchmarked, confirmed, published
from tune_jobs.results.report.benchmarked import Benchmark
from tune_jobs.results.report.compared import lines, times
from tune_jobs.results.report.finding import wilson
from tune_jobs.results.report.findings import findings
from tune_jobs.results.report.loaded import Loaded, load
from tune_jobs.results.report.published_table import Shown, shown
from tune_jobs.results.report.wording import label
from tune_jobs.results.rundir import RunDir
from tune_jobs.results.words import fixed


def markdown(runs: Sequence[RunDir]) -> str:
    """Tables and findings of each run; benchmarks after the searches."""
    searches, benchmarks = _parted(runs)
    loaded = [load(run) for run in searches]
    parts = [_comparison(loaded)] if len(loaded) > 1 else []
    parts += [_run(each) for each in loaded] + [_benchmark(each) for each in benchmarks]
    return "\n\n".join(parts) + "\n"


def beside_published(runs: Sequence[RunDir]) -> str:
    """Published tables with our figures in every cell.  Raises UsageError where the runs have no cell of any."""
    searches, benchmarks = _parted(runs)
    parts = []
    for benchmark in benchmarks:
        if benchmark.published is None:
            raise UsageError(f"--published: no row of benchmark {benchmark.run.name} is one of a published table")
        parts += [f"## {_escaped(benchmark.run.name)}", _shown(benchmark.published)]
    if not searches:
        return "\n\n".join(parts) + "\n"
    tables = published.beside([load(run) for run in searches])
    for each in map(shown, tables):
        parts += [f"## {_escaped(each.title)}", _shown(each)]
    if missing := published.not_run(tables):
        parts.append(f"Published, and none of its cells here (cells): {_escaped(', '.join(missing))}.")
    return "\n\n".join(parts) + "\n"


def _parted(runs: Sequence[RunDir]) -> tuple[list[RunDir], list[Benchmark]]:
    """The searches, and the benchmarks read."""
    benchmarks = [benchmarked.load(run.name, run) for run in runs if run.is_benchmark]
    return [run for run in runs if not run.is_benchmark], benchmarks


def _shown(each: Shown) -> str:
    notes = "\n".join(f"- {_escaped(note)}" for note in each.notes)
    return f"{_table(each.words, each.numbers, each.rows)}\n\n{notes}"


def _benchmark(found: Benchmark) -> str:
    words = [column.name for column in found.columns if not column.number]
    numbers = [column.name for column in found.columns if column.number]
    cells = []
    for _, row in found.table:
        texts = dict(zip([column.name for column in found.columns], [cell.text for cell in row], strict=True))
        cells.append([texts[name] for name in (*words, *numbers)])
    parts = [f"# {_escaped(found.run.name)}", *([_escaped(found.figure.caption)] if found.figure else [])]
    parts += [_table(words, numbers, cells), "\n".join(f"- {_escaped(note)}" for note in found.notes)]
    if found.findings:
        told = [f"- **{_escaped(finding.lead)}.** {_escaped(finding.text)}" for finding in found.findings]
        parts += ["## What the rows say", "\n".join(told)]
    return "\n\n".join(parts)


def _run(loaded: Loaded) -> str:
    parts = [f"# {_escaped(loaded.run.name)}"]
    if loaded.experiment.description:
        parts.append(_escaped(loaded.experiment.description))
    parts += [_best(loaded), "## Trials", _trials(loaded)]
    if loaded.confirmation is not None:
        again = confirmed.shown(loaded.confirmation)
        parts += [f"## {again.title}", _shown(again)]
    found = [f"- **{_escaped(finding.lead)}.** {_escaped(finding.text)}" for finding in findings(loaded)]
    if found:
        parts += ["## What the rows say", "\n".join(found)]
    return "\n\n".join(parts)


def _best(loaded: Loaded) -> str:
    if loaded.choice is None:
        return "No usable trial: none is COMPLETE with an accuracy."
    row, accuracy = loaded.choice.row, loaded.choice.candidate.accuracy
    test, found = loaded.choice.candidate.test_accuracy, loaded.confirmation
    repeats = len(loaded.choice.candidate.rows)
    mean = f", means of {repeats} repeats" if repeats > 1 else ""
    standing = "Not confirmed over fresh seeds."
    if found is not None:
        own = found.of(row)
        standing = "Confirmed below." if own else "Not confirmed over fresh seeds: those below are of other configs."
        if own and found.refutes(row):
            standing = f"Refuted below: {found.verdict(own)} than trial {found.configs[0].trial}."
    low, high = wilson(loaded, accuracy)
    among = len(loaded.candidates)
    by_id = loaded.choice.by_id
    chosen = f"; chosen among {among}, and so likely too high" if among > 1 and not by_id else ""
    return (
        f"{'Named' if by_id else 'Best'}: trial {row.id}, validation accuracy {accuracy:.2%} "
        f"in the search ({low:.2%} to {high:.2%} by {loaded.val_images:,} images "
        f"alone, 95 %{chosen}), test accuracy {test:.2%}{mean}. {standing}"
    )


def _trials(loaded: Loaded) -> str:
    """Best first; times with the note that they need."""
    ordered = sorted(loaded.rows, key=table.rank)
    stated = any(row.state != "COMPLETE" for row in ordered)
    heads = ["trial", *(["state"] if stated else []), *loaded.fields]
    numbers = ["val %", "test %", "best epoch", "train s"]
    cells = [
        [
            row.id,
            *([": ".join(filter(None, (row.state, row.failure, row.reason)))] if stated else []),
            *(label(row.config[name]) if name in row.config else "–" for name in loaded.fields),
            fixed(100 * row.val_accuracy),
            fixed(100 * row.test_accuracy),
            "–" if row.best_epoch is None else str(row.best_epoch),
            fixed(row.train_time_s),
        ]
        for row in ordered
    ]
    note = loaded.times(loaded.rows)
    return _table(heads, numbers, cells) + (f"\n\n{_escaped(note)}" if note else "")


def _comparison(loaded: Sequence[Loaded]) -> str:
    cells = []
    for line in lines([(each.run.name, each) for each in loaded]):
        numbers = [fixed(100 * line.accuracy), fixed(100 * line.test_accuracy), fixed(line.train_time_s)]
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


def _escaped(text: str) -> str:
    """So that names and reasons are shown as they are, and break no table."""
    for mark in "\\`*[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())

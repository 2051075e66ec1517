"""Subcommands that take a run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_jobs.commands.common import (
    DEFAULT_STORAGE,
    Exit,
    Run,
    Storage,
    fail,
    one_line_errors,
    storage_at,
)

if TYPE_CHECKING:
    from tune_jobs.results.confirmation import Confirmation
    from tune_jobs.results.table import Row


def status(
    run: Run,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Stay and show the trials as they go, until the search ends; one that is broken off is given half a "
            "minute to be taken up. Ctrl-C leaves it.",
        ),
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Show a run's trials and how far it is, also while it runs.

    It reads the run directory alone: from another terminal, or any machine that sees the storage.
    """
    with one_line_errors():
        from collections import Counter

        from tune_jobs.console import console, say, trials_table
        from tune_jobs.results import damage, ledger, rundir, table

        run_dir = rundir.find(run, storage_at(storage))
        out = console()
        from tune_jobs.errors import UsageError
        from tune_jobs.experiment.repeats import asked

        if follow:
            from tune_jobs.follow import watch

            watch(run_dir, out)
        trials = ledger.read(run_dir.ledger)
        damage.check_readable(run_dir.ledger, trials)
        rows = table.rows(trials.values())
        states = Counter(row.state for row in rows)
        out.print(trials_table(rows))
        counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "none has begun"
        finished = sum(row.finished for row in rows)
        total = len(rows)
        with suppress(UsageError):  # its trials are shown whatever has become of its experiment
            total = max(total, asked(run_dir.read_experiment()))
        say(out, f"run {run_dir.name}: {finished} of {total} trials finished ({counts}); {run_dir}")
        if told := damage.told(run_dir.ledger):
            say(out, f"note: {told}")
        if finished < total and not run_dir.is_running():
            say(out, "no process runs it now; the search command that began it takes it up again")


def export(
    run: Run,
    rule: Annotated[
        str,
        typer.Option(
            help="best: highest validation accuracy.  cheapest: least training time, or smallest: fewest "
            "multiply-accumulates, among the configs near the best one: see --within."
        ),
    ] = "best",
    within: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="For cheapest and smallest: so many percentage points below the best accuracy count as near.  "
            "[default: half the interval of a confirmed run's best; else it must be given]",
        ),
    ] = None,
    trial: Annotated[
        str | None,
        typer.Option(
            help="Instead of a rule: the trial itself, by its id in the table, as the one that `confirm` found."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write.  [default: best.yaml in the run directory]")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write the best config of a run as a file that `train` runs.

    A search writes best.yaml itself, by rule best; this chooses by another rule or a trial by its id, or writes
    elsewhere.  In the run directory its weights are put beside it, where they were kept.  Of a run with several
    objectives, the configs of its Pareto front are written besides, a file each, unless --output is given.
    """
    with one_line_errors():
        from tune_jobs.console import console, say
        from tune_jobs.results import best, confirmation, damage, rundir, selection, table
        from tune_jobs.results.atomic import check_output

        check_output(output)
        run_dir = rundir.find(run, storage_at(storage))
        experiment = run_dir.read_experiment()
        trials = damage.read_whole(run_dir.ledger)
        rows = selection.with_front(table.rows(trials.values()), experiment.search.objectives)
        found = confirmation.load(run_dir.confirmation)
        row, reason = _chosen(run_dir.name, rows, found, rule, within, trial)
        path = output or run_dir.best
        best.write(run_dir, experiment, row, "trial" if trial else rule, reason, path)
        out = console()
        if told := damage.told(run_dir.ledger):
            say(out, f"note: {told}")
        if path.absolute() == run_dir.best.absolute():
            if aside := best.set_aside(run_dir, rows, row):
                say(out, f"note: other weights were there, which are {run_dir.shown(aside)} now")
            best.write_model(run_dir, row, lambda line: say(out, line))
        say(out, f"trial {row.id} ({reason}) written to {run_dir.shown(path)}")
        if found is not None and (said := best.better(run_dir, found, found.of(row))):
            say(out, f"note: {said}")
        if output is None and (front := best.write_front(run_dir, experiment, rows)):
            where = run_dir.shown(front[0].parent)
            say(out, f"Pareto front: {', '.join(path.stem for path in front)}; a config each in {where}")


def _chosen(
    run: str, rows: list[Row], found: Confirmation | None, rule: str, within: float | None, trial: str | None
) -> tuple[Row, str]:
    """The config that `export` was asked for, and why it is that one."""
    from tune_jobs.errors import UsageError
    from tune_jobs.results import best, selection

    best.check_rule(rule)
    if trial is not None and (rule != "best" or within is not None):
        raise UsageError("--trial: names the config itself; leave --rule and --within out")
    if rule == "best" and within is not None:
        raise UsageError("--within: is of rules cheapest and smallest; best takes the highest accuracy alone")
    if trial is not None:
        return best.named(rows, trial)
    if not selection.candidates(rows):
        fail(f"run {run}: no usable trial: none is COMPLETE with an accuracy", Exit.NOTHING_USABLE)
    return best.by_rule(rows, rule, None if within is None else within / 100, found)

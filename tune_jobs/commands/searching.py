"""Subcommands that take an experiment and search, or say what a search would be."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import typer

from tune_jobs.commands.common import (
    DEFAULT_STORAGE,
    DataDir,
    Exit,
    Experiments,
    Extend,
    Name,
    Quick,
    Set,
    Storage,
    WaitForNodes,
    asked_for,
    data_folder,
    fail,
    glance,
    importing,
    load_report,
    one_line_errors,
    storage_at,
    write_report,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from tune_jobs.experiment import Experiment
    from tune_jobs.results.rundir import RunDir
    from tune_jobs.search import Outcome
    from tune_jobs.space import Space


def search(
    experiment: Experiments,
    overrides: Set = [],  # noqa: B006 - Typer reads it and never changes it
    name: Name = None,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
    wait_for_nodes: WaitForNodes = False,
    quick: Quick = False,
    extend: Extend = False,
) -> None:
    """Run an experiment, or go on with it where it stopped.

    Ray is started for it, or joined where a cluster runs here or RAY_ADDRESS names one.  The run directory then
    holds the table of trials (trials.csv, trials.parquet), the best config (best.yaml, which `train` runs) and
    report.html.
    """
    with one_line_errors():
        asked = asked_for(experiment, overrides, quick, data_dir)
        from tune_jobs import forking

        forking.begin()
        asked, space, run_dir = _asked(asked, name, storage, extend)
        from tune_jobs import cluster

        if not run_dir.ledger.exists():  # else it may be that nothing is left to run
            cluster.begin()
        with importing():
            from tune_jobs import search as searches
            from tune_jobs.console import console, say
            from tune_jobs.experiment import notes, repeats
            from tune_jobs.running.progress import Progress
            from tune_jobs.storage import StoreError

        total = repeats.total(asked, space)
        out = console(lasts=True)  # the files at its end are worth more than its lines
        for note in notes.notes(asked, space):
            say(out, f"note: {note}")
        say(out, f"run {run_dir.name}: {total} trial{'s' * (total != 1)}, into {run_dir}")
        with Progress(out, space.varied(), total, begun=load_report) as progress:
            outcome = searches.run(asked, space, run_dir, data_folder(data_dir), progress, wait_for_nodes)
        cluster.leave()
        try:
            _conclude(out, asked, run_dir, outcome, total, data_folder(data_dir))
        except StoreError as error:  # the trials are done, and what is made of them is made again
            fail(f"{error}; the same command takes it up again", Exit.INTERRUPTED)


def _asked(asked: Experiment, name: str | None, storage: str, extend: bool) -> tuple[Experiment, Space, RunDir]:
    """The experiment, added to what its run has where it is to extend it, its space, and the run, as it is on this
    machine."""
    from tune_jobs import experiment as experiments
    from tune_jobs import space as spaces
    from tune_jobs.experiment.extension import extended
    from tune_jobs.results import rundir

    spaces.of(asked, extends=extend)  # before a store is asked
    run_dir = rundir.at(storage_at(storage), experiments.check_name(asked.name if name is None else name))
    run_dir.fetch()
    if extend and run_dir.experiment.exists():
        asked = extended(run_dir.read_experiment(), asked)
    return asked, spaces.of(asked), run_dir


def _conclude(
    out: Console, asked: Experiment, run_dir: RunDir, outcome: Outcome, total: int, data_dir: Path | None
) -> None:
    """The table, best.yaml and the report of a search that has ended, and what to type next.  Raises Exit."""
    from tune_jobs.console import say, trials_table, without_their_gpu
    from tune_jobs.results import best, selection

    rows = outcome.rows
    out.print(trials_table(rows))
    if note := without_their_gpu(rows):
        say(out, note)
    say(out, f"run directory: {run_dir}")
    if outcome.ended != "done":
        left = total - sum(row.finished for row in rows)
        cause = {"interrupted": "interrupted", "budget": "the budget is used up"}.get(outcome.ended, outcome.detail)
        say(out, f"{cause}, {left} of {total} trials left; the same command takes it up again")
    if outcome.ended in ("interrupted", "disk", "store", "nodes"):
        raise typer.Exit(Exit.INTERRUPTED)
    usable = len(selection.candidates(rows))
    if usable < asked.min_usable:
        there = "best.yaml is what `export` wrote"
        if not best.is_exported(run_dir):
            run_dir.remove(run_dir.best)  # of when fewer were enough
            there = "no best.yaml"
        write_report(run_dir, data_dir)
        wanted = f", of the {asked.min_usable} that min_usable asks for" if asked.min_usable > 1 else ""
        some = f"{usable} usable trial{'s' * (usable > 1)}" if usable else "no usable trial"
        fail(f"{some}{wanted}: COMPLETE with an accuracy; {there}", Exit.NOTHING_USABLE)
    row, reason = best.choose(rows, "best")
    test_accuracy = selection.candidates(rows)[0].test_accuracy
    if best.is_exported(run_dir) and (aside := best.set_aside(run_dir, rows, row)):
        say(out, f"note: other weights were there, which are {run_dir.shown(aside)} now")
    best.write(run_dir, asked, row, "best", reason, run_dir.best)
    best.write_model(run_dir, row, lambda line: say(out, line))
    say(out, f"best: trial {row.id}, {reason}; test accuracy {test_accuracy:.2%}")
    if front := best.write_front(run_dir, asked, rows):
        where = run_dir.shown(front[0].parent)
        say(out, f"Pareto front: {', '.join(path.stem for path in front)}; a config each in {where}")
    glance(run_dir, outcome.splits, row.macs)
    write_report(run_dir, data_dir)
    say(out, f"next: {best.again(run_dir, row.id, data_dir)}")
    if "tensorboard" in asked.loggers:
        say(out, f"      {shlex.join(['tensorboard', '--logdir', str(run_dir.path)])}")


def plan(
    experiment: Experiments,
    overrides: Set = [],  # noqa: B006 - Typer reads it and never changes it
    name: Name = None,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
    quick: Quick = False,
    extend: Extend = False,
) -> None:
    """Say what a search would run and how long it takes.  Starts nothing.

    The file is checked as a search checks it; then come the trials, what each asks for and how many fit on each node,
    and the expected time, which says whether it was measured or guessed.
    """
    with one_line_errors():
        from tune_jobs import plan as plans
        from tune_jobs.console import console, say

        asked, _, run_dir = _asked(asked_for(experiment, overrides, quick, data_dir), name, storage, extend)
        out = console()
        say(out, f"experiment {asked.name}, run {run_dir}")
        for line in plans.lines(plans.plan(asked, run_dir, data_folder(data_dir))):
            say(out, line)

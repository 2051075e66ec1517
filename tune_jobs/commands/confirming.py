"""The subcommand that trains a run's best configs again."""

from __future__ import annotations

from typing import Annotated

import typer

from tune_jobs.commands.common import (
    DEFAULT_STORAGE,
    DataDir,
    Exit,
    Run,
    Storage,
    WaitForNodes,
    data_folder,
    fail,
    importing,
    one_line_errors,
    storage_at,
    write_report,
)


def confirm(
    run: Run,
    top: Annotated[int, typer.Option(min=1, help="How many of the best configs are trained again.")] = 3,
    seeds: Annotated[int, typer.Option(min=2, max=1000, help="Fresh training seeds for each.")] = 5,
    splits: Annotated[bool, typer.Option("--splits", help="With each seed also split the images afresh.")] = False,
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="Trials side by side instead of one at a time: sooner done, but times do not compare."
        ),
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
    wait_for_nodes: WaitForNodes = False,
) -> None:
    """Train a run's top configs again over fresh seeds.

    It says which are really better, by paired tests corrected for several, and by how much the search flattered its
    winner; the report then shows both.
    """
    with one_line_errors():
        from tune_jobs import forking

        forking.begin()
        with importing():
            from tune_jobs import confirm as confirms
            from tune_jobs.cluster import leave
            from tune_jobs.console import confirmation_lines, confirmation_table, console, say
            from tune_jobs.results import best, rundir
            from tune_jobs.running.progress import Progress

        run_dir = rundir.find(run, storage_at(storage))
        out = console(lasts=True)
        with Progress(out, ["model", "seed"], top * seeds) as progress:
            data = data_folder(data_dir)
            outcome, found = confirms.confirm(run_dir, top, seeds, splits, together, data, progress, wait_for_nodes)
        leave()
        if outcome.ended != "done":
            fail(f"{outcome.detail or 'interrupted'}; the same command takes it up again", Exit.INTERRUPTED)
        if found is None:
            fail("no usable trial: no config is COMPLETE under every seed", Exit.NOTHING_USABLE)
        out.print(confirmation_table(found))
        for line in confirmation_lines(found):
            say(out, line)
        winner = next((config for config in found.configs if config.trial == found.winner), None)
        if said := best.better(run_dir, found, winner):
            say(out, f"note: {said}")
        say(out, f"written to {run_dir.shown(run_dir.confirmation)}")
        write_report(run_dir, data_folder(data_dir))

"""The subcommand that runs a search as a Ray job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tune_jobs.commands.common import (
    Exit,
    Experiments,
    Extend,
    Name,
    Quick,
    Set,
    fail,
    one_line_errors,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tune_jobs.submit import Cluster


Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="TUNE_JOBS_STORAGE",
        help="Directory or s3://…, gs://… of the run directories, as the cluster's nodes see it.  [default: "
        "~/ray_results on the node that runs the job]",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", envvar="TUNE_JOBS_DATA", help="Folder of your data, as the cluster's nodes see it."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="http://HOST:PORT of the cluster's dashboard (port 8265), or HOST:PORT of the cluster.  [default: "
        "RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or the cluster that runs on this machine]"
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait",
        help="Follow the log to the job's end; or only print the job's id, how to follow it and how to stop it.",
    ),
]
WaitForNodes = Annotated[
    bool,
    typer.Option(
        "--wait-for-nodes",
        help="Where no node can serve a trial, the job waits for one that joins instead of ending with code 2.",
    ),
]


def submit(
    experiment: Experiments,
    overrides: Set = [],  # noqa: B006 - Typer reads it and never changes it
    name: Name = None,
    storage: Storage = None,
    data_dir: DataDir = None,
    address: Address = None,
    wait: Wait = True,
    wait_for_nodes: WaitForNodes = False,
    quick: Quick = False,
    extend: Extend = False,
) -> None:
    """Run an experiment as a job on a Ray cluster.

    The experiment is checked here; the code is sent, the job's log followed, and the command ends with the search's
    exit code.  Ctrl-C ends the following, not the job.  The same command again takes the run up where it stopped.
    """
    with one_line_errors():
        from tune_jobs import submit as submits
        from tune_jobs.console import console, say

        flags = {"--wait-for-nodes": wait_for_nodes, "--quick": quick, "--extend": extend}
        options = [flag for flag, given in flags.items() if given]
        plan = submits.plan(experiment, overrides, name, storage, data_dir, options)
        cluster = submits.Cluster(address)
        job = cluster.submit(plan)
        out = console()
        say(out, f"job {job}: run {plan.run}")
        say(out, f"follow it: {cluster.command('logs', '-f', job)}")
        say(out, f"stop it:   {cluster.command('stop', job)}")
        if wait:
            _follow(cluster, job, out)


def _follow(cluster: Cluster, job: str, out: Console) -> None:
    """Show the job's log until it ends, and end as it did.  Raises Exit."""
    from tune_jobs import submit as submits
    from tune_jobs.console import say

    try:
        ended = cluster.follow(job, lambda text: typer.echo(text, nl=False))
    except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C; or nobody reads what is written
        fail(f"job {job} is no longer followed; it goes on until it is stopped", Exit.INTERRUPTED)
    except ConnectionError as error:
        fail(
            f"job {job} is no longer followed: {error}; if it died, the same command takes the run up",
            Exit.INTERRUPTED,
        )
    say(out, f"job {job}: {ended.status.value}")
    code = submits.exit_code(ended)
    if lost := submits.failure(ended):
        fail(f"job {job} {lost}", Exit(code))
    raise typer.Exit(code)

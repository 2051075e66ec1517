"""The command line."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

try:
    import typer
except ModuleNotFoundError:
    from profiling import end_outside

    end_outside()

from profiling.command_line import run
from tune_jobs.commands import confirming, files, jobs, reporting, runs, searching, training

app = typer.Typer(
    help="Hyperparameter search for image classifiers on Ray Tune: an experiment file in, a table of trials and a "
    "best config out.\n\n"
    "To begin: `search digits-demo` runs a small experiment that ships, in under a minute; `presets` lists the others; "
    "tune_jobs/docs/experiment.md describes the file for one of your own.\n\n"
    "Exit codes: 0 done; 2 a wrong experiment, config, path, or a request that no node can serve (nothing was "
    "trained); 3 fewer usable trials than min_usable (1); 4 interrupted, the same command takes it up again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    searching.search,
    searching.plan,
    jobs.submit,
    files.presets,
    files.schema,
    runs.status,
    runs.export,
    confirming.confirm,
    training.train,
    training.benchmark,
    reporting.report,
):
    app.command()(command)


def main() -> NoReturn:
    """The command, to the end of its process."""
    try:
        code: str | int | None = run(app, "python -m tune_jobs")
    except SystemExit as end:
        code = end.code
    _end(code)


def _end(code: str | int | None) -> NoReturn:
    """End the process with what SystemExit says, whatever happens meanwhile; 0 becomes 1 where output was lost.

    Python itself would take a second more, to take the modules of PyTorch and pandas apart object by object.
    """
    status = code if isinstance(code, int) else int(code is not None)
    try:
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
        cluster = sys.modules.get("tune_jobs.cluster")  # else the command was one that does without Ray
        if cluster is None or not cluster.is_abandoned():
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        status = status or 1
        if not isinstance(error, BrokenPipeError):  # who stops reading knows
            os.write(2, f"error: the output could not be written ({error.strerror})\n".encode())
    finally:  # a second Ctrl-C changes nothing about how the command ended
        os._exit(status)


if __name__ == "__main__":
    main()

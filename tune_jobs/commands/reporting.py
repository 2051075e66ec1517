"""The subcommand that takes runs, and makes a report of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_jobs.commands.common import (
    DEFAULT_STORAGE,
    DataDir,
    Storage,
    data_folder,
    importing,
    one_line_errors,
    storage_at,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tune_jobs.results.rundir import RunDir


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Names of runs under the storage, or their run directories or URIs; searches and benchmarks.",
        ),
    ],
    form: Annotated[
        str,
        typer.Option("--format", help="html: one page with figures.  md: tables and findings.  csv: the rows."),
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write.  [default: of html report.html, in the run directory or, of several runs, in this "
            "folder; md and csv are printed]"
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Instead, as Markdown: the tables of five published reports with these runs' figures beside theirs.",
        ),
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
) -> None:
    """Write the report of a run, or of several side by side.

    A search writes its own; this makes it anew, in another form, or of several runs.  Nothing is trained.  The best
    model's weights, where they are kept, are run on the test images once, to show what it confuses.
    """
    with one_line_errors():
        from datasets.config import check_data_dir
        from tune_jobs.console import console, say
        from tune_jobs.errors import UsageError
        from tune_jobs.results import rundir
        from tune_jobs.results.atomic import check_output
        from tune_jobs.results.report import FORMATS

        if form not in FORMATS:
            raise UsageError(f"--format {form}: there is no such format; there are {', '.join(FORMATS)}")
        check_output(output)
        check_data_dir(data_folder(data_dir))
        found = [rundir.find(run, storage_at(storage), benchmarks=True) for run in runs]
        _check_distinct(found)
        if form == "html" and not published:
            with importing():
                from tune_jobs.results.report import page

            path = output or (found[0].report if len(found) == 1 else Path("report.html"))
            page.write(found, path.absolute(), data_folder(data_dir))
            _tell_of_damage(found)
            found[0].publish(path.absolute())
        else:
            written = _as_text(found, form, published)
            _tell_of_damage(found)
            if output is None:
                typer.echo(written, nl=False)
                return
            path = output
            rundir.write_text(path.absolute(), written)
        say(console(), f"report: {found[0].shown(path)}")


def _check_distinct(runs: Sequence[RunDir]) -> None:
    """Raises UsageError for a run that would be compared with itself."""
    from tune_jobs.errors import UsageError

    for index, run in enumerate(runs):
        if run.path.resolve() in [other.path.resolve() for other in runs[:index]]:
            raise UsageError(f"run {run.name} is given twice")


def _tell_of_damage(runs: Sequence[RunDir]) -> None:
    """On stderr: a table may be printed."""
    from tune_jobs.console import console, say
    from tune_jobs.results import damage

    for told in filter(None, (damage.told(run.ledger) for run in runs)):
        say(console(stderr=True), f"note: {told}")


def _as_text(runs: Sequence[RunDir], form: str, published: bool) -> str:
    """The report in Markdown or CSV."""
    from tune_jobs.errors import UsageError

    if form == "csv":
        if published:
            raise UsageError("--published: is Markdown; leave --format out")
        from tune_jobs.results.report import all_rows

        return all_rows.csv(runs)
    from tune_jobs.results.report import text

    return text.beside_published(runs) if published else text.markdown(runs)

"""Subcommands about experiment files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_jobs.commands.common import (
    one_line_errors,
)


def presets() -> None:
    """List the experiments that ship: name, and what it does."""
    with one_line_errors():
        from rich.table import Table

        from tune_jobs import experiment as experiments
        from tune_jobs.console import console

        listing = Table(box=None, show_header=False, pad_edge=False)
        for name in experiments.shipped():
            listing.add_row(name, experiments.load(name).description)
        console().print(listing)


def schema(
    form: Annotated[
        str,
        typer.Option("--format", help="json: the JSON schema (draft 7).  md: the reference page that is made from it."),
    ] = "json",
    output: Annotated[Path | None, typer.Option(help="File to write, instead of printing it.")] = None,
) -> None:
    """Print the JSON schema of an experiment file, for editors.

    With `# yaml-language-server: $schema=PATH` as the first line of an experiment, editors complete its keys and
    values and mark what is wrong.  --format md is the page tune_jobs/docs/experiment.md.
    """
    with one_line_errors():
        from tune_jobs.errors import UsageError
        from tune_jobs.experiment import reference
        from tune_jobs.experiment import schema as schemas
        from tune_jobs.results.atomic import check_output, write_text

        check_output(output)
        forms = {"json": schemas.text, "md": reference.page}
        if form not in forms:
            raise UsageError(f"--format {form}: there is no such format; there are {', '.join(forms)}")
        written = forms[form]()
        if output is None:
            typer.echo(written, nl=False)
        else:
            write_text(output.absolute(), written)

"""How the command lines end: their exit codes, and a mistake in one line, also one that Typer finds in the options."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NoReturn

import typer

from profiling import ProfilingError, end_outside, interrupts


class Exit(IntEnum):
    """Exit codes of every subcommand."""

    DONE = 0
    WRONG = 2
    """A wrong experiment, config, model, device or path, or a request that no node can serve; nothing was begun."""
    NOTHING_USABLE = 3
    """No trial came to a result, or no row could be measured."""
    INTERRUPTED = 4
    """Interrupted; what was finished is kept."""


def fail(line: str, code: Exit) -> NoReturn:
    """End the command with one line on stderr.  Raises typer.Exit."""
    with contextlib.suppress(BrokenPipeError):  # its exit code says it to whoever reads no more
        typer.echo("error: " + " ".join(line.split()), err=True)
    raise typer.Exit(code)


@contextlib.contextmanager
def one_line_errors(codes: Mapping[type[Exception], Exit] | None = None, again: str = "") -> Iterator[None]:
    """A person's mistake becomes one line on stderr and exit code 2; a fault of ours keeps its traceback.

    `codes`: more kinds of mistakes, the special ones before those that hold them.  `again`: what the same command does
    after an interruption, to be said behind it.
    """
    codes = {**(codes or {}), ProfilingError: Exit.WRONG}
    behind = f"; {again}" if again else ""
    try:
        yield
    except tuple(codes) as error:
        fail(str(error), next(code for kind, code in codes.items() if isinstance(error, kind)))
    except ValueError as error:
        from datasets import DataError
        from models import ModelError

        if not isinstance(error, DataError | ModelError):
            raise
        fail(str(error), Exit.WRONG)
    except OSError as error:
        from datasets.reasons import is_no_room

        if is_no_room(error):
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}no room ({error.strerror}){behind}", Exit.INTERRUPTED)
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}", Exit.WRONG)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or importlib.util.find_spec(package) is not None:  # one of ours, or another version of it
            raise
        end_outside(package)
    except KeyboardInterrupt:
        fail(f"interrupted{behind}", Exit.INTERRUPTED)


def run(app: typer.Typer, name: str) -> int:
    """Run the command that the process was given -> its exit code.  A wrong option is one line on stderr and code 2."""
    _show_all()
    try:
        with interrupts.heard():
            code: int | None = app(prog_name=name, standalone_mode=False)
    except Exception as error:
        wrong: Any = error
        if not hasattr(wrong, "format_message"):  # Click's exceptions, which Typer has a copy of, all have it
            raise
        if type(wrong).__name__ == "NoArgsIsHelpError":
            wrong.show()
        else:
            context = getattr(wrong, "ctx", None)
            more = f"; {context.command_path} --help says more" if context is not None else ""
            line = " ".join(wrong.format_message().split()).rstrip(".")
            typer.echo(f"error: {line[0].lower()}{line[1:]}{more}", err=True)
        return int(wrong.exit_code)
    return code or 0


def _show_all() -> None:
    """Have a character that the locale's encoding lacks written as a question mark, instead of an error raised."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")

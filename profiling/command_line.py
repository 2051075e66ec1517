"""How the command lines end: what Typer finds wrong with the options is told as any other mistake is."""

from __future__ import annotations

import io
import sys
from typing import Any

import typer

from profiling import interrupts


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

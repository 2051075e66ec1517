"""How tables and lines are printed: plain and wide where the output is no terminal."""

from __future__ import annotations

from rich.console import Console

LOG_WIDTH = 320
"""Columns of a table in a log, where nobody can say how wide the reader's window is."""


def console(stderr: bool = False) -> Console:
    """Colours and the window's width in a terminal; plain and wide in a log."""
    probe = Console(stderr=stderr, highlight=False)
    return probe if probe.is_terminal else Console(stderr=stderr, highlight=False, width=LOG_WIDTH)


def say(out: Console, line: str) -> None:
    """A line as it is: not wrapped, not read as markup."""
    out.print(line, markup=False, soft_wrap=True)

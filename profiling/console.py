"""How tables and lines are printed: plain and wide where the output is no terminal."""

from __future__ import annotations

import contextlib

from rich.console import Console

LOG_WIDTH = 320
"""Columns of a table in a log, where nobody can say how wide the reader's window is."""


class _Lasting(Console):
    """What nobody reads any more is dropped, and the console is quiet from then on."""

    def on_broken_pipe(self) -> None:
        with contextlib.suppress(SystemExit):  # rich's own end of it; from here on the output goes nowhere
            super().on_broken_pipe()


def console(stderr: bool = False, lasts: bool = False) -> Console:
    """Colours and the window's width in a terminal; plain and wide in a log.

    Where the reader of a pipe is gone the command ends at once with code 1; one whose console `lasts` goes on.
    """
    kind = _Lasting if lasts else Console
    probe = kind(stderr=stderr, highlight=False)
    return probe if probe.is_terminal else kind(stderr=stderr, highlight=False, width=LOG_WIDTH)


def is_live(out: Console) -> bool:
    """Whether rows can be drawn anew in their place; in a log, and in a terminal that cannot, there are lines."""
    return out.is_terminal and not out.is_dumb_terminal


def say(out: Console, line: str) -> None:
    """A line as it is: not wrapped, not read as markup."""
    out.print(line, markup=False, soft_wrap=True)

"""A table that fits into a window: words fold and columns are left out before a figure is cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

GAP = 2
"""Between two columns."""
LONGEST_VALUE = 16
"""A config's value may fold beyond."""

Kind = Literal["whole", "figure", "value", "reason"]


@dataclass(frozen=True)
class Words:
    """A column in words.  Its figures, and what is `whole`, never fold; of a figure's heading the words do."""

    name: str
    kind: Kind
    cells: tuple[str, ...]
    spared: int = 0
    """Columns are left out from the highest one on, of the same from the right; those of 0 stay."""

    @property
    def justify(self) -> Literal["left", "right"]:
        return "right" if self.kind == "figure" else "left"

    @cached_property
    def widest(self) -> int:
        return max(map(cell_len, (self.name, *self.cells)))

    @cached_property
    def narrowest(self) -> int:
        cells = max(map(cell_len, self.cells), default=0)
        if self.kind == "whole":
            return self.widest
        if self.kind == "reason":  # its class, which stands first, in one piece
            return max(cell_len(cell.split(" ")[0]) for cell in (self.name, *self.cells))
        return max(min(cells, LONGEST_VALUE) if self.kind == "value" else cells, *map(cell_len, self._parts()))

    def heading(self, width: int) -> str:
        """In lines, where it is wider."""
        return self.name if cell_len(self.name) <= width else "\n".join(self._parts())

    def _parts(self) -> list[str]:
        return self.name.replace("_", "_ ").split()


class Fitted(Table):
    """As it fits; wide enough, it is like any other table."""

    def __init__(self, words: list[Words]) -> None:
        super().__init__(box=None, pad_edge=False, header_style="bold")
        self._words = words
        for one in words:
            self.add_column(escape(one.name), justify=one.justify, overflow="fold")
        for row in zip(*(one.cells for one in words), strict=True):
            self.add_row(*map(escape, row))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = fitting(self._words, options.max_width)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for one, width in zip(kept, widths(kept, options.max_width), strict=True):
            table.add_column(escape(one.heading(width)), justify=one.justify, overflow="fold", width=width)
        for row in zip(*(one.cells for one in kept), strict=True):
            table.add_row(*map(escape, row))
        yield table
        if left_out := [one.name for one in self._words if one not in kept]:
            are = f"{len(left_out)} column{'s' * (len(left_out) > 1)}"
            yield Text(f"{are} left out in so narrow a window: {', '.join(left_out)}; `report --format csv` has all")


def fitting(words: list[Words], width: int) -> list[Words]:
    """Those that have room side by side, each as narrow as it may be."""
    kept, left_out = list(words), list[Words]()
    while _room(kept, width) < 0 and (spared := max(one.spared for one in kept)):
        left_out.append([one for one in kept if one.spared == spared][-1])
        kept.remove(left_out[-1])
    for one in reversed(left_out):  # a narrow one may have room that a wide one had not
        if _room([*kept, one], width) >= 0:
            kept.append(one)
    return sorted(kept, key=words.index)


def widths(words: list[Words], width: int) -> list[int]:
    """Of each column: what is not needed goes to values first, then to figures' headings, then to reasons."""
    found, room = [one.narrowest for one in words], max(0, _room(words, width))
    for kind in ("value", "figure", "reason"):
        for index, one in enumerate(words):
            if one.kind == kind:
                more = min(room, one.widest - found[index])
                found[index], room = found[index] + more, room - more
    return found


def _room(words: list[Words], width: int) -> int:
    return width - sum(one.narrowest for one in words) - GAP * (len(words) - 1)

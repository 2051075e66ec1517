"""What an exception says to a person."""

from __future__ import annotations

import errno
from collections.abc import Sequence


def in_a_line(error: BaseException) -> str:
    """All that it says; where it says nothing, what it is."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what it says; where it says nothing, what it is."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


NAMED = 5
"""Names at most that a line has of those that have something in common."""


def some(names: Sequence[str]) -> str:
    """The first of the names, and whether there are more."""
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED)


def is_no_room(error: BaseException) -> bool:
    """Whether it says that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)

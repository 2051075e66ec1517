"""What an exception says, in a line."""

from __future__ import annotations

import pytest

from datasets.reasons import first_line, in_a_line, some


@pytest.mark.parametrize(
    ("error", "whole", "first"),
    [
        (OSError("no  such\n file\n"), "no such file", "no  such"),
        (ValueError("\n one\n\ntwo"), "one two", "one"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (RuntimeError(" \n"), "RuntimeError", "RuntimeError"),
    ],
)
def test_reason_is_one_line_and_never_empty(error: Exception, whole: str, first: str) -> None:
    assert in_a_line(error) == whole
    assert first_line(error) == first


def test_some_names_the_first_and_says_whether_there_are_more() -> None:
    assert some([]) == ""
    assert some(["b", "a"]) == "b, a"
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdef")) == "a, b, c, d, e, …"

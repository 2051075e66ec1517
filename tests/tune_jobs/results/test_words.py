from __future__ import annotations

import math

import pytest

from tune_jobs.results.plain import number, plain
from tune_jobs.results.words import duration, fixed, percent, short


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"), (math.nan, "–"), (0, "0 s"), (1.234, "1.2 s"), (89, "89 s"), (100, "1.7 min"),
        (600, "10.0 min"), (7200, "2.0 h"),
    ],
)  # fmt: skip
def test_duration(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_numbers_that_are_not_there_are_a_dash() -> None:
    assert (percent(0.98765), percent(math.nan)) == ("98.77%", "–")
    assert (fixed(1.25, 1), fixed(1.25), fixed(math.nan)) == ("1.2", "1.25", "–")
    assert [short(value) for value in (0.0012345, 100000, "scale", None)] == ["0.001234", "100000", "scale", "–"]


def test_plain_has_null_for_what_json_does_not_know_and_number_reads_it_again() -> None:
    assert plain({"a": [math.nan, {"b": -math.inf}], "c": 1.5, "d": "x"}) == {
        "a": [None, {"b": None}],
        "c": 1.5,
        "d": "x",
    }
    assert math.isnan(number(plain(math.nan)))
    assert number(plain(1.5)) == 1.5

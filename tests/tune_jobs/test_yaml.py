from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_jobs import yaml
from tune_jobs.errors import UsageError


def test_parse_numbers_and_words_are_what_a_person_means() -> None:
    assert yaml.parse("[1e-3, 1E4, no, on, null, true, 0.5]", "x") == [0.001, 10000.0, "no", "on", None, True, 0.5]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lr: 1\nlr: 2", 'x: duplicate key "lr" (line 2)'),
        ("a: [1", "x: not YAML: "),
        ("lr: {[[1e-3, 1e-4]]}", "x: not YAML: "),
        ("a: " + "[" * 5000, "x: is nested too deep, "),
        ("amp: !!bool maybe", "x: not YAML: "),
        ('a: !!int ""', "x: not YAML: "),
        ("a: !!python/object/apply:os.system ['true']", "x: not YAML: could not determine a constructor"),
    ],
)
def test_parse_wrong_text_is_one_line(text: str, line: str) -> None:
    with pytest.raises(UsageError) as error:
        yaml.parse(text, "x")
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_read_says_which_file(tmp_path: Path) -> None:
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(UsageError, match=str(path)):
            yaml.read(path)


@pytest.mark.parametrize(
    "document",
    [
        {"a": None, "b": {"c": [1, 2.5, "x"], "d": True}, "e": {}, "f": "00003", "g": 1e-05, "h": "1e-3"},
        {"long": "word " * 60, "quote": "it's: a # test", "umlaut": "8×8"},
    ],
)
def test_dump_loads_back(document: dict[str, Any]) -> None:
    text = yaml.dump(document, "A comment.\nOf two lines.")
    assert text.startswith("# A comment.\n# Of two lines.\n")
    assert yaml.parse(text, "x") == document

"""How a command's process ends: the exit code, whatever becomes of its output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parent.parent.parent
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def start(raised: str, stdout: IO[str] | int, **environment: str) -> subprocess.Popen[str]:
    """A command that leaves a line in the buffer of its stdout and ends by this exception."""
    code = (
        "import tune_jobs.__main__ as main\n"
        "def app(prog_name, standalone_mode):\n"
        "    print('a line')\n"
        f"    raise {raised}\n"
        "main.app = app\n"
        "main.main()\n"
    )
    command = [sys.executable, "-c", code]
    env = BUFFERED | environment
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True)


def end(raised: str, stdout: str) -> tuple[int, str]:
    """Its exit code and stderr, its output going into this file."""
    with Path(stdout).open("w") as output, start(raised, output) as process:
        err = process.communicate(timeout=60)[1]
    return process.returncode, err


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("SystemExit", (0, "")),
        ("SystemExit(0)", (0, "")),
        ("SystemExit(4)", (4, "")),
        ("SystemExit('why')", (1, "why\n")),
    ],
)
def test_main_ends_as_systemexit_says(raised: str, expected: tuple[int, str]) -> None:
    assert end(raised, "/dev/null") == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(("raised", "code"), [("SystemExit(0)", 1), ("SystemExit(2)", 2)])
def test_main_does_not_end_well_where_output_is_lost(raised: str, code: int) -> None:
    assert end(raised, "/dev/full") == (code, "error: the output could not be written (No space left on device)\n")


def test_main_whose_reader_is_gone_says_nothing_and_does_not_end_well() -> None:
    with start("SystemExit(0)", subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_main_writes_a_question_mark_for_what_the_locale_has_no_character_for() -> None:
    with start("SystemExit('no – such')", subprocess.PIPE, PYTHONIOENCODING="iso-8859-1") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "a line\n", "no ? such\n")

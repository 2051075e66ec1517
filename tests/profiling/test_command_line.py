from __future__ import annotations

import errno
from typing import NoReturn

import pytest
import typer

from datasets import DataError
from profiling import ProfilingError
from profiling.command_line import Exit, fail, one_line_errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ProfilingError("no such\nmodel"), Exit.WRONG, "no such model"),
        (DataError("no such data"), Exit.WRONG, "no such data"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), Exit.WRONG, "/x: No such file"),
        (OSError(errno.ENOSPC, "No space left"), Exit.INTERRUPTED, "no room (No space left)"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(
    error: BaseException, code: Exit, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, one_line_errors():
        raise error
    assert (ended.value.exit_code, capsys.readouterr().err) == (code, f"error: {line}\n")


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EIO, "x"), KeyError("x")])
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), one_line_errors():
        raise error


def test_of_kinds_the_first_that_fits_gives_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    codes: dict[type[Exception], Exit] = {KeyError: Exit.NOTHING_USABLE, LookupError: Exit.WRONG}
    for error, code in ((KeyError("x"), Exit.NOTHING_USABLE), (IndexError("x"), Exit.WRONG)):
        with pytest.raises(typer.Exit) as ended, one_line_errors(codes):
            raise error
        assert ended.value.exit_code == code
    with pytest.raises(typer.Exit), one_line_errors(codes, again="it goes on"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err.endswith("error: interrupted; it goes on\n")


def test_the_exit_code_stands_where_nobody_reads_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> NoReturn:
        raise BrokenPipeError

    monkeypatch.setattr(typer, "echo", gone)
    with pytest.raises(typer.Exit) as ended:
        fail("x", Exit.WRONG)
    assert ended.value.exit_code == Exit.WRONG

"""What the commands share."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
import typer

from tune_jobs.commands.common import Exit, data_folder, one_line_errors
from tune_jobs.errors import UsageError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "error: no room (No space left on device); the same command",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/x"),
            "error: /x: no room (Disk quota exceeded); the same command",
        ),
    ],
)
def test_a_full_disk_is_one_line_and_can_be_gone_on_from(
    error: OSError, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, one_line_errors():
        raise error
    assert ended.value.exit_code == Exit.INTERRUPTED
    assert capsys.readouterr().err.startswith(line)


def test_data_folder_in_the_home_of_nobody_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"^~nosuchuser/data: Could not determine home directory"):
        data_folder(Path("~nosuchuser/data"))


def test_a_package_that_is_missing_is_one_line_and_a_module_of_ours_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise ModuleNotFoundError("No module named 'nowhere.core'", name="nowhere.core")
    assert ended.value.code == Exit.WRONG
    err = capsys.readouterr().err
    assert err.startswith(f"error: {sys.executable} lacks nowhere, and perhaps more")
    assert err.count("\n") == 1
    for ours in (
        "tune_jobs.gone",
        "pandas.gone",
    ):  # the second of a package that is there: another version's, or a slip
        with pytest.raises(ModuleNotFoundError), one_line_errors():
            raise ModuleNotFoundError(f"No module named '{ours}'", name=ours)

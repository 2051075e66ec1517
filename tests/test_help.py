"""`--help` suffices alone: it says what each command is for and what each option does."""

from __future__ import annotations

import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import profiling.__main__
import tune_jobs.__main__

ROOT = Path(__file__).parent.parent
APPS = {"tune_jobs": tune_jobs.__main__.app, "profiling": profiling.__main__.app}
COMMANDS = {
    f"{package} {command.callback.__name__}": command.callback
    for package, app in APPS.items()
    for command in app.registered_commands
    if command.callback is not None
}


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_help_list_of_commands_cuts_no_line(app: typer.Typer) -> None:
    ran = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"})
    assert ran.exit_code == 0
    assert "..." not in ran.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_help_of_a_command_describes_all_that_it_takes(command: Callable[..., Any]) -> None:
    assert command.__doc__
    hints = typing.get_type_hints(command, include_extras=True)
    helps = {name: getattr(hint, "__metadata__", [None])[0] for name, hint in hints.items() if name != "return"}
    assert [name for name, option in helps.items() if not getattr(option, "help", None)] == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tune_jobs", "export", "x", "--within", "300"], "error: invalid value for '--within': "),
        (["tune_jobs", "serch"], "error: no such command 'serch'. Did you mean"),
        (
            ["tune_jobs", "search"],
            "error: missing argument 'EXPERIMENT'; python -m tune_jobs search --help says more\n",
        ),
        (
            ["profiling", "bench", "--no-such"],
            "error: no such option: --no-such; python -m profiling bench --help says more\n",
        ),
    ],
)
def test_wrong_option_is_one_line(words: list[str], line: str) -> None:
    ran = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(line)
    assert ran.stderr.count("\n") == 1


def test_no_subcommand_shows_the_help() -> None:
    ran = subprocess.run([sys.executable, "-m", "tune_jobs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "search" in ran.stdout + ran.stderr


@pytest.mark.parametrize("package", APPS)
def test_python_without_the_requirements_is_one_line(package: str) -> None:
    """`-S` leaves site-packages out, as a Python beside the environment does."""
    words = [sys.executable, "-S", "-m", package, "--help"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {sys.executable} lacks typer")
    assert ran.stderr.count("\n") == 1

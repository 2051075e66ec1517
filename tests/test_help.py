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


def _told(*words: str) -> str:
    """A help text in one line."""
    return " ".join(CliRunner().invoke(APPS["tune_jobs"], [*words, "--help"], env={"COLUMNS": "80"}).stdout.split())


def test_help_has_the_exit_codes_in_the_readme_s_words() -> None:
    readme = " ".join((ROOT / "README.md").read_text().replace("`", "").split())
    codes = "Exit codes: " + _told().partition("Exit codes: ")[2].partition(" takes it up again.")[0]
    assert "3 fewer usable trials than min_usable" in codes
    assert codes in readme


def test_help_of_train_offers_no_grid_axis() -> None:
    assert "makes a grid axis" in _told("search")
    assert "lr=1e-3" in _told("train")
    assert "grid" not in _told("train")


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

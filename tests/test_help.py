"""`--help` suffices alone: it says what each command is for and what each option does."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import profiling.__main__
import tune_jobs.__main__

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

"""Which token a process uses, in a home of the tests' own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # they are compiled

from tune_jobs.cluster import tokens


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in (tokens.MODE, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    AuthenticationTokenLoader.instance().reset_cache()
    yield tmp_path
    monkeypatch.undo()
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def has_token() -> bool:
    return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def test_token_of_a_first_ray_is_kept_in_the_home_for_its_owner_alone(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("ray._private.authentication.authentication_token_setup")
    logger.setLevel(logging.INFO)  # as Ray has it in a fresh process
    logger.addHandler(caplog.handler)  # Ray's loggers pass nothing on
    assert not has_token()
    assert tokens.provide() == ""
    file = home / ".ray" / "auth_token"
    first = file.read_text()
    assert (has_token(), len(first), file.stat().st_mode & 0o777) == (True, 64, 0o600)
    assert tokens.provide() == ""
    assert file.read_text() == first
    assert "RAY_AUTH_TOKEN" not in os.environ
    logger.removeHandler(caplog.handler)
    assert caplog.messages == []


def test_token_of_a_ray_whose_home_cannot_be_written_is_in_the_environment_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("HOME", str(home / "file"))
    assert tokens.provide() == f"{home / 'file' / '.ray'}: Not a directory"
    assert (has_token(), len(os.environ["RAY_AUTH_TOKEN"])) == (True, 64)
    assert tokens.provide() == ""  # it has one now


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_TOKEN", "mine"), (tokens.MODE, "disabled")])
def test_no_token_is_made_where_there_is_one_or_none_is_wanted(
    name: str, value: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert tokens.provide() == ""
    assert not (home / ".ray").exists()
    assert os.environ.get("RAY_AUTH_TOKEN") == (value if name == "RAY_AUTH_TOKEN" else None)


def test_tokens_are_switched_on_where_there_is_one_and_nobody_has_said_whether(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not tokens.switch_on()
    tokens.provide()
    monkeypatch.setenv(tokens.MODE, "disabled")
    assert not tokens.switch_on()
    monkeypatch.delenv(tokens.MODE)
    assert tokens.switch_on()
    assert os.environ[tokens.MODE] == "token"
    assert not tokens.switch_on()
    assert capsys.readouterr().err == ""

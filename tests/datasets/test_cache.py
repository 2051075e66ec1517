"""The cache folder: the user's, or the one that XDG_CACHE_HOME names."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets import DataError, cache


def test_folder_is_the_named_one_or_the_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "named"))
    assert cache.folder() == tmp_path / "named" / "tune_jobs"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache.folder() == tmp_path / "home" / ".cache" / "tune_jobs"


def test_folder_of_nobody_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(DataError, match=r"^there is no home folder .*: set XDG_CACHE_HOME to a folder$"):
        cache.folder()

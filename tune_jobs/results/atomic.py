"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from profiling.files import replacing as replacing
from tune_jobs.errors import UsageError


def check_output(path: Path | None) -> None:
    """Raise UsageError where what --output names can be no file."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UsageError(f"--output {path}: is no place for a file")


def write_text(path: Path, text: str) -> None:
    """The whole text or what was there before."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """All of it or what was there before."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)

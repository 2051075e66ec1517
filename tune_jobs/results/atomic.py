"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from profiling.files import is_place
from profiling.files import replacing as replacing
from tune_jobs.errors import UsageError

LEDGER, ROWS, STUDY = "trials.jsonl", "rows.jsonl", "optuna.journal"
"""Of a search and of a benchmark the record that all else is made of, and a search's study."""
OF_A_RUN = (LEDGER, ROWS, STUDY, "experiment.yaml", "environment.json", "confirm.json")
"""Files of a run directory that nobody could make again."""


def check_output(path: Path | None) -> None:
    """Raise UsageError where what --output names can be no file, or is one that a run lives by."""
    if path is None:
        return
    if not is_place(path):
        raise UsageError(f"--output {path}: is no place for a file")
    real = path.resolve()
    if real.name in OF_A_RUN and real.exists() and any((real.parent / record).exists() for record in (LEDGER, ROWS)):
        raise UsageError(f"--output {path}: is the run's own, which it could not be read without; give another file")


def write_text(path: Path, text: str) -> None:
    """The whole text or what was there before."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """All of it or what was there before."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)

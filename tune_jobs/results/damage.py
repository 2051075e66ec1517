"""What of a run's ledger is damaged, and so was passed over where it was read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tune_jobs.errors import UsageError
from tune_jobs.results.ledger import TrialRecord, read
from tune_jobs.results.line import NEEDED, parse


def read_whole(path: Path) -> dict[str, TrialRecord]:
    """As `read`, for who goes by the configs.  Raises UsageError where damage took one, or all."""
    trials = read(path)
    check_readable(path, trials)
    lost = [trial.id for trial in trials.values() if not trial.config]
    if lost:
        raise UsageError(
            f"{path}: the config of trial {', '.join(lost)} is damaged; the search command that began it puts it back"
        )
    return trials


def check_readable(path: Path, trials: Mapping[str, TrialRecord]) -> None:
    """Raise UsageError where nothing is left of what was written, which is no run that has not begun."""
    if not trials and told(path):
        raise UsageError(f"{path}: is damaged, no line of it is whole; put a copy back, or begin under another --name")


def told(path: Path) -> str:
    """How much of it was passed over, in words; empty where that is no more than a last line that was cut."""
    if not path.exists():
        return ""
    with path.open(encoding="utf-8", errors="replace") as lines:
        count = sum(_is_damaged(line) for line in lines)
    are = "line of trials.jsonl is" if count == 1 else "lines of trials.jsonl are"
    words = f"run {path.parent.name}: {count:,} {are} damaged and passed over; a trial may stand as it was before"
    return words if count else ""


def _is_damaged(line: str) -> bool:
    """Whether something is lost with it: not with one cut at the end of the file, nor one of a newer version."""
    is_cut = line.startswith("{") and not line.endswith("\n")
    if not line.strip() or is_cut or parse(line) is not None:
        return False
    named = re.search(r'"event": "(\w+)"', line)
    return not (line.startswith("{") and line.endswith("}\n") and named and named[1] not in NEEDED)

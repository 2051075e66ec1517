"""What of a run's ledger is damaged, and so was passed over where it was read."""

from __future__ import annotations

import re
from pathlib import Path

from tune_jobs.results.ledger import NEEDED, parse


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

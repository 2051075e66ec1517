"""Which config is best, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from tune_jobs.results.table import Row

Rule = Callable[[Sequence[Row]], tuple[Row, str]]
"""Usable rows, at least one -> the chosen row and the reason in words."""


def usable(rows: Sequence[Row]) -> list[Row]:
    """Rows that may be chosen: complete, with a validation accuracy that is a number."""
    return [row for row in rows if row.state == "COMPLETE" and math.isfinite(row.val_accuracy)]


def best(rows: Sequence[Row]) -> tuple[Row, str]:
    """Highest validation accuracy; ties by less training time, then by config, so that the choice is one."""
    chosen = min(rows, key=lambda row: (-row.val_accuracy, row.train_time_s, _config_key(row)))
    tied = sum(row.val_accuracy == chosen.val_accuracy for row in rows)
    reason = f"highest validation accuracy, {chosen.val_accuracy:.2%}, of {len(rows)} complete trials"
    if tied > 1:
        reason += f"; {tied} trials share it, of which this one trained in the least time"
    return chosen, reason


RULES: dict[str, Rule] = {"best": best}


def _config_key(row: Row) -> str:
    return json.dumps(row.config, sort_keys=True, default=str)

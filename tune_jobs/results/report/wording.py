"""Words, and values as they are shown, that several figures share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from tune_jobs.results.report.loaded import Loaded


def label(value: Any) -> str:
    """A config value as a person reads it."""
    if value is None:
        return "not read"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def levels(values: Sequence[Any]) -> list[Any]:
    """The distinct values: numbers in their order, else as they come."""
    distinct = list({repr(value): value for value in values}.values())
    if all(is_number(value) for value in distinct):
        return sorted(distinct)
    return distinct


def is_number(value: Any) -> TypeGuard[int | float]:
    """A truth value is none, which Python takes for one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_words(metric: str) -> str:
    names = {
        "val_accuracy": "validation accuracy, %", "val_loss": "validation loss", "train_time_s": "training time, s",
        "params": "trainable parameters", "macs": "multiply-accumulates an image",
    }  # fmt: skip
    return names[metric]


def on_times(loaded: Loaded, objectives: Iterable[str] = ("train_time_s",)) -> str:
    """What has to be known of the complete configs' times, as the end of a caption; empty where they play no part."""
    if "train_time_s" not in objectives:
        return ""
    return f" {loaded.times([row for c in loaded.candidates for row in c.rows])}".rstrip()

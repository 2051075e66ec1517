"""Words that several figures share."""

from __future__ import annotations

from collections.abc import Iterable

from tune_jobs.results.report.loaded import Loaded


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

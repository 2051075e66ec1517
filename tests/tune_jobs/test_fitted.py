"""The table of trials in windows of several widths."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tune_jobs.console import trials_table
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.table import Row, rows

RESULT = {"val_accuracy": 0.9123, "test_accuracy": 0.8765, "best_epoch": 12, "epochs": 23, "train_time_s": 12345.6}
FIGURES = ("91.23", "87.65", "12345.6")


def made(failed: bool) -> list[Row]:
    config = {"model": "baseline", "optimizer": "sgd", "lr": 0.001, "batch_size": 16, "loss": "cross_entropy"}
    others = {"model": "mlp", "optimizer": "adamw", "lr": 0.1, "batch_size": 512, "loss": "mse"}
    records = [TrialRecord(f"{n:05d}", config, "COMPLETE", result=RESULT) for n in range(2)]
    records.append(TrialRecord("00002", others, "RUNNING"))
    found = rows(records)
    if failed:
        found[1] = replace(
            found[1], state="FAIL", failure="out_of_memory", reason="asked for [b]cpu 1[/b]; no node has more"
        )
    return found


def shown(width: int, failed: bool = True) -> list[str]:
    out = Console(width=width, file=io.StringIO())
    out.print(trials_table(made(failed)))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100, 120, 320])
@pytest.mark.parametrize("failed", [False, True])
def test_ids_states_and_figures_are_whole_at_any_width(width: int, failed: bool) -> None:
    lines = shown(width, failed)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    (best,) = (line for line in lines if line.startswith("00000"))
    assert set(best.split()) >= {"00000", "COMPLETE", *FIGURES}
    assert any(line.split()[:2] == ["00002", "RUNNING"] for line in lines)


def test_a_wide_window_has_all_in_a_line_each() -> None:
    lines = shown(320)
    assert len(lines) == 4
    heads = "id state model optimizer lr batch_size loss val % test % best epoch epochs train s failure"
    assert " ".join(lines[0].split()) == heads
    assert lines[2].rstrip().endswith("out_of_memory: asked for [b]cpu 1[/b]; no node has more")


@pytest.mark.parametrize(("width", "few"), [(80, "5 columns"), (60, "6 columns"), (40, "8 columns")])
def test_a_narrow_window_says_which_columns_it_leaves_out(width: int, few: str) -> None:
    lines = shown(width)
    heads, said = lines[0] + lines[1], " ".join("\n".join(lines).partition(few)[2].split())
    assert said.startswith("left out in so narrow a window: ")
    assert said.endswith("; `report --format csv` has all")
    for name in ("lr", "loss"):
        assert name not in heads.split()
        assert name in said
    assert ("out_of_memory:" in "".join(lines)) == ("failure" not in said)


def test_a_window_that_is_a_little_narrow_folds_headings_first() -> None:
    wide = max(map(len, (line.rstrip() for line in shown(320, failed=False))))
    lines = shown(wide - 3, failed=False)
    assert not any("left out" in line for line in lines)
    assert {"16", "512", "cross_entropy"} <= set(" ".join(lines).split())

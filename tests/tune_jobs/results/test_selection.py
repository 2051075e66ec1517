from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.results.best import check_rule
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.selection import best, usable
from tune_jobs.results.table import Row, rows


def row(id_: str, accuracy: float, time_s: float = 1.0, state: str = "COMPLETE", lr: float = 0.1) -> Row:
    (blank,) = rows([TrialRecord(id_, {"model": "mlp", "lr": lr}, state)])
    return replace(blank, val_accuracy=accuracy, train_time_s=time_s)


def test_best_is_the_highest_validation_accuracy() -> None:
    chosen, reason = best([row("a", 0.8), row("b", 0.9), row("c", 0.7)])
    assert chosen.id == "b"
    assert reason == "highest validation accuracy, 90.00%, of 3 complete trials"


def test_best_tie_goes_to_less_training_time_then_to_config() -> None:
    chosen, reason = best([row("a", 0.9, 2.0), row("b", 0.9, 1.0), row("c", 0.8, 0.1)])
    assert chosen.id == "b"
    assert "2 trials share it" in reason
    tied = [row("a", 0.9, lr=0.2), row("b", 0.9, lr=0.1)]
    assert best(tied)[0].id == best(tied[::-1])[0].id == "b"


def test_best_never_looks_at_the_test_set() -> None:
    better_test = replace(row("a", 0.8), test_accuracy=1.0)
    assert best([better_test, replace(row("b", 0.9), test_accuracy=0.0)])[0].id == "b"


@pytest.mark.parametrize("state", ["FAIL", "PRUNED", "RUNNING", "WAITING"])
def test_usable_is_complete_alone(state: str) -> None:
    assert [r.id for r in usable([row("a", 0.9, state=state), row("b", 0.1), row("c", math.nan)])] == ["b"]


def test_check_rule_unknown_names_the_known() -> None:
    with pytest.raises(UsageError, match="--rule luck: there is no such rule; there are best"):
        check_rule("luck")

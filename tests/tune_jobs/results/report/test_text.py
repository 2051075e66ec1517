"""The report in Markdown."""

from __future__ import annotations

from tests.tune_jobs.results.report.conftest import MakeRun
from tune_jobs.results.report.text import markdown

MLP = {"model": "mlp", "epochs": 3}


def test_a_failed_trial_has_its_class_and_its_reason(make_run: MakeRun) -> None:
    trials = [
        (MLP | {"lr": 0.1}, "FAIL", [0.5], {"failure": "out_of_memory", "reason": "asked for cpu 1"}),
        (MLP | {"lr": 0.2}, "PRUNED", [0.5], {"reason": "stopped by asha after epoch 1"}),
        (MLP | {"lr": 0.3}, "COMPLETE", [0.8], {}),
    ]
    written = markdown([make_run(trials)])
    assert "| FAIL: out_of_memory: asked for cpu 1 |" in written
    assert "| PRUNED: stopped by asha after epoch 1 |" in written
    assert "| COMPLETE |" in written

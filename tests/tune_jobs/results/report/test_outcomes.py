"""Configs that FAILed have no score to compare a field's values by: which they are is told."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.results.report.finding import Finding
from tune_jobs.results.report.findings import findings
from tune_jobs.results.report.loaded import load
from tune_jobs.results.rundir import RunDir


def by_lead(run: RunDir) -> dict[str, Finding]:
    return {finding.lead: finding for finding in findings(load(run))}


def diverging(failed: dict[float, int]) -> list[Trial]:
    """Eight cells of each lr, of which some FAILed; the larger the lr, the lower the rest."""
    no = {"failure": "diverged", "reason": "no"}
    return [
        ({"model": "mlp", "lr": lr, "hidden_units": 16 * (n + 1)}, *(("FAIL", [], dict(no)) if n < lost else (
            "COMPLETE", [0.9 - 0.04 * lr + 0.001 * n], {})))
        for lr, lost in failed.items() for n in range(8)
    ]  # fmt: skip


def test_a_value_that_failed_in_some_configs_is_not_distinguishable_where_both_trained_alone(make_run: MakeRun) -> None:
    document = {"space": {"lr": {"grid": [0.001, 0.1]}, "hidden_units": {"grid": [16 * (n + 1) for n in range(8)]}}}
    told = by_lead(make_run(diverging({0.001: 0, 0.1: 5}), document))
    assert "lr: not distinguishable" not in told
    text = told["lr: not distinguishable where both trained"].text
    assert "over 3 matched pairs" in text
    assert " 0.1 FAILed in 5 of 8 configs, which are left out." in text
    fine = by_lead(make_run(diverging({0.001: 0, 0.1: 0}), document, name="fine"))
    assert "FAILed" not in fine["lr: not distinguishable"].text


def test_a_value_that_failed_in_all_configs_is_named(make_run: MakeRun) -> None:
    three = by_lead(make_run(diverging({0.001: 0, 0.01: 2, 0.1: 8}), name="three"))
    text = three["lr: not distinguishable where both trained"].text
    assert "0.01 FAILed in 2 of 8 configs, which are left out. 0.1 FAILed in all 8 configs that had it, and" in text
    one = by_lead(make_run(diverging({0.001: 0, 0.1: 8}), name="one"))
    text = one["lr, hidden_units"].text
    assert text.endswith("what a value does. Of lr, 0.1 FAILed in all 8 configs that had it, and is not compared.")


def test_failures_of_a_sampled_range_are_told_as_one_part_of_it(sampled: Callable[[int], RunDir]) -> None:
    told = by_lead(sampled(120))["lr matters"].text
    assert re.search(r" [\d.e-]+ to [\d.e-]+ FAILed in 3 of \d+ configs, which are left out\.", told)

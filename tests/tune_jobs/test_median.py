"""The median rule beside Ray's own, without Ray running."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from ray.tune.schedulers import MedianStoppingRule

from tune_jobs.running.median import MedianRule

EPOCHS = 7


class Trial:
    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.status = "RUNNING"


@pytest.mark.parametrize("grace_epochs", [1, 3])
@pytest.mark.parametrize("order", range(4))
def test_median_rule_decides_as_ray_s_own(grace_epochs: int, order: int) -> None:
    """Thirty trials that report in a random order, some of them with a value that is no number."""
    drawn = random.Random(order)
    ours = MedianRule("val_accuracy", grace_epochs)
    theirs = MedianStoppingRule(
        "epoch",
        "val_accuracy",
        "max",
        grace_period=grace_epochs,
        min_samples_required=2,
        min_time_slice=math.inf,  # type: ignore[arg-type]
    )
    controller: Any = None
    running = {Trial(str(number)): 0 for number in range(30)}
    level = {trial: drawn.choice([0.3, 0.5, 0.5, 0.9]) for trial in running}
    decisions: list[str] = []
    while running:
        trial: Any = drawn.choice(list(running))
        running[trial] += 1
        epoch = running[trial]
        value = math.inf if drawn.random() < 0.02 else round(level[trial] + 0.02 * epoch + drawn.random() / 10, 2)
        result = {"epoch": epoch, "val_accuracy": value}
        if epoch == EPOCHS:
            ours.on_trial_complete(controller, trial, result)
            theirs.on_trial_complete(controller, trial, result)
            del running[trial]
            continue
        decision = ours.on_trial_result(controller, trial, result)
        assert decision == theirs.on_trial_result(controller, trial, result)
        decisions.append(decision)
        if decision == "STOP":
            del running[trial]
    assert {"STOP", "CONTINUE"} == set(decisions)


def test_median_rule_waits_for_two_others() -> None:
    rule, controller = MedianRule("val_accuracy", 1), None
    decisions = [
        rule.on_trial_result(controller, Trial(str(number)), {"epoch": 1, "val_accuracy": value})
        for number, value in enumerate([0.9, 0.5, 0.6])
    ]
    assert decisions == ["CONTINUE", "CONTINUE", "STOP"]  # 0.6 is below 0.7, halfway between the others

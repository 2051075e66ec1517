from __future__ import annotations

from ray.tune.experiment import Trial

from tune_jobs.recorder import _forget_metrics


def test_forget_metrics_leaves_a_finished_trial_its_last_result_alone() -> None:
    trial = Trial("made_up", stub=True)
    trial.update_last_result({"val_accuracy": 0.5, "training_iteration": 1})
    assert trial.metric_analysis["val_accuracy"]["last"] == 0.5
    _forget_metrics(trial)
    assert (trial.metric_analysis, trial.metric_n_steps) == ({}, {})
    assert trial.last_result["val_accuracy"] == 0.5

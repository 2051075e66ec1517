"""Sampled searches, early stopping, budgets, repeats and confirmation, through real Ray and real Optuna."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tune_jobs.results import ledger
from tune_jobs.results.ledger import by_number

if TYPE_CHECKING:
    from tests.conftest import App

pytestmark = pytest.mark.cluster

SEARCH = """
name: sampled
dataset: {name: digits, image_size: 8, limit: 600}
space:
  model: {choice: [mlp, svm]}
  optimizer: {choice: [sgd, adam]}
  momentum: {uniform: [0.5, 0.99], when: {optimizer: sgd}}
  lr: {choice: [1e-4, 1e-2, 1e10]}
  C: {loguniform: [0.1, 100]}
train: {epochs: 9, hidden_units: 20}
search: {method: optuna, trials: 12, seed: 3, startup_trials: 4, max_concurrent: 1}
scheduler: {name: asha}
"""


SMALL = """
name: small
dataset: {name: digits, image_size: 8, limit: 300}
space:
  model: {choice: [mlp, svm]}
  lr: {choice: [1e-3, 1e-2]}
  C: {choice: [1, 10, 100]}
train: {epochs: 1, hidden_units: 20}
search: {method: optuna, trials: 20, startup_trials: 2, max_concurrent: 1}
"""


def study_of(run: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(run / "optuna.journal")))
    (name,) = optuna.study.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def records(run: Path) -> list[ledger.TrialRecord]:
    return list(ledger.read(run / "trials.jsonl").values())


def sets(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


TOLD: dict[str | None, str] = {"diverged": "PRUNED", "timeout": "PRUNED"}
"""Failures that samplers are not to leave out -> the state in the study."""


@pytest.fixture(scope="module")
def file(app: App) -> str:
    path = app.home / "sampled.yaml"
    path.write_text(SEARCH)
    return str(path)


@pytest.mark.slow
def test_optuna_search_study_says_what_the_table_says_and_is_extended(app: App, file: str) -> None:
    ran = app("search", file)
    assert ran.returncode == 0, ran.stderr
    run = app.storage / "sampled"
    trials = records(run)
    assert len(trials) == 12
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED", "FAIL"}

    study = study_of(run)
    asked = [frozen for frozen in study.trials if "same_as" not in frozen.user_attrs]
    assert len({str(trial.config) for trial in trials}) == len(asked) == 12
    for trial, frozen in zip(trials, asked, strict=True):
        assert int(trial.id) == frozen.number
        assert TOLD.get(trial.failure, trial.state) == frozen.state.name
        assert frozen.params.items() <= trial.config.items()
        if trial.state == "COMPLETE":
            assert frozen.value == trial.result["val_accuracy"]
        elif trial.state == "PRUNED":
            assert frozen.value == trial.epochs[-1]["val_accuracy"]
            assert trial.reason == f"stopped by asha after epoch {len(trial.epochs)}"
            assert len(trial.epochs) < 9
        else:
            assert trial.failure == "diverged"
            assert frozen.value == (trial.epochs[-1]["val_accuracy"] if trial.epochs else None)
        steps = {epoch["epoch"]: epoch["val_accuracy"] for epoch in trial.epochs}
        assert frozen.intermediate_values == steps
    data = pd.read_parquet(run / "trials.parquet")
    assert data["test_accuracy"].notna().tolist() == [trial.state == "COMPLETE" for trial in trials]

    before = (run / "trials.jsonl").read_text()
    more = app("search", file, *sets("search.trials=14"))
    assert more.returncode == 0, more.stderr
    assert "taken up: 12 of 14 trials are finished already" in more.stdout
    assert (run / "trials.jsonl").read_text().startswith(before)
    assert len({str(trial.config) for trial in records(run)}) == len(records(run)) == 14
    fewer = app("search", file, *sets("search.trials=5"))
    assert fewer.returncode == 2
    assert "search.trials: 14 -> 5" in fewer.stderr

    same = app("search", file, "--name", "again")
    assert same.returncode == 0, same.stderr
    assert [trial.config for trial in records(app.storage / "again")] == [trial.config for trial in trials]


@pytest.mark.slow
def test_warm_start_begins_with_what_an_earlier_run_found(app: App, file: str) -> None:
    first = app("search", file, "--name", "first", *sets("search.trials=4"))
    assert first.returncode == 0, first.stderr
    complete = [trial for trial in records(app.storage / "first") if trial.state == "COMPLETE"]
    values = sets("search.warm_start=first", "search.trials=2")
    ran = app("search", file, "--name", "warm", *values)
    assert ran.returncode == 0, ran.stderr
    assert f"warm start: {len(complete)} of {len(complete)} complete configs of run first are in" in ran.stdout
    study = study_of(app.storage / "warm")
    assert not any("same_as" in trial.user_attrs for trial in study.trials)
    begun = study.trials[: len(complete)]
    assert [trial.user_attrs["warm_start"] for trial in begun] == [f"first/{trial.id}" for trial in complete]
    assert [trial.value for trial in begun] == [trial.result["val_accuracy"] for trial in complete]
    own = records(app.storage / "warm")
    assert [int(trial.id) for trial in own] == [len(complete), len(complete) + 1]
    told = [TOLD.get(trial.failure, trial.state) for trial in own]
    assert [trial.state.name for trial in study.trials[len(complete) :]] == told

    for change, why in [
        ("dataset.limit=500", "it saw other images or another split"),
        ("search.warm_start=nowhere", "run nowhere: no run directory"),
        ("search.method=random", "warm_start is of method optuna"),
    ]:
        changed = [*values, *sets(change)] if "warm_start" not in change else sets(change)
        refused = app("search", file, "--name", "other", *changed)
        assert refused.returncode == 2
        assert why in refused.stderr
        assert not (app.storage / "other").exists()


def test_no_config_is_trained_twice(app: App) -> None:
    path = app.home / "small.yaml"
    path.write_text(SMALL)
    ran = app("search", str(path))
    assert ran.returncode == 0, ran.stderr
    assert "note: search.trials is 20, and the space ends after 5" in ran.stdout
    assert "run small: 5 trials" in ran.stdout
    assert app("status", "small", "--follow").stdout.startswith("run small: 5 of 5 trials finished\n")

    run = app.storage / "small"
    trials = records(run)
    assert [trial.state for trial in trials] == ["COMPLETE"] * 5
    found = {(trial.config["model"], trial.config.get("lr"), trial.config.get("C")) for trial in trials}
    assert found == {("mlp", 1e-3, None), ("mlp", 1e-2, None), *(("svm", None, C) for C in (1.0, 10.0, 100.0))}
    study = study_of(run)
    numbers = [int(trial.id) for trial in trials]
    assert [frozen.number for frozen in study.trials if frozen.state.name == "COMPLETE"] == numbers
    passed_over = [frozen for frozen in study.trials if frozen.state.name == "FAIL"]
    assert len(passed_over) == len(study.trials) - 5 > 0
    for frozen in passed_over:
        assert frozen.params == study.trials[frozen.user_attrs["same_as"]].params

    (run / "optuna.journal").unlink()
    again = app("search", str(path), *sets("search.trials=21"))
    assert again.returncode == 0, again.stderr
    assert records(run) == trials
    anew = {frozen.number: frozen.state.name for frozen in study_of(run).trials}
    assert anew == {number: "COMPLETE" if number in numbers else "FAIL" for number in range(max(numbers) + 1)}


def test_two_objectives_give_a_pareto_front(app: App, file: str) -> None:
    objectives = "search.objectives={val_accuracy: max, macs: min}"
    ran = app("search", file, "--name", "front", *sets(objectives, "scheduler.name=none", "epochs=1", "lr=1e-2"))
    assert ran.returncode == 0, ran.stderr
    run = app.storage / "front"
    data = pd.read_parquet(run / "trials.parquet")
    front = data[data["pareto"]]
    assert 0 < len(front) < len(data)
    for one in data.itertuples():
        beaten = ((data.val_accuracy >= one.val_accuracy) & (data.macs <= one.macs)) & (
            (data.val_accuracy > one.val_accuracy) | (data.macs < one.macs)
        )
        assert one.pareto == (not beaten.any())
    assert {path.stem for path in (run / "pareto").iterdir()} == set(front["id"])
    assert {f"{trial.number:05d}" for trial in study_of(run).best_trials} == set(front["id"])

    for path in (run / "pareto").iterdir():
        path.unlink()
    exported = app("export", "front")
    assert exported.returncode == 0, exported.stderr
    assert {path.stem for path in (run / "pareto").iterdir()} == set(front["id"])


@pytest.mark.slow
def test_grid_is_a_study_and_added_values_run_only_what_is_new(app: App) -> None:
    base = ["model=mlp", "optimizer=adam", "epochs=1", "dataset.limit=300"]
    assert app("search", "digits-demo", "--name", "grown", *sets(*base, "lr=1e-3,1e-2")).returncode == 0
    run = app.storage / "grown"
    before = (run / "trials.jsonl").read_text()
    more = app("search", "digits-demo", "--name", "grown", *sets(*base, "lr=1e-4,1e-3,1e-2"))
    assert more.returncode == 0, more.stderr
    assert (run / "trials.jsonl").read_text().startswith(before)
    assert [trial.config["lr"] for trial in records(run)] == [1e-3, 1e-2, 1e-4]
    assert [trial.params for trial in study_of(run).trials][:2] == [{"lr": 1e-3}, {"lr": 1e-2}]
    fewer = app("search", "digits-demo", "--name", "grown", *sets(*base, "lr=1e-4"))
    assert fewer.returncode == 2
    assert "exists with another experiment" in fewer.stderr
    joined = app("search", "digits-demo", "--name", "grown", "--extend", *sets(*base, "lr=1e-4,5e-4"))
    assert joined.returncode == 0, joined.stderr
    assert "taken up: 3 of 4 trials are finished already" in joined.stdout
    assert [trial.config["lr"] for trial in records(run)] == [1e-3, 1e-2, 1e-4, 5e-4]


@pytest.mark.slow
def test_trial_that_runs_too_long_is_ended_and_the_search_goes_on(app: App) -> None:
    values = sets("model=mlp", "optimizer=adam", "lr=1e-3", "epochs=1,1000000", "budget.trial_minutes=0.1")
    ran = app("search", "digits-demo", "--name", "slow", *values)
    assert ran.returncode == 0, ran.stderr
    quick, slow = records(app.storage / "slow")
    assert quick.state == "COMPLETE"
    assert (slow.state, slow.failure, slow.attempts) == ("FAIL", "timeout", 1)
    assert slow.reason == "still running after 0.1 minutes"
    assert [trial.state.name for trial in study_of(app.storage / "slow").trials] == ["COMPLETE", "PRUNED"]


@pytest.mark.slow
def test_repeats_of_a_stopped_config_are_not_begun(app: App) -> None:
    values = ["model=mlp", "optimizer=adam", "lr=1e-2,1e-5,1e-6", "epochs=6", "repeats=3", "scheduler.name=asha"]
    values += ["scheduler.reduction_factor=2", "search.max_concurrent=1"]
    ran = app("search", "digits-demo", "--name", "followed", *sets(*values))
    assert ran.returncode == 0, ran.stderr
    groups = by_number(records(app.storage / "followed"))
    assert [trial.state for trial in groups[0]] == ["COMPLETE"] * 3
    for first, *others in (groups[1], groups[2]):
        assert first.reason == "stopped by asha after epoch 1"
        assert {trial.state for trial in others} == {"PRUNED"}
        assert {trial.reason for trial in others} == {f"{first.id}, of the same config, was stopped"}
        assert not any(trial.epochs for trial in others)
    assert [trial.state.name for trial in study_of(app.storage / "followed").trials] == ["COMPLETE", "PRUNED", "PRUNED"]


@pytest.mark.slow
def test_budget_ends_the_search_with_what_is_done(app: App) -> None:
    values = sets("model=mlp", "optimizer=adam", "lr=1e-3", "epochs=1,1000000", "budget.minutes=0.25")
    ran = app("search", "digits-demo", "--name", "budget", *values)
    assert ran.returncode == 0, ran.stderr
    assert "the budget is used up, 1 of 2 trials left; the same command takes it up again" in ran.stdout
    assert [trial.state for trial in records(app.storage / "budget")] == ["COMPLETE", "WAITING"]
    assert (app.storage / "budget" / "best.yaml").exists()


@pytest.mark.slow
def test_repeats_tell_the_mean_and_confirmation_compares_over_fresh_seeds(app: App) -> None:
    values = sets("model=mlp,svm", "optimizer=adam", "lr=1e-3,1e-5", "epochs=2", "repeats=2", "dataset.limit=600")
    ran = app("search", "digits-demo", "--name", "repeated", *values)
    assert ran.returncode == 0, ran.stderr
    run = app.storage / "repeated"
    trials = records(run)
    assert [trial.id for trial in trials] == ["00000-0", "00000-1", "00001-0", "00001-1", "00002-0", "00002-1"]
    assert [trial.config.get("seed") for trial in trials] == [42, 43, 42, 43, None, None]
    accuracies = [trial.result["val_accuracy"] for trial in trials]
    for number, frozen in enumerate(study_of(run).trials):
        assert frozen.value == pytest.approx(sum(accuracies[2 * number : 2 * number + 2]) / 2)
    data = pd.read_parquet(run / "trials.parquet")
    assert data["fold"].tolist() == [0, 1] * 3
    assert data["seed"].dropna().tolist() == [42, 43, 42, 43]

    confirmed = app("confirm", "repeated", "--top", "3", "--seeds", "3", "--splits")
    assert confirmed.returncode == 0, confirmed.stderr
    found = json.loads((run / "confirm.json").read_text())
    (folder,) = run.glob("confirm-top3-seeds3-splits-*")
    again = records(folder)
    assert len(again) == 9
    fresh = {trial.config["seed"] for trial in again if "seed" in trial.config}
    assert len(fresh) == 3
    assert not fresh & {42, 43}
    assert found["configs"][0]["config"]["model"] == "svm"
    assert found["configs"][-1]["versus_first"]["tied"] is False
    assert found["configs"][-1]["config"]["lr"] == 1e-5
    mean = sum(trial.result["val_accuracy"] for trial in again[:3]) / 3
    assert found["configs"][0]["val"]["mean"] == pytest.approx(mean)
    assert "really worse: " in confirmed.stdout

    exported = app("export", "repeated", "--rule", "cheapest")
    assert exported.returncode == 0, exported.stderr
    assert "least training time" in (run / "best.yaml").read_text()
    assert app("confirm", "repeated", "--top", "3", "--seeds", "3", "--splits").returncode == 0
    assert len(records(folder)) == 9
    assert list(run.glob("confirm-top3-seeds3-splits-*")) == [folder]

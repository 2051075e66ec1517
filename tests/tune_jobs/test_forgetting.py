"""What Tune keeps of its trials: these fail where a new version keeps them in yet another place."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.train._internal.storage import StorageContext
from ray.tune import registry
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.callback import _create_default_callbacks

from tune_jobs.experiment import Scheduler
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.running import registry as registers
from tune_jobs.running.forgetting import Forgetting, NoLines
from tune_jobs.running.stopping import EarlyStopping


def early_stopping() -> EarlyStopping:
    return EarlyStopping(Scheduler(), 1, lambda trial: TrialRecord(trial.trial_id), set())


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuneController:
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")  # else it asks Ray
    storage = StorageContext(storage_path=str(tmp_path), experiment_dir_name="made-up")
    return TuneController(storage=storage, scheduler=early_stopping())


def ended(controller: TuneController, status: str) -> Trial:
    """A trial that Tune has run to its end, as far as that goes without Ray."""
    trial = Trial("made_up", stub=True, placement_group_factory=tune.PlacementGroupFactory([{"CPU": 1}]))
    controller.add_trial(trial)
    controller._set_trial_status(trial, Trial.RUNNING)
    controller._pending_trials_list.remove(trial)  # as when it is handed to a worker
    trial.update_last_result({"val_accuracy": 0.5, "training_iteration": 1})
    controller._set_trial_status(trial, status)
    controller._mark_trial_to_checkpoint(trial)
    return trial


@pytest.mark.parametrize("status", [Trial.TERMINATED, Trial.ERROR])
def test_forgetting_a_trial_that_ended_is_nowhere(controller: TuneController, status: str) -> None:
    scheduler = controller.scheduler_alg
    assert isinstance(scheduler, EarlyStopping)
    forgetting = Forgetting(scheduler)
    trial, other = ended(controller, status), ended(controller, status)
    if status == Trial.ERROR:
        scheduler.on_trial_error(controller, trial)
    else:
        scheduler.on_trial_complete(controller, trial, {})
    held, trial_id = weakref.ref(trial), trial.trial_id
    assert len(controller.get_trials()) == 2
    forgetting.on_step_end(1, controller.get_trials())
    assert controller.get_trials() == [other]
    del trial
    gc.collect()
    assert held() is None
    assert trial_id not in controller._get_trial_checkpoints()
    forgetting.on_step_end(2, controller.get_trials())  # once is enough
    assert controller.get_trials() == [other]


def test_forgetting_a_trial_that_goes_on_stays(controller: TuneController) -> None:
    scheduler = controller.scheduler_alg
    assert isinstance(scheduler, EarlyStopping)
    forgetting = Forgetting(scheduler)
    trial = ended(controller, Trial.PAUSED)
    scheduler.on_trial_error(controller, trial)
    forgetting.on_step_end(1, controller.get_trials())
    assert controller.get_trials() == [trial]


def test_forgetting_a_worker_that_was_not_needed_is_nowhere(controller: TuneController) -> None:
    manager = controller._actor_manager
    calls: Any = manager._pending_actors_to_enqueued_actor_tasks
    attributes: Any = manager._pending_actors_to_attrs
    calls["removed"], calls["waits"] = ["stop"], ["train"]
    attributes["waits"] = ()
    scheduler = controller.scheduler_alg
    assert isinstance(scheduler, EarlyStopping)
    forgetting = Forgetting(scheduler)
    scheduler.on_trial_complete(controller, ended(controller, Trial.TERMINATED), {})
    forgetting.on_step_end(1, controller.get_trials())
    assert dict(calls) == {"waits": ["train"]}


def test_no_lines_stands_where_tunes_own_would() -> None:
    given: list[tune.Callback] = [NoLines()]
    assert _create_default_callbacks(given, air_verbosity=None) == given


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the register was asked, with one trainable in it."""
    found: list[str] = []

    def get(self: Any, category: str, key: str) -> Any:
        found.append("get")
        return object()

    def contains(self: Any, category: str, key: str) -> bool:
        found.append("contains")
        return key == "there"

    monkeypatch.setattr(registry._Registry, "get", get)
    monkeypatch.setattr(registry._Registry, "contains", contains)
    return found


def test_remembered_asks_for_a_trainable_once_and_no_longer_than_it_lasts(asked: list[str]) -> None:
    with registers.remembered():
        first = registry.get_trainable_cls("there")
        assert registry.get_trainable_cls("there") is first
        registry.validate_trainable("there")
        assert asked == ["contains", "get"]
        assert not registry._has_trainable("elsewhere")
        assert not registry._has_trainable("elsewhere")
        assert asked == ["contains", "get", "contains", "contains"]
    assert registry.get_trainable_cls("there") is not first

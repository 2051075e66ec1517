"""Ray Tune set to work: the Tuner with its searcher and its scheduler."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from datasets import Splits
from tune_jobs.experiment import Experiment
from tune_jobs.recorder import Recorder
from tune_jobs.resources import slots
from tune_jobs.results.ledger import number_of
from tune_jobs.results.rundir import RunDir
from tune_jobs.space import Point, Space
from tune_jobs.study import Study
from tune_jobs.trial import TRIAL_KEY, run_trial

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


def run_trials(
    experiment: Experiment, run_dir: RunDir, splits: Sequence[Splits], study: Study, recorder: Recorder
) -> bool:
    """Run what is left; returns whether that was within the budget."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial's row has its reason
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables, which `verbose` does not silence
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # CSV and JSON twice over; TensorBoard is given below
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # an epoch's message has not every objective
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")  # Tune's own snapshots, of which we use none
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")  # else a searcher's workers start one after another

    def ask(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        request = experiment.resources.of(config["model"])
        return tune.PlacementGroupFactory([{"CPU": request.cpu} | ({"GPU": request.gpu} if request.gpu else {})])

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, splits=splits), ask),
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(study, recorder, _at_once(experiment, study.space)),
            scheduler=_scheduler(experiment, study.space.most_epochs(), recorder.stopped),
            num_samples=-1,  # the searcher says when it has no more
            reuse_actors=True,
            time_budget_s=None if experiment.budget.minutes is None else 60 * experiment.budget.minutes,
            trial_dirname_creator=lambda trial: f"{trial.config[TRIAL_KEY]}-{trial.config['model']}",
        ),
        run_config=tune.RunConfig(
            name=run_dir.name,
            storage_path=str(run_dir.path.parent),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=experiment.retries),
            callbacks=[recorder, TBXLoggerCallback()],
        ),
    )
    start = time.monotonic()
    tuner.fit()
    return experiment.budget.minutes is None or time.monotonic() - start < 60 * experiment.budget.minutes


def _at_once(experiment: Experiment, space: Space) -> float:
    """How many trials may be handed out and unfinished.  A grid's are all known, and Ray queues them as it likes."""
    if experiment.search.max_concurrent is not None:
        return experiment.search.max_concurrent
    if experiment.search.method == "grid":
        return math.inf
    return max(slots(experiment.resources.of(model), ray.nodes()) for model in space.models())


def _scheduler(experiment: Experiment, most_epochs: int, stopped: set[str]) -> TrialScheduler:
    """Early stopping as asked; Ray's ids of the trials that it stops go into `stopped`."""
    scheduler = _early_stopping(experiment, most_epochs)
    decide = scheduler.on_trial_result

    def on_trial_result(controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision: str = decide(controller, trial, result)
        if decision == TrialScheduler.STOP:
            stopped.add(trial.trial_id)
        return decision

    scheduler.on_trial_result = on_trial_result  # type: ignore[assignment, method-assign]
    return scheduler


def _early_stopping(experiment: Experiment, most_epochs: int) -> TrialScheduler:
    asked = experiment.scheduler
    metric, mode = "val_accuracy", "max"
    if asked.name == "none":
        return FIFOScheduler()
    if asked.name == "median":
        return MedianStoppingRule("epoch", metric, mode, grace_period=asked.grace_epochs, min_samples_required=2)
    return AsyncHyperBandScheduler(
        "epoch",
        metric,
        mode,
        max_t=max(most_epochs, asked.grace_epochs),
        grace_period=asked.grace_epochs,
        reduction_factor=asked.reduction_factor,
        brackets=3 if asked.name == "hyperband" else 1,
    )


class _Searcher(OptunaSearch):
    """Tune's OptunaSearch over the run's study: hands out each trial with its id; the recorder tells.

    OptunaSearch itself would tell a stopped trial as COMPLETE and leave one without a finite value RUNNING for ever.
    """

    def __init__(self, study: Study, recorder: Recorder, most: float) -> None:
        names, ways = list(study.objectives), [str(way) for way in study.objectives.values()]
        super().__init__(
            space=study.space.suggest,
            metric=names if len(names) > 1 else names[0],
            mode=ways if len(ways) > 1 else ways[0],
            sampler=study.sampler,
            storage=study.storage,
            study_name=study.name,
        )
        self._study = study
        self._recorder = recorder
        self._waiting = recorder.unfinished()
        self._to_ask = recorder.to_ask()
        self._most = most

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._recorder.running() >= self._most:
            return None  # a sampler learns from what has finished: it is asked when there is room, not before
        if not self._waiting and self._to_ask:
            self._to_ask -= 1
            point: Point = super().suggest(trial_id) or {}
            self._waiting += self._recorder.add(self._ot_trials[trial_id].number, point)
        if not self._waiting:
            return Searcher.FINISHED  # type: ignore[return-value]  # Ray's own way to say so
        own = self._waiting.pop(0)
        self._study.start(number_of(own.id))
        self._recorder.handed_out.add(own.id)
        return {TRIAL_KEY: own.id} | own.config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The recorder reports epochs."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The recorder tells how a trial ended."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to pickle into its snapshots."""
        return {}

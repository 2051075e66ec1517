"""Ray Tune set to work: the Tuner with its searcher and its scheduler."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.air._internal import usage
from ray.tune.execution import class_cache
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.trainable.function_trainable import wrap_function

from tune_jobs.experiment import Experiment
from tune_jobs.interruption import DiskFull, Leave, Stop
from tune_jobs.resources import Request
from tune_jobs.results.rundir import RunDir
from tune_jobs.running import loggers, registry
from tune_jobs.running.forgetting import Forgetting, NoLines
from tune_jobs.running.recorder import Recorder
from tune_jobs.running.run import Run
from tune_jobs.running.stopping import EarlyStopping
from tune_jobs.space import Point
from tune_jobs.study import Study
from tune_jobs.study.drawn import Drawn
from tune_jobs.trial import AWAY_KEY, REQUEST_KEY, SLOT_KEY, run_trial

ASKED = 5
"""So often is a sampler asked for a config that is new."""


def run_trials(
    run: Run,
    study: Study,
    recorder: Recorder,
    early_stopping: EarlyStopping,
    requests: Sequence[Request],
    stop: Stop,
) -> None:
    """Run what is left, until it is done or `stop` says so.  `requests` are what the trials may ask for."""
    experiment, run_dir = run.experiment, run.directory
    _set_up()
    told = loggers.callbacks(experiment.loggers, run_dir, study.space.varied())
    tuner = tune.Tuner(
        _worker(run),
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(study, recorder, experiment, requests, stop),
            scheduler=early_stopping,
            num_samples=-1,  # the searcher says when it has no more
            reuse_actors=True,
            trial_name_creator=loggers.trial_name,  # which MLflow and W&B show
            trial_dirname_creator=loggers.trial_name,
        ),
        run_config=tune.RunConfig(
            name=run_dir.name,
            storage_path=str(run_dir.path.parent),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),  # the recorder hands a trial out again
            callbacks=[recorder, *told, Forgetting(early_stopping), NoLines()],
        ),
    )
    with stop.on_signals(), registry.remembered():
        try:
            tuner.fit()
        except Leave as left:
            if isinstance(left, DiskFull):
                stop.ask("disk", str(left))
            recorder.waiting.end_workers()
            if stop.cause != "disk":  # there they would write, too
                loggers.close(told, run.listener.say)
        finally:
            _remove_snapshots(run_dir)


def _set_up() -> None:
    """What Tune reads of its process."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial's row has its reason
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables, which `verbose` does not silence
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # CSV and JSON twice over; ours are given below
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # an epoch's message has not every objective
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # its way of stopping takes ten seconds; `stop` hears the signals
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")  # Tune's own snapshots, of which we use none
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1024")  # the recorder hands out as many as there is room for
    # Tune sets a variable for PyTorch Lightning in its workers.  Without it they are like any other, and those that Ray
    # has started beforehand serve: 1.3 s sooner.
    class_cache.DEFAULT_ENV_VARS.clear()
    # For a tag in usage reports, which are off, Ray would import wandb, mlflow and comet where they are installed.
    usage.tag_callbacks = lambda callbacks: False  # noqa: ARG005 - called by name


def _remove_snapshots(run_dir: RunDir) -> None:
    """Tune's own state, pickled; ours is the ledger."""
    for pattern in ("tuner.pkl", "experiment_state-*.json", "search_gen_state-*.json"):
        for path in run_dir.path.glob(pattern):
            path.unlink(missing_ok=True)


def _worker(run: Run) -> type[tune.Trainable]:
    """The class of the worker processes, which Ray's dashboard and logs call by run and slot."""
    name, folder = run.directory.name, run.directory.checkpoints
    asked = {"keep_model": run.experiment.keep_models > 0, "fuse": run.experiment.resources.fuse}
    base = wrap_function(tune.with_parameters(run_trial, splits=run.splits, folder=folder, **asked))

    class TrialWorker(base):  # type: ignore[misc, valid-type]
        def setup(self, config: dict[str, Any], **more: Any) -> None:
            self._slot = config[SLOT_KEY]
            super().setup(config, **more)

        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            labels: dict[str, Any] = {}
            if away := config[AWAY_KEY]:
                labels["bundle_label_selector"] = [{"ray.io/node-id": f"!in({','.join(away)})"}]
            return tune.PlacementGroupFactory([Request(**config[REQUEST_KEY]).bundle()], **labels)

        def __repr__(self) -> str:
            return f"{name} slot {self._slot}"

    return TrialWorker


class _Searcher(OptunaSearch):
    """Tune's OptunaSearch over the run's study: hands out each trial with its id; the recorder tells.

    OptunaSearch itself would tell a stopped trial as COMPLETE and leave one without a finite value RUNNING for ever.
    """

    def __init__(
        self, study: Study, recorder: Recorder, experiment: Experiment, requests: Sequence[Request], stop: Stop
    ) -> None:
        names, ways = list(study.objectives), [str(way) for way in study.objectives.values()]
        super().__init__(
            space=study.space.suggest,
            metric=names if len(names) > 1 else names[0],
            mode=ways if len(ways) > 1 else ways[0],
            sampler=study.sampler,
            storage=study.storage,
            study_name=study.name,
        )
        self._recorder = recorder
        self._to_ask = recorder.to_ask()
        self._drawn = Drawn(recorder.record.groups if self._to_ask else {})
        self._experiment = experiment
        self._study = study
        self._requests = requests
        self._stop = stop

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        self._stop.leave_if_asked()  # Tune may ask for minutes without taking any other step
        recorder, waiting = self._recorder, self._recorder.waiting
        if len(waiting.out) >= self._most():
            return None  # a sampler learns from what has finished: it is asked when there is room, not before
        config = recorder.hand_out(trial_id)
        for _ in range(waiting.room(self._requests)):  # no more in a row: Tune does nothing else meanwhile
            if config is not None or not self._may_ask():
                break
            self._to_ask -= 1
            for own in recorder.add(*self._another(trial_id)):
                waiting.put(own)
            config = recorder.hand_out(trial_id)
        # A trial that runs may fail and have to be handed out again.
        is_over = config is None and not (waiting or waiting.out or self._to_ask)
        return Searcher.FINISHED if is_over else config  # type: ignore[return-value]  # Ray's own way

    def _may_ask(self) -> bool:
        """Whether to draw another where none of those that wait can be started: some other kind has a place, which
        they do not keep free.  A sampler that learns is asked for no more ahead than run at once."""
        waiting = self._recorder.waiting
        if not self._to_ask or not waiting.has_place(self._requests):
            return False
        return not self._learns or len(waiting) + len(waiting.out) < self._most()

    def _another(self, trial_id: str) -> tuple[int, Point]:
        """A config that the run does not have yet, behind its number in the study.

        A sampler that draws others is asked again, and one that keeps to them is given another, drawn at random.
        """
        for asked in itertools.count(1):
            point = super().suggest(trial_id) or {}
            number = self._ot_trials.pop(trial_id).number
            same_as = self._drawn.same_as(point)
            if same_as is None:
                break
            self._study.pass_over(number, same_as)
            if asked == ASKED:
                self._study.add_another(lambda point: self._drawn.same_as(point) is None)
        self._drawn.add(number, point)
        return number, point

    def _most(self) -> float:
        """How many trials may be with Ray.  Any number of a grid, and of points drawn at random: what comes next does
        not depend on what has finished."""
        if (most := self._experiment.search.max_concurrent) is not None:
            return most
        return self._recorder.waiting.room(self._requests) if self._learns else math.inf

    @property
    def _learns(self) -> bool:
        search = self._experiment.search
        return search.method == "optuna" and search.sampler != "random"

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

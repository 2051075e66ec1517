"""What Ray Tune keeps of a trial for ever, and lets go of here once the trial is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback

from tune_jobs.running.stopping import EarlyStopping

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class Forgetting(tune.Callback):
    """Makes Tune forget each trial that has ended, at the end of the step in which it did.

    Told of it by the scheduler, whom Tune gives its controller.  Tune keeps its trials to write them into snapshots and
    to return them at the end, none of which a search uses, since the ledger has them; and it looks through all of them
    at every step.
    """

    def __init__(self, early_stopping: EarlyStopping) -> None:
        self._ended: dict[str, tuple[TuneController, Trial]] = {}
        early_stopping.ended = self._end

    def _end(self, controller: TuneController, trial: Trial) -> None:
        """The trial ends in this step."""
        self._ended[trial.trial_id] = (controller, trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        for controller, trial in self._ended.values():
            if trial.is_finished():
                forget(controller, trial)
        self._ended.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to pickle into its snapshots."""
        return {}


class NoLines(TrialProgressCallback):
    """Stands where Tune would put its own, which keeps every trial and makes lines of each result that nobody sees."""

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        """Not a word."""

    def on_trial_error(self, *_: Any, **__: Any) -> None:
        """Not a word."""

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Not a word."""


def forget(controller: TuneController, trial: Trial) -> None:
    """Drop a trial that is finished from wherever the controller has it.  There is no call for it in Tune.

    A worker that was requested for it and not needed, since another one came free, stays in the actor manager's list of
    calls to be made once it is there; with it the trial, which its callbacks know.
    """
    controller.get_trials().remove(trial)
    for known in (
        controller._live_trials,
        controller._stopped_trials,
        controller._failed_trials,
        controller._trials_to_cache,  # to be written into the next snapshot, which never comes
    ):
        known.discard(trial)
    controller._trial_metadata.pop(trial.trial_id, None)
    manager = controller._actor_manager
    calls = manager._pending_actors_to_enqueued_actor_tasks
    for actor in [actor for actor in calls if actor not in manager._pending_actors_to_attrs]:
        del calls[actor]

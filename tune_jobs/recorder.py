"""What a search reports, written to the ledger and the study as it happens, in the driver."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray import tune

from datasets import Splits
from models import TrainConfig
from profiling.flops import macs
from tune_jobs import failures
from tune_jobs.checkpoints import Checkpoints
from tune_jobs.cluster import Leave, Stop
from tune_jobs.experiment import Experiment
from tune_jobs.metrics import Metrics
from tune_jobs.resources import Request, grown
from tune_jobs.results import ledger
from tune_jobs.results.ledger import number_of, trial_id
from tune_jobs.results.rundir import RunDir
from tune_jobs.sharing import Sharing
from tune_jobs.space import Point, Space
from tune_jobs.study import Study, by_number
from tune_jobs.trial import KNOWN_KEY, REQUEST_KEY, SLOT_KEY, TRIAL_KEY

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.tune.experiment import Trial


class Listener(Protocol):
    """Who is told how the search goes."""

    def say(self, line: str) -> None:
        """Something to know about the search as a whole."""

    def follow(self, trial: ledger.TrialRecord) -> None:
        """A trial has started, or trained an epoch."""

    def tell(self, trial: ledger.TrialRecord, finished: int, total: int) -> None:
        """A trial has just finished or is to be tried again; so many are finished; so many there are."""


def total(experiment: Experiment, space: Space) -> int:
    """How many trials the experiment asks for, repeats included."""
    numbers = len(space.grid()) if experiment.search.trials is None else experiment.search.trials
    return numbers * experiment.repeats


def repeated(point: Point, repeats: int) -> list[Point]:
    """The point under `repeats` seeds that count up from its own, where it has one that is set."""
    if point.get("seed") is None:
        return [point] * repeats
    return [point | {"seed": point["seed"] + fold} for fold in range(repeats)]


class Recorder(tune.Callback):
    """Writes every epoch and every change of state to the ledger and the study, and says what is to be run."""

    def __init__(
        self,
        experiment: Experiment,
        run_dir: RunDir,
        splits: Splits,
        record: ledger.Ledger,
        trials: dict[str, ledger.TrialRecord],
        study: Study,
        request_of: Callable[[Mapping[str, Any]], Request],
        listener: Listener,
        stop: Stop,
    ) -> None:
        self._experiment = experiment
        self._splits = splits
        self._record = record
        self._trials = trials
        self._study = study
        self._request_of = request_of
        self._listener = listener
        self._stop = stop
        self._total = total(experiment, study.space)
        self._started: dict[str, float] = {}
        self._timed_out: set[str] = set()
        self._sharing = Sharing()
        self._metrics = Metrics(run_dir.name, len(splits.train))
        self._requests: dict[str, Request] = {}
        self._actors: dict[str, ActorHandle[Any]] = {}
        self._slots: dict[ActorHandle[Any], int] = {}
        self._groups = by_number(trials.values())
        self._finished = sum(trial.finished for trial in trials.values())
        self._kept = [trial for trial in trials.values() if trial.state == "COMPLETE"]
        self._folder = str(run_dir.checkpoints)
        self.waiting: list[ledger.TrialRecord] = []
        """Trials that are to be run, or run again, the next one first."""
        self.handed_out: dict[str, int] = {}
        """Ids of the trials that Ray has now -> the slot that each was given."""
        self.stopped: set[str] = set()
        """Ray's ids of the trials that the scheduler stopped."""

    def running(self) -> int:
        """Trials that Ray has and that are not finished."""
        return len(self.handed_out)

    def to_ask(self) -> int:
        """How many points are still to be asked of the sampler."""
        if self._experiment.search.trials is None:
            return 0  # a grid's points are all known
        return max(0, self._experiment.search.trials - len(by_number(self._trials.values())))

    def add(self, number: int, point: Point) -> list[ledger.TrialRecord]:
        """Write down the study's trial of this number, one record a repeat, before any of them starts."""
        points = repeated(point, self._experiment.repeats)
        added = []
        for fold, config in enumerate(points):
            own = ledger.TrialRecord(trial_id(number, None if self._experiment.repeats == 1 else fold))
            self._trials[own.id] = own
            self._groups.setdefault(number, []).append(own)
            self._write(own, "state", state="WAITING", config=config)
            added.append(own)
        return added

    def hand_out(self) -> dict[str, Any]:
        """The next waiting trial as Ray's config; it is running from now on as far as we are concerned."""
        own = self.waiting.pop(0)
        self._study.start(number_of(own.id))
        taken = {*self._slots.values(), *self.handed_out.values()}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        self.handed_out[own.id] = slot
        return {
            TRIAL_KEY: own.id,
            REQUEST_KEY: self._request(own).model_dump(),
            KNOWN_KEY: len(own.epochs),
            SLOT_KEY: slot,
        } | own.config

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self.own(trial)
        actor = trial.temporary_state.ray_actor
        assert actor is not None
        self._actors[own.id] = actor
        self._slots.setdefault(actor, self.handed_out[own.id])
        self._started[own.id] = time.monotonic()
        self._write(own, "state", state="RUNNING", attempt=own.attempts + 1, request=self._request(own).model_dump())
        self._listener.follow(own)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        own = self.own(trial)
        if "where" in result and not own.place:
            self._arrive(own, result["where"])
        if "failure" in result:
            self._fail(own, result["failure"], result["reason"])
            return
        self._write(own, "epoch", attempt=own.attempts, **{name: result[name] for name in _EPOCH_FIELDS})
        self._metrics.epoch(own.id, result)
        if self._group(own)[0] is own:  # of its repeats, the first speaks for all
            self._study.report(number_of(own.id), {name: result[name] for name in _EPOCH_FIELDS})
        if "result" in result:
            self._finish(own, state="COMPLETE", result=self._with_macs(own, result["result"]))
            self._keep_best(own)
        else:
            self._listener.follow(own)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial that ends without a result was stopped by the scheduler."""
        _forget_metrics(trial)
        own = self.own(trial)
        if not own.finished and trial.trial_id in self.stopped:
            name = self._experiment.scheduler.name
            self._finish(own, state="PRUNED", reason=f"stopped by {name} after epoch {own.epochs[-1]['epoch']}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        _forget_metrics(trial)
        own = self.own(trial)
        if own.id in self._actors:
            self._slots.pop(self._actors[own.id], None)  # its worker is gone
        if own.finished or own.id not in self.handed_out:
            return
        if own.id in self._timed_out:
            self._fail(own, "timeout", f"still running after {self._experiment.budget.trial_minutes:g} minutes")
        else:
            text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
            self._fail(own, *failures.classify(text))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Leave Tune's loop where the search is to stop; end trials that have run too long, by killing their process:
        one hung in native code hears nothing else."""
        self._stop.leave_if_asked()
        limit = self._experiment.budget.trial_minutes
        if limit is None:
            return
        for trial in trials:
            own = self.own(trial)
            if own.state != "RUNNING" or own.id in self._timed_out or own.id not in self.handed_out:
                continue
            if time.monotonic() - self._started[own.id] > 60 * limit:
                self._timed_out.add(own.id)
                ray.kill(self._actors[own.id])

    def end_workers(self) -> None:
        """End the processes of the trials that run, at once."""
        for own_id in self.handed_out:
            if own_id in self._actors:
                ray.kill(self._actors[own_id])

    def own(self, trial: Trial) -> ledger.TrialRecord:
        """The record of one of Ray's trials."""
        return self._trials[trial.config[TRIAL_KEY]]

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to pickle into its snapshots: the ledger is the state."""
        return {}

    def _request(self, own: ledger.TrialRecord) -> Request:
        """What it asks for: the experiment's request, or the greater one that it had grown to."""
        if own.id not in self._requests:
            asked = self._request_of(own.config)
            if "out_of_memory" in own.failures and own.request is not None:
                asked = grown(Request(**own.request), ray.nodes()) or asked
            self._requests[own.id] = asked
        return self._requests[own.id]

    def _arrive(self, own: ledger.TrialRecord, where: dict[str, Any]) -> None:
        """The first word of an attempt says where it runs."""
        self._write(own, "place", attempt=own.attempts, slot=self._slots[self._actors[own.id]], **where)
        place: Hashable = (where["node"], *where["cards"])
        self._sharing.enter(own.id, place)

    def _with_macs(self, own: ledger.TrialRecord, result: dict[str, Any]) -> dict[str, Any]:
        """A network's cost follows from its shape, and is counted here once for all trials that share it."""
        if result["macs"] is not None:
            return result
        splits = self._splits
        config = TrainConfig(**own.config)
        return result | {"macs": macs(config, splits.channels, len(splits.classes), splits.image_size)}

    def _fail(self, own: ledger.TrialRecord, failure: str, reason: str) -> None:
        """What follows from a failure: the trial waits to be started again, or FAILs; or the whole search stops."""
        if failure == "disk_full":
            self._stop.ask("disk", reason)
            return
        if failures.may_retry([*own.failures, failure], self._experiment.retries):
            more = None
            if failures.RULES[failure].more_memory:
                more = grown(self._request(own), ray.nodes())
                if more is None:
                    self._finish(own, state="FAIL", failure=failure, reason=f"{reason}; no node has more")
                    return
                self._requests[own.id] = more
                reason = f"{reason}; asks for {more} next"
            self._write(own, "state", state="WAITING", failure=failure, reason=reason)
            self._leave(own)
            self.waiting.insert(0, own)
            self._tell(own)
        else:
            self._finish(own, state="FAIL", failure=failure, reason=reason)

    def _leave(self, own: ledger.TrialRecord) -> float | None:
        self.handed_out.pop(own.id, None)
        self._started.pop(own.id, None)
        return self._sharing.leave(own.id)

    def _finish(self, own: ledger.TrialRecord, **fields: Any) -> None:
        started = self._started.get(own.id)  # None: its process died before it could start
        wall_time_s = None if started is None else time.monotonic() - started
        shared_with = self._leave(own)
        self._write(own, "state", wall_time_s=wall_time_s, shared_with=shared_with, **fields)
        self._finished += 1
        if own.state != "COMPLETE":
            Checkpoints(self._folder, own.id).drop()
        group = self._group(own)
        if all(trial.finished for trial in group):
            self._study.tell(group)
        self._tell(own)

    def _keep_best(self, own: ledger.TrialRecord) -> None:
        """Of the finished trials' models, only those of the best few stay."""
        self._kept.append(own)
        self._kept.sort(key=lambda trial: -trial.result["val_accuracy"])
        while len(self._kept) > self._experiment.keep_models:
            Checkpoints(self._folder, self._kept.pop().id).drop()

    def _group(self, own: ledger.TrialRecord) -> list[ledger.TrialRecord]:
        return self._groups[number_of(own.id)]

    def _tell(self, own: ledger.TrialRecord) -> None:
        self._metrics.states(self._trials.values())
        self._listener.tell(own, self._finished, self._total)

    def _write(self, own: ledger.TrialRecord, event: str, **fields: Any) -> None:
        """To the ledger, then to memory; a full disk stops the search, and what it did not take was never said."""
        try:
            line = self._record.append(own.id, event, **fields)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._stop.ask("disk", f"the run directory is on a full disk ({error.strerror})")
            raise Leave from error
        ledger.apply(own, line)


def _forget_metrics(trial: Trial) -> None:
    """Tune keeps running means of every number of every trial for ever, which nobody reads: tens of KiB a trial."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


_EPOCH_FIELDS = ("epoch", "train_loss", "val_loss", "val_accuracy", "epoch_time_s")

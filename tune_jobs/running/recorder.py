"""What a search reports, written to the ledger and the study as it happens, in the driver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from tune_jobs import failures
from tune_jobs.cluster import is_lost
from tune_jobs.cost import with_macs
from tune_jobs.experiment.repeats import missing, repeated
from tune_jobs.interruption import Stop
from tune_jobs.results.ledger import TrialRecord, fold_of, number_of
from tune_jobs.running.keeping import Keeping
from tune_jobs.running.metrics import Metrics
from tune_jobs.running.record import Record
from tune_jobs.running.run import Run
from tune_jobs.running.sharing import Company, Sharing
from tune_jobs.running.waiting import Waiting
from tune_jobs.running.watching import Watch
from tune_jobs.space import Point
from tune_jobs.study import Study
from tune_jobs.study.drawn import to_draw
from tune_jobs.trial import AWAY_KEY, KNOWN_KEY, REQUEST_KEY, SLOT_KEY, TRIAL_KEY

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class Recorder(tune.Callback):
    """Writes every epoch and every change of state to the ledger and the study, and says what is to be run."""

    def __init__(
        self,
        run: Run,
        record: Record,
        study: Study,
        waiting: Waiting,
        watch: Watch,
        keeping: Keeping,
        stop: Stop,
    ) -> None:
        self._experiment = run.experiment
        self._splits = run.splits[0]
        self._run_dir = run.directory
        self._listener = run.listener
        self.record = record
        self._study = study
        self.waiting = waiting
        """What is to be run, and what Ray has."""
        self._broken = waiting.broken
        self._watch = watch
        self._keeping = keeping
        self._stop = stop
        self._sharing = Sharing()
        self._metrics = Metrics(run.directory.name, len(self._splits.train))
        self.stopped: set[str] = set()
        """Ray's ids of the trials that the scheduler stopped."""

    def take_up(self) -> None:
        """Trials that ran when a driver died, which could not say so, wait; repeats that it did not come to write down
        are there."""
        for own in self.record.unfinished():
            if own.state == "RUNNING":
                self.record.write(own, "state", state="WAITING", reason="its driver died")
        for number, group in self.record.groups.items():
            have = {fold_of(own.id) or 0: own.config for own in group}
            for fold, config in missing(have, self._experiment.repeats).items():
                self.record.add(number, fold, config)

    def prune(self, own: TrialRecord) -> None:
        """The scheduler had stopped it, and the driver died before it could say so."""
        self._start(own)  # a study that is made anew has it waiting
        self._finish(own, state="PRUNED", reason=self._why_pruned(own))

    def prune_repeats(self, groups: Iterable[Sequence[TrialRecord]]) -> None:
        """With its first repeat a config is stopped: those that wait are not started, and those that run end after
        their next epoch."""
        for first, *others in groups:
            for own in others if first.state == "PRUNED" else []:
                if not own.finished and self.waiting.take_back(own):
                    self._start(first)
                    self._finish(own, state="PRUNED", reason=_STOPPED_WITH.format(first.id))

    def to_ask(self) -> int:
        """How many points are still to be asked of the sampler."""
        return to_draw(self._experiment, self._study.space, self.record.groups)

    def add(self, number: int, point: Point) -> list[TrialRecord]:
        """Write down the study's trial of this number, one record a repeat, before any of them starts."""
        points = repeated(point, self._experiment.repeats)
        return [
            self.record.add(number, None if self._experiment.repeats == 1 else fold, config)
            for fold, config in enumerate(points)
        ]

    def hand_out(self, ray_id: str) -> dict[str, Any] | None:
        """The next trial as Ray's config, which is `ray_id` to Ray; None where those of its kind that can be started
        are with Ray already."""
        own = self.waiting.next(ray_id)
        if own is None:
            return None
        self._start(own)
        return {
            TRIAL_KEY: own.id,
            REQUEST_KEY: self.waiting.request(own).model_dump(),
            AWAY_KEY: self.waiting.kept_from(own),
            KNOWN_KEY: (len(own.epochs), own.epochs[0].get("train_loss") if own.epochs else None),
            SLOT_KEY: self.waiting.promised_slot(own),
        } | own.config

    def _start(self, own: TrialRecord) -> None:
        """In the study; of its repeats, the first speaks for all."""
        self._study.start(number_of(own.id), self.record.group(own)[0].epochs)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self.own(trial)
        actor = trial.temporary_state.ray_actor
        assert actor is not None
        self.waiting.start(own, actor)
        request = self.waiting.request(own).model_dump()
        self.record.write(own, "state", state="RUNNING", attempt=own.attempts + 1, request=request)
        self._listener.follow(own)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        own = self.own(trial)
        if "where" in result and not own.place:
            self._arrive(own, result["where"])
        if "refused" in result:
            self.record.write(own, "refused", reason=result["refused"])
            self._listener.say(f"note: trial {own.id} does not go on from a {result['refused']}")
        if "failure" in result:
            self._fail(own, result["failure"], result["reason"], result.get("main_memory", False))
        if "epoch" not in result:
            return
        self.record.write(own, "epoch", attempt=own.attempts, **{name: result[name] for name in _EPOCH_FIELDS})
        self._broken.epoch(own.id)
        self._watch.store_is_there(own.id)
        self._metrics.epoch(own.id, self.waiting.ran_s(own), result)
        if self.record.group(own)[0] is own:  # of its repeats, the first speaks for all
            self._study.report(number_of(own.id), {name: result[name] for name in _EPOCH_FIELDS})
        if "result" in result:
            self._finish(own, state="COMPLETE", result=with_macs(result["result"], own.config, self._splits))
        else:
            self._listener.follow(own)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial that ends without a result was stopped by the scheduler."""
        own = self.own(trial)
        if not own.finished and trial.trial_id in self.stopped:
            self._finish(own, state="PRUNED", reason=self._why_pruned(own))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        own = self.own(trial)
        if self.waiting.out.get(own.id) != trial.trial_id:
            return
        if own.id in self._watch.timed_out:
            self._fail(own, "timeout", f"still running after {self._experiment.budget.trial_minutes:g} minutes")
        else:
            text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
            failure, reason = failures.classify(text)
            is_memory = failure == "out_of_memory"  # Ray's monitor watches over main memory
            reason += f"; it had asked for {self.waiting.request(own)}" if is_memory else ""
            node = self._broken.node(own.id, failures.worker_in(text))
            if failure == "worker_crashed" and any(map(is_lost, self.waiting.alive() if node is None else [node])):
                failure, reason = "node_lost", failures.NODE_LOST
            self._fail(own, failure, reason, main_memory=is_memory)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Leave Tune's loop where the search is to stop; else see to those that hang or are lost."""
        self._stop.leave_if_asked()
        for own_id in self._watch.look(trials):
            self._fail(self.record.trials[own_id], "worker_crashed", "its worker process did not take it")

    def own(self, trial: Trial) -> TrialRecord:
        """The record of one of Ray's trials."""
        return self.record.trials[trial.config[TRIAL_KEY]]

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Ray to pickle into its snapshots: the ledger is the state."""
        return {}

    def _arrive(self, own: TrialRecord, where: dict[str, Any]) -> None:
        """The first word of an attempt says where it runs."""
        self._broken.arrive(own.id, where["node_id"], where["node"], where["cards"])
        named = {key: where[key] for key in ("node", "cards")}
        self.record.write(own, "place", attempt=own.attempts, slot=self.waiting.slot(own), **named)
        self._sharing.enter(own.id, where["node"], where["cards"])

    def _fail(self, own: TrialRecord, failure: str, reason: str, main_memory: bool = False) -> None:
        """What follows from a failure: the trial waits to be started again, or FAILs; or the whole search stops."""
        if failure == "disk_full" or (failure == "store_lost" and self._watch.is_store_away(own.id)):
            self._stop.ask("disk" if failure == "disk_full" else "store", reason)
            return
        rule = failures.RULES[failure]
        if rule.by_node:
            self._broken.fail(own.id, reason, self.waiting.alive())
        if (first := self.record.group(own)[0]).state == "PRUNED":
            self._finish(own, state="PRUNED", reason=_STOPPED_WITH.format(first.id))
            return
        if not failures.may_retry(own.failures, own.lost, failure, self._experiment.retries):
            self._finish(own, state="FAIL", failure=failure, reason=reason)
            return
        more = {}
        if rule.more_memory:
            request = self.waiting.grow(own, main_memory)
            if request is None:
                self._finish(own, state="FAIL", failure=failure, reason=f"{reason}; no node has more")
                return
            reason = f"{reason}; asks for {request} next"
            more = {"next_request": request.model_dump()}
        self.record.write(own, "state", state="WAITING", failure=failure, reason=reason, **more)
        self._leave(own)
        (self.waiting.put_second if rule.by_node else self.waiting.put_first)(own)
        self._tell(own)

    def _leave(self, own: TrialRecord) -> tuple[float | None, Company]:
        """Seconds that it had a worker, None where it never had one, and how many others there were beside it."""
        self._broken.leave(own.id)
        return self.waiting.leave(own), self._sharing.leave(own.id)

    def _why_pruned(self, own: TrialRecord) -> str:
        return f"stopped by {self._experiment.scheduler.name} after epoch {own.epochs[-1]['epoch']}"

    def _finish(self, own: TrialRecord, **fields: Any) -> None:
        wall_time_s, company = self._leave(own)
        shared = {"shared_with": company.on_node, "shared_card_with": company.on_card}
        self.record.write(own, "state", wall_time_s=wall_time_s, **shared, **fields)
        group = self.record.group(own)
        if all(trial.finished for trial in group):
            self._study.tell(group)
            self._keeping.finish(group)
        else:
            self._keeping.hold(own)
        self._run_dir.push_soon()
        self._tell(own)
        self._forget(own)
        if group[0] is own:
            self.prune_repeats([group])

    def _forget(self, own: TrialRecord) -> None:
        """Of a trial that is over the driver keeps its place in the table: with thousands of them its memory is to stay
        as it is."""
        self.waiting.forget(own)
        self._watch.timed_out.discard(own.id)
        own.forget_course()

    def _tell(self, own: TrialRecord) -> None:
        self._metrics.states(self.record.states)
        self._listener.tell(own, self.record.finished, self.record.total)


_EPOCH_FIELDS = ("epoch", "train_loss", "val_loss", "val_accuracy", "epoch_time_s")
_STOPPED_WITH = "{}, of the same config, was stopped"

"""One search: checked, written down, run, and taken up again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import torch

from datasets import Splits, load_splits
from tune_jobs import probe, yaml
from tune_jobs.cluster import connect, is_own, is_there, this_machine, wait_until_servable
from tune_jobs.cluster.shared_storage import check_storage_seen
from tune_jobs.cost import count_shapes, work_macs
from tune_jobs.environment import environment
from tune_jobs.experiment import Experiment
from tune_jobs.experiment.checks import check_experiment, check_loggers, check_shapes
from tune_jobs.experiment.notes import note_beside, notes_on
from tune_jobs.experiment.repeats import repeated, total
from tune_jobs.interruption import DiskFull, Stop, room, sigterm_as_sigint
from tune_jobs.requests import Requests, at_least, requests_of
from tune_jobs.resources import card_kinds, check_servable
from tune_jobs.results import damage, ledger, selection, table
from tune_jobs.results.ledger import fold_of, number_of
from tune_jobs.results.rundir import RunDir, write_text
from tune_jobs.running.broken_nodes import BrokenNodes
from tune_jobs.running.keeping import Keeping
from tune_jobs.running.leftovers import Leftovers
from tune_jobs.running.listener import Listener
from tune_jobs.running.record import Record
from tune_jobs.running.recorder import Recorder
from tune_jobs.running.run import Run
from tune_jobs.running.stopping import EarlyStopping
from tune_jobs.running.tuning import run_trials
from tune_jobs.running.waiting import Waiting
from tune_jobs.running.watching import Watch
from tune_jobs.sameness import changed, check_same, is_left, new_points
from tune_jobs.space import Space
from tune_jobs.study import Study, is_whole, warm_start


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    rows: list[table.Row]
    """One a trial."""
    ended: Literal["done", "interrupted", "budget", "disk", "store", "nodes"]
    """done: nothing is left to run.  Else the same call takes it up again."""
    splits: Splits
    """The data that it ran on; of repeats on data of their own, the first's."""
    detail: str = ""
    """More on how it ended, for a person."""


def run(
    experiment: Experiment,
    space: Space,
    run_dir: RunDir,
    data_dir: Path | None,
    listener: Listener,
    wait_for_nodes: bool = False,
) -> Outcome:
    """Run all trials that are not finished yet, and write the table.  `space` is the experiment's own.

    A run that exists is taken up; where the experiment only adds to it (grid points, trials), it is extended.

    Raises UsageError, before any trial starts and before anything is written, where the
    experiment, the data or the cluster do not allow it.
    """
    torch.set_num_threads(1)  # in this process: threads that wait for each other take the cores from the trials
    with sigterm_as_sigint():
        splits = [load_splits(experiment.dataset, data_dir)]
        return run_space(Run(experiment, space, run_dir, splits, listener, wait_for_nodes))


def run_space(run: Run) -> Outcome:
    """As `run`, over a space and data given."""
    experiment, space, run_dir, splits, say = run.experiment, run.space, run.directory, run.splits[0], run.listener.say
    check_shapes(space, splits)
    check_experiment(experiment, space)
    check_loggers(experiment)
    facts = _facts(splits)
    run_dir.check_free()
    run_dir.fetch()
    known = ledger.read(run_dir.ledger)
    check_same(experiment, space, run_dir, splits.sha256, known)
    earlier: list[warm_start.Known] = []
    if experiment.search.warm_start is not None and not (known and is_whole(run_dir.study)):
        earlier, line = warm_start.read(experiment, space, run_dir.storage, facts["data_sha256"])
        say(line)
    _say_taken_up(run, facts, known)
    _say_of_images(run)
    requests = requests_of(experiment, space, splits)
    if is_left(experiment, space, known):
        if experiment.search.method == "grid":  # for the order of its trials, while Ray starts
            count_shapes(space, splits)
        _join(run, requests)
    stop = Stop(experiment.budget.minutes)
    with run_dir.locked(say, lambda line: stop.ask("store", line)):
        trials = ledger.read(run_dir.ledger)
        check_same(experiment, space, run_dir, splits.sha256, trials)
        if not (run_dir.environment.exists() and run_dir.experiment.exists()):
            write_text(run_dir.environment, json.dumps(facts, indent=2) + "\n")
        write_text(run_dir.experiment, yaml.dump(experiment.document(), "The experiment as it was resolved."))
        record = Record(run_dir.ledger, trials, total(experiment, space))
        try:
            with _room_or(stop):  # where it is full before Ray has been given anything
                study = Study(run_dir.study, experiment, space)
                _restore_configs(record, study, experiment.repeats)
                recorder = _recorder(run, record, study, requests, stop)
                early_stopping = _queue(run, earlier, study, recorder)
                if is_left(experiment, space, trials):
                    run_trials(run, study, recorder, early_stopping, requests.distinct(), stop)
        finally:
            _close(record, stop)
            rows = rows_of(run_dir, experiment)
            with _room_or(stop):
                table.write(run_dir, rows)
    return Outcome(rows, _ended(stop, is_left(experiment, space, trials)), splits, stop.detail)


def _say_of_images(run: Run) -> None:
    for note in dict.fromkeys(note for each in run.splits for note in notes_on(each)):
        run.listener.say(f"note: {note}")


def _facts(splits: Splits) -> dict[str, Any]:
    """What environment.json tells of."""
    images = {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)}
    shape = {"image_size": splits.image_size, "channels": splits.channels}
    return environment() | {"data_sha256": splits.sha256, "images": images} | shape


def _join(run: Run, requests: Requests) -> None:
    """Join or start a cluster, and measure the requests that only it can tell.

    Raises UsageError where its nodes cannot serve them or do not see the storage.
    """
    say = run.listener.say
    # What the probes ask for at least: of one that no node serves Ray says nothing.
    least = at_least(run.experiment.resources, run.space)
    if not run.wait_for_nodes and not is_there():
        check_servable(least, [this_machine()])  # sooner than Ray is there
    connect(say)
    if note := note_beside(
        run.directory.running_beside(), is_own(), ray.cluster_resources(), ray.available_resources()
    ):
        say(f"note: {note}")
    if run.wait_for_nodes:
        wait_until_servable(least, say)
    check_servable(least, ray.nodes())
    requests.cards = card_kinds(ray.nodes())
    requests.measure(probe.measure, say)
    if run.wait_for_nodes:
        wait_until_servable(requests.distinct(), say)
    check_servable(requests.distinct(), ray.nodes())
    check_storage_seen(run.directory.storage, requests.distinct())


def _restore_configs(record: Record, study: Study, repeats: int) -> None:
    """Of trials whose first line was lost, the config from the study."""
    for own in record.trials.values():
        if not own.config:
            folds = repeated(study.point(number_of(own.id)), repeats)
            record.write(own, "config", config=folds[fold_of(own.id) or 0])


def _recorder(run: Run, record: Record, study: Study, requests: Requests, stop: Stop) -> Recorder:
    """With all that it has at hand; what a dead driver was about to remove is gone then."""
    experiment, listener = run.experiment, run.listener
    waiting = Waiting(requests.of, BrokenNodes(listener.say))
    watch = Watch(waiting, experiment.budget.trial_minutes, listener, stop, run.wait_for_nodes)
    keeping = Keeping(experiment.keep_models, Leftovers(run.directory.checkpoints, listener.say, stop))
    keeping.sweep(record.groups.values())
    return Recorder(run, record, study, waiting, watch, keeping, stop)


def _queue(run: Run, earlier: Sequence[warm_start.Known], study: Study, recorder: Recorder) -> EarlyStopping:
    """Bring recorder, study and early stopping to what the ledger says, and queue what is left to run."""
    experiment, space, record, trials = run.experiment, run.space, recorder.record, recorder.record.trials
    recorder.take_up()
    study.begin(earlier, trials)
    study.follow(trials)
    for point in new_points(experiment, space, trials):
        recorder.add(study.add(point), point)
    early_stopping = EarlyStopping(experiment.scheduler, space.most_epochs(), recorder.own, recorder.stopped)
    if is_left(experiment, space, trials):
        for own in early_stopping.replay(ledger.events(run.directory.ledger), trials):
            if not own.finished:  # with its first repeat
                recorder.prune(own)
        recorder.prune_repeats(record.groups.values())
    waiting = record.unfinished()
    if experiment.search.method == "grid":  # the longest first, so that no core is idle at the end
        waiting.sort(key=lambda own: -work_macs(own.config, run.splits[0]))
    for own in waiting:
        recorder.waiting.put(own)
    for own in trials.values():
        if own.finished:
            own.forget_course()
    return early_stopping


def _ended(stop: Stop, is_left: bool) -> Literal["done", "interrupted", "budget", "disk", "store", "nodes"]:
    """A search that was left with nothing to do is done; one with something to do and no cause was interrupted."""
    if stop.cause in ("disk", "store") or is_left:
        return stop.cause or "interrupted"
    return "done"


def _close(record: Record, stop: Stop) -> None:
    """Trials that run no more wait to be taken up."""
    try:
        for own in record.unfinished():
            if own.state == "RUNNING":
                with _room_or(stop):
                    record.write(own, "state", state="WAITING", reason="interrupted")
    finally:
        record.close()


@contextlib.contextmanager
def _room_or(stop: Stop) -> Iterator[None]:
    """A full disk ends the search; what was written before stands, and the ledger has all that the rest is made of."""
    try:
        with room():
            yield
    except DiskFull as full:
        stop.ask("disk", str(full))


def _say_taken_up(run: Run, facts: dict[str, Any], known: Mapping[str, ledger.TrialRecord]) -> None:
    """Raises UsageError where all that was done is lost."""
    if told := damage.told(run.directory.ledger):
        damage.check_readable(run.directory.ledger, known)
        run.listener.say(f"note: {told}")
    finished = sum(trial.finished for trial in known.values())
    begun = sum(not trial.finished and bool(trial.epochs) for trial in known.values())
    if not finished and not begun:
        return
    going_on = f", {begun} go on from their last checkpoint" if begun else ""
    of = total(run.experiment, run.space)
    run.listener.say(f"taken up: {finished} of {of} trials are finished already{going_on}")
    if new := changed(run.directory.read_environment(), facts):
        run.listener.say(f"note: not as when the run began, which environment.json tells of: {'; '.join(new)}")


def rows_of(run_dir: RunDir, experiment: Experiment) -> list[table.Row]:
    """A row a trial, from the ledger."""
    rows = table.rows(ledger.read(run_dir.ledger).values())
    return selection.with_front(rows, experiment.search.objectives)

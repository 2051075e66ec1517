"""One search: checked, written down, run, and taken up again."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray

import models
from datasets import Splits, load_splits
from models import TrainConfig
from models.training import check_classes
from profiling.memory import Shape
from tune_jobs import loggers, probe, warm_start, yaml
from tune_jobs import space as spaces
from tune_jobs.axis import key
from tune_jobs.cluster import Leave, Stop, connect, sigterm_as_sigint, wait_until_servable
from tune_jobs.cost import work_macs
from tune_jobs.environment import environment
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment, check
from tune_jobs.recorder import Listener, Recorder, repeated, total
from tune_jobs.requests import Requests, at_least
from tune_jobs.resources import MIB, card_kinds, check_servable
from tune_jobs.results import ledger, selection, table
from tune_jobs.results.ledger import fold_of, number_of
from tune_jobs.results.rundir import RunDir, write_text
from tune_jobs.shared_storage import check_storage_seen
from tune_jobs.space import Point, Space
from tune_jobs.stopping import EarlyStopping
from tune_jobs.study import Study, by_number, is_whole
from tune_jobs.tuning import run_trials


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
    experiment: Experiment, run_dir: RunDir, data_dir: Path | None, listener: Listener, wait_for_nodes: bool = False
) -> Outcome:
    """Run all trials that are not finished yet, and write the table.

    A run that exists is taken up; where the experiment only adds to it (grid points, trials), it is extended.

    Raises UsageError, before any trial starts and before anything is written, where the
    experiment, the data or the cluster do not allow it.
    """
    space = spaces.parse(experiment.space, experiment.train, experiment.search.method)
    with sigterm_as_sigint():
        splits = [load_splits(experiment.dataset, data_dir)]
        return run_space(experiment, space, run_dir, splits, listener, wait_for_nodes)


def run_space(
    experiment: Experiment,
    space: Space,
    run_dir: RunDir,
    splits: Sequence[Splits],
    listener: Listener,
    wait_for_nodes: bool = False,
) -> Outcome:
    """As `run`, over a space and on data that are given; repeat number n of a config sees `splits[n]`, the last one
    being seen by all that follow."""
    check_shapes(space, splits[0])
    check_objectives(experiment, space)
    check_precision(experiment, space)
    space.check_enqueued(experiment.search.enqueue)
    loggers.check(experiment.loggers)
    facts = environment() | {
        "data_sha256": splits[0].sha256,
        "images": {"train": len(splits[0].train), "val": len(splits[0].val), "test": len(splits[0].test)},
    }
    run_dir.fetch()
    known = ledger.read(run_dir.ledger)
    _check_same(experiment, space, run_dir, facts, known)
    earlier: list[warm_start.Known] = []
    if experiment.search.warm_start is not None and not is_whole(run_dir.study):
        earlier, line = warm_start.read(experiment, space, run_dir.storage, facts["data_sha256"])
        listener.say(line)
    _say_taken_up(experiment, space, run_dir, facts, known, listener)
    shape = Shape(splits[0].channels, len(splits[0].classes), splits[0].image_size)
    parts = (splits[0].train, splits[0].val, splits[0].test)
    data_mib = sum(part.images.nbytes for part in parts) / MIB
    requests = Requests(experiment.resources, space, shape, data_mib=data_mib)
    if _is_left(experiment, space, known):
        dashboard = connect()
        if dashboard:
            listener.say(f"Ray dashboard: {dashboard}")
        if wait_for_nodes:
            wait_until_servable(at_least(experiment.resources, space), listener.say)
        requests.cards = card_kinds(ray.nodes())
        requests.measure(probe.measure, listener.say)
        check_servable(requests.distinct(), ray.nodes())
        check_storage_seen(run_dir.storage, requests.distinct())
    stop = Stop(experiment.budget.minutes)
    with run_dir.locked(listener.say, lambda line: stop.ask("store", line)):
        trials = ledger.read(run_dir.ledger)
        _check_same(experiment, space, run_dir, facts, trials)
        if not run_dir.environment.exists():
            write_text(run_dir.environment, json.dumps(facts, indent=2) + "\n")
        write_text(run_dir.experiment, yaml.dump(experiment.document(), "The experiment as it was resolved."))
        record = ledger.Ledger(run_dir.ledger)
        try:
            study = Study(run_dir.study, experiment, space)
            for own in trials.values():
                if not own.config:  # its first line was lost
                    folds = repeated(study.point(number_of(own.id)), experiment.repeats)
                    ledger.apply(own, record.append(own.id, "config", config=folds[fold_of(own.id) or 0]))
            recorder = Recorder(experiment, run_dir, splits[0], record, trials, study, requests.of, listener, stop)
            recorder.take_up()
            study.begin(earlier, trials)
            study.follow(trials)
            for point in _new_points(experiment, space, trials):
                recorder.add(study.add(point), point)
            early_stopping = EarlyStopping(experiment.scheduler, space.most_epochs(), recorder.own, recorder.stopped)
            for own in early_stopping.replay(trials.values()):
                recorder.prune(own)
            waiting = [own for own in trials.values() if not own.finished]
            if experiment.search.method == "grid":  # the longest first, so that no core is idle at the end
                waiting.sort(key=lambda own: -work_macs(own.config, splits[0]))
            for own in waiting:
                recorder.waiting.put(own)
            if _is_left(experiment, space, trials):
                run_trials(experiment, run_dir, splits, study, recorder, early_stopping, requests.distinct(), stop)
        except Leave:
            pass  # the disk was full before Ray had been given anything; `stop` knows
        finally:
            _close(trials, record, stop)
            rows = rows_of(run_dir, experiment)
            with _room_or(stop):
                table.write(run_dir, rows)
    return Outcome(rows, _ended(stop, _is_left(experiment, space, trials)), splits[0], stop.detail)


def _ended(stop: Stop, is_left: bool) -> Literal["done", "interrupted", "budget", "disk", "store", "nodes"]:
    """A search that was left with nothing to do is done; one with something to do and no cause was interrupted."""
    if stop.cause in ("disk", "store") or is_left:
        return stop.cause or "interrupted"
    return "done"


def _close(trials: Mapping[str, ledger.TrialRecord], record: ledger.Ledger, stop: Stop) -> None:
    """Trials that run no more wait to be taken up."""
    try:
        for trial in trials.values():
            if trial.state == "RUNNING":
                with _room_or(stop):
                    record.append(trial.id, "state", state="WAITING", reason="interrupted")
    finally:
        record.close()


@contextlib.contextmanager
def _room_or(stop: Stop) -> Iterator[None]:
    """A full disk ends the search; what was written before stands, and the ledger has all that the rest is made of."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        stop.ask("disk", f"the run directory is on a full disk ({error.strerror})")


def _say_taken_up(
    experiment: Experiment,
    space: Space,
    run_dir: RunDir,
    facts: dict[str, Any],
    known: Mapping[str, ledger.TrialRecord],
    listener: Listener,
) -> None:
    finished = sum(trial.finished for trial in known.values())
    begun = sum(not trial.finished and bool(trial.epochs) for trial in known.values())
    if not finished and not begun:
        return
    going_on = f", {begun} go on from their last checkpoint" if begun else ""
    listener.say(f"taken up: {finished} of {total(experiment, space)} trials are finished already{going_on}")
    if changed := _changed(run_dir.read_environment(), facts):
        listener.say(f"note: not as when the run began, which environment.json tells of: {'; '.join(changed)}")


def rows_of(run_dir: RunDir, experiment: Experiment) -> list[table.Row]:
    """A row a trial, from the ledger."""
    rows = table.rows(ledger.read(run_dir.ledger).values())
    return selection.with_front(rows, experiment.search.objectives)


def check_objectives(experiment: Experiment, space: Space) -> None:
    """Raise UsageError for an objective that a model of the space does not have."""
    for name in experiment.search.objectives:
        if name in ("params", "val_loss") and "svm" in space.models():
            raise UsageError(f"search.objectives: an svm has no {name}")


def _new_points(experiment: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> list[Point]:
    """Points of a grid that no trial has yet, in their order."""
    have = {_key(group[0].config) for group in by_number(trials.values()).values()}
    wanted = space.grid() if experiment.search.method == "grid" else []
    return [point for point in wanted if _key(point) not in have]


def _key(config: Mapping[str, Any]) -> str:
    """Of a stored config as a point of today: an older version's may lack a field, which then has its default."""
    try:
        return key(spaces.relevant(config))
    except UsageError:  # it has a field or a value that there is no more
        return key(config)


def _is_left(experiment: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> bool:
    if not all(trial.finished for trial in trials.values()) or _new_points(experiment, space, trials):
        return True
    return experiment.search.trials is not None and len(by_number(trials.values())) < experiment.search.trials


def check_shapes(space: Space, splits: Splits) -> None:
    """Raise ModelError where a model cannot take these images or a batch size, or has nothing to learn from."""
    configs = [TrainConfig(**point) for point in space.shapes()]
    for config in {models.shape_key(config): config for config in configs}.values():
        models.check(config, splits.channels, len(splits.classes), splits.image_size, len(splits.train))
    if "svm" in space.models():
        check_classes(splits)


def check_precision(experiment: Experiment, space: Space) -> None:
    """Raise UsageError where fp16 is asked for on the CPU."""
    for point in space.shapes():
        if point.get("amp_dtype") == "fp16" and not experiment.resources.of(point["model"]).gpu:
            raise UsageError("amp_dtype: fp16 needs a GPU (resources.gpu); on a CPU give auto or bf16")


def _check_same(
    experiment: Experiment,
    space: Space,
    run_dir: RunDir,
    facts: dict[str, Any],
    trials: Mapping[str, ledger.TrialRecord],
) -> None:
    """Raise UsageError where the run exists and is of another experiment, unless this one adds to it, or other data."""
    if not run_dir.experiment.exists():
        if trials:
            raise UsageError(f"run {run_dir.name} has trials but no {run_dir.experiment}; give this one another --name")
        return
    before = check(yaml.read(run_dir.experiment))
    added = _only_adds(before, experiment, space, trials)
    different = [] if added else differences(before.document(), experiment.document())
    if not added and not different and experiment.search.method == "grid":
        different.append("its trials are none of this version's points")
    if run_dir.read_environment()["data_sha256"] != facts["data_sha256"]:
        different.append("the images or labels themselves")
    if different:
        raise UsageError(
            f"run {run_dir.name} exists with another experiment ({'; '.join(different)}); give this one another "
            "--name, or, where it is to add grid values to the run, --extend"
        )


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What the numbers may depend on and is not as it was."""
    return [
        line
        for key in ("versions", "git_commit", "cpu", "gpus")
        for line in differences(before.get(key), now[key], key)
    ]


_FREE = ("description", "resources", "budget", "retries", "min_usable", "keep_models", "loggers", "published")
"""Keys that change how a run goes, not what its trials are: they may differ when it is taken up."""


def _only_adds(before: Experiment, after: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> bool:
    """Whether all that the run has is part of the experiment: more grid points or more trials may be new."""
    free: dict[str, Any] = {key: getattr(after, key) for key in _FREE}
    at_once = before.search.model_copy(update={"max_concurrent": after.search.max_concurrent})
    before = before.model_copy(update={"search": at_once})
    if after.search.method == "grid":
        wanted = {_key(point) for point in space.grid()}
        same = before.model_copy(update=free | {"space": after.space, "train": after.train}) == after
        groups = by_number(trials.values()).values()
        return same and all(_key(group[0].config) in wanted for group in groups if group[0].config)
    search = before.search.model_copy(update={"trials": after.search.trials})
    more = (after.search.trials or 0) >= (before.search.trials or 0)
    return more and before.model_copy(update=free | {"search": search}) == after


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Each key whose value differs, as `path: before -> after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in dict.fromkeys([*before, *after])
            for line in differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [f"{path}: {before} -> {after}"]

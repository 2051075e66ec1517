"""Whether a run that exists is of the experiment that is asked for, and which of its trials are left to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models import TrainConfig
from tune_jobs import space as spaces
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.experiment.checks import check_new
from tune_jobs.experiment.extension import extended
from tune_jobs.results import ledger
from tune_jobs.results.ledger import by_number
from tune_jobs.results.rundir import RunDir
from tune_jobs.space import Point, Space
from tune_jobs.study.drawn import config_key, to_draw


def new_points(experiment: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> list[Point]:
    """Points of a grid that no trial has yet, in their order."""
    have = {config_key(group[0].config) for group in by_number(trials.values()).values()}
    wanted = space.grid() if experiment.search.method == "grid" else []
    return [point for point in wanted if config_key(point) not in have]


def is_left(experiment: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> bool:
    """Whether a trial is still to be run."""
    if not all(trial.finished for trial in trials.values()) or new_points(experiment, space, trials):
        return True
    return to_draw(experiment, space, by_number(trials.values())) > 0


def check_same(
    experiment: Experiment,
    space: Space,
    run_dir: RunDir,
    data_sha256: str,
    trials: Mapping[str, ledger.TrialRecord],
) -> None:
    """Raise UsageError where the run exists and is of another experiment, unless this one adds to it, or other data; or
    where there is none, and this one is not to be begun."""
    if run_dir.rows.exists():
        raise UsageError(f"run {run_dir.name} is a benchmark; give the search another --name")
    if not run_dir.experiment.exists():
        if trials:
            raise UsageError(f"run {run_dir.name} has trials but no {run_dir.experiment}; give this one another --name")
        check_new(experiment, space)
        return
    before = run_dir.read_experiment()
    if before.space != experiment.space and (lost := [trial.id for trial in trials.values() if not trial.config]):
        raise UsageError(
            f"run {run_dir.name}: the config of trial {', '.join(lost)} is damaged in {run_dir.ledger}; take the run "
            "up as it was, which puts it back, before it is changed"
        )
    added = _only_adds(before, experiment, space, trials)
    different = [] if added else differences(_named(before, experiment), _named(experiment, before))
    if not added and not different and experiment.search.method == "grid":
        different.append("its trials are none of this version's points")
    is_same_data = run_dir.read_environment()["data_sha256"] == data_sha256
    if not is_same_data:
        different.append("the images or labels themselves")
    if different:
        may_add = is_same_data and _may_extend(before, experiment, trials)
        cure = ", or, where it is to add grid values to the run, --extend" if may_add else ""
        raise UsageError(
            f"run {run_dir.name} exists with another experiment ({'; '.join(different)}); give this one another "
            f"--name{cure}"
        )


def _named(own: Experiment, other: Experiment) -> dict[str, Any]:
    """Its document, in which the training fields that the other one names and it leaves alone have their defaults."""
    document = own.document()
    for section, given in (("space", other.space), ("train", other.train)):
        for field in given:
            if field not in own.space and field not in own.train and field != "model":
                document[section][field] = TrainConfig.model_fields[field].default
    return document


def _may_extend(before: Experiment, after: Experiment, trials: Mapping[str, ledger.TrialRecord]) -> bool:
    """Whether --extend would make of it what only adds to the run."""
    try:
        wider = extended(before, after)
        return _only_adds(before, wider, spaces.of(wider), trials)
    except UsageError:
        return False


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
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
        wanted = {config_key(point) for point in space.grid()}
        same = before.model_copy(update=free | {"space": after.space, "train": after.train}) == after
        groups = by_number(trials.values()).values()
        return same and all(config_key(group[0].config) in wanted for group in groups if group[0].config)
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

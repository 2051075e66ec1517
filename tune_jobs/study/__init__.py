"""The Optuna study of a run: every trial of it, under the number that is its id in the ledger.

Kept as a journal file in the run directory.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.failures import RULES
from tune_jobs.results.ledger import TrialRecord, by_number, number_of
from tune_jobs.space import Point, Space
from tune_jobs.space.axis import check_value
from tune_jobs.study.journal import Journal
from tune_jobs.study.samplers import SeededByTrial, first_generation
from tune_jobs.study.warm_start import Known

optuna.logging.set_verbosity(optuna.logging.ERROR)


DRAWS = 1000
"""So often is drawn at random for a point that is new, before all points are gone through."""

_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


class Study:
    """A run's study, opened or made."""

    def __init__(self, path: Path, experiment: Experiment, space: Space) -> None:
        self.space = space
        self.objectives = experiment.search.objectives
        self._first = [
            {field: check_value(field, given, "search.enqueue") for field, given in point.items()}
            for point in experiment.search.enqueue
        ]
        self._search = experiment.search
        shape = repr(space.axes)
        # Optuna's lock of a writer that was killed: whoever opens a study for writing holds the run's own.
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        if not is_whole(path):
            path.unlink(missing_ok=True)  # cut by a crash or a full disk: made anew, from the ledger, by `follow`
        self.storage = JournalStorage(Journal(path))
        names = optuna.study.get_all_study_names(self.storage)
        if names and self._stored(names[0]).user_attrs.get("space") != shape:
            # Optuna's choices cannot grow: the study of an extended grid is made anew, from the ledger, by `follow`.
            path.unlink()
            self.storage = JournalStorage(Journal(path))
            names = []
        self.name = names[0] if names else experiment.name
        if not names:
            directions = [_DIRECTIONS[way] for way in self.objectives.values()]
            made = optuna.create_study(storage=self.storage, study_name=self.name, directions=directions)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                made.set_metric_names(list(self.objectives))
            made.set_user_attr("space", shape)
        self.sampler: BaseSampler = SeededByTrial(experiment.search)
        self.optuna = optuna.load_study(study_name=self.name, storage=self.storage, sampler=self.sampler)
        self._id = self.storage.get_study_id_from_name(self.name)
        self._choices: dict[str, CategoricalDistribution] = {}
        for frozen in self.optuna.get_trials(deepcopy=False):
            self._share_choices(frozen)

    def _stored(self, name: str) -> optuna.Study:
        return optuna.load_study(study_name=name, storage=self.storage)

    def add(self, point: Point) -> int:
        """Make a trial of this point, to be started later; returns its number."""
        self.optuna.enqueue_trial(self.space.params(point))
        return len(self.optuna.get_trials(deepcopy=False)) - 1

    def pass_over(self, number: int, same_as: int) -> None:
        """A trial that was asked for has the config of another: it is not run, and FAILs, which samplers leave out."""
        self.trial(number).set_user_attr("same_as", same_as)
        self.optuna.tell(number, state=TrialState.FAIL)

    def add_another(self, is_new: Callable[[Point], bool]) -> None:
        """Make a trial, which is asked for next, of a point drawn at random.

        Of a finite space whose points were nearly all tried, it is the first one that is new.
        """
        told = len(self.optuna.get_trials(deepcopy=False))
        draws = optuna.create_study(sampler=RandomSampler(seed=self._search.seed + told))
        drawn = (self.space.suggest(draws.ask()) for _ in range(DRAWS))
        self.add(next(point for point in itertools.chain(drawn, self.space.every()) if is_new(point)))

    def _frozen(self, number: int) -> FrozenTrial:
        """The storage's own record of a trial, without a list of all the others.  Raises KeyError where it is missing.

        Each change of a trial puts another record in its place.
        """
        return self.storage.get_trial(self._trial_id(number))

    def _trial_id(self, number: int) -> int:
        """By which the storage knows a trial.  Raises KeyError where it is missing."""
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _share_choices(self, frozen: FrozenTrial) -> None:
        """The storage reads a parameter's choices anew for each trial, of a grid all its values: of the trials that are
        finished, all have one."""
        for name, found in frozen.distributions.items():
            if frozen.state.is_finished() and isinstance(found, CategoricalDistribution):
                shared = self._choices.setdefault(name, found)
                frozen.distributions[name] = shared if shared.choices == found.choices else found

    def begin(self, earlier: Sequence[Known], trials: Mapping[str, TrialRecord]) -> None:
        """Put what an earlier run found before the run's own trials, whose numbers count on from there.

        Of a study that is made anew, only as many as stood before the first trial.  One that has trials of its own
        stays as it is; one whose driver died here gets the rest.
        """
        sources = [trial.user_attrs.get("warm_start") for trial in self.optuna.get_trials(deepcopy=False)]
        if None in sources:
            return
        for known in earlier[len(sources) : min(by_number(trials.values()), default=len(earlier))]:
            params = self.space.params(known.point)
            asked = FixedTrial(params)
            self.space.suggest(asked)
            self.optuna.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions=asked.distributions,
                    values=known.values,
                    user_attrs={"warm_start": known.source},
                    system_attrs=first_generation(self._search),
                )
            )

    def follow(self, trials: Mapping[str, TrialRecord]) -> None:
        """Bring the study to what the ledger says, which is ahead of it after a crash, or all there is of it.

        The points to try first that no trial has are put in.  A trial that a dead driver asked for and did not write
        down FAILs.
        """
        groups = by_number(trials.values())
        known = [trial for trial in self.optuna.get_trials(deepcopy=False) if "warm_start" not in trial.user_attrs]
        for frozen in known:
            if frozen.state == TrialState.RUNNING and frozen.number not in groups:
                self.optuna.tell(frozen.number, state=TrialState.FAIL)
        for number in range(len(self.optuna.get_trials(deepcopy=False)), max(groups, default=-1) + 1):
            if number in groups:
                self.add(groups[number][0].config)
            else:  # it was passed over, or its driver died before it was written down
                self.optuna.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
        for number, group in groups.items():
            is_finished = all(trial.finished for trial in group)
            if is_finished or self._search.trials is not None:  # else a sampler's next trial would be given its point
                self.start(number, group[0].epochs)
            if is_finished:
                self.tell(group)
        configs = [group[0].config for group in groups.values()]
        waiting = self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        configs += [trial.system_attrs["fixed_params"] for trial in waiting]
        for point in self._first:
            if not any(_agree(point, config) for config in configs):
                self.optuna.enqueue_trial(point)

    def point(self, number: int) -> Point:
        """The point of a trial, also of one that waits.  Raises UsageError where the study does not have it."""
        try:
            frozen = self._frozen(number)
        except KeyError as error:
            raise UsageError(f"study {self.name}: has no trial {number}, whose config the ledger has lost") from error
        params = frozen.params or frozen.system_attrs.get("fixed_params", {})
        return self.space.suggest(FixedTrial(params, number))

    def start(self, number: int, epochs: Iterable[Mapping[str, Any]]) -> None:
        """A trial that waits becomes RUNNING, with its values and the epochs that it has; another stays as it is."""
        if self._frozen(number).state == TrialState.WAITING:
            self.storage.set_trial_state_values(self._trial_id(number), state=TrialState.RUNNING)
            self.space.suggest(self.trial(number))
            for epoch in epochs:
                self.report(number, epoch)

    def trial(self, number: int) -> optuna.trial.Trial:
        """A running trial, to be asked again: its values stand."""
        return optuna.trial.Trial(self.optuna, self._trial_id(number))

    def report(self, number: int, epoch: Mapping[str, Any]) -> None:
        """The objective after an epoch, where it is one of an epoch's numbers.

        Optuna takes none for several objectives, and none that is not a number.  An epoch that is trained again, since
        it was after the last checkpoint, has been reported.
        """
        value = epoch.get(next(iter(self.objectives)))
        if len(self.objectives) > 1 or value is None or not math.isfinite(value):
            return
        if epoch["epoch"] not in self._frozen(number).intermediate_values:
            self.trial(number).report(value, epoch["epoch"])

    def tell(self, group: Sequence[TrialRecord]) -> None:
        """How a trial ended, all its repeats being finished.

        COMPLETE with the mean over the repeats where all are; else PRUNED, with its last value, where one was stopped
        or failed by its config, also where an objective is no number; else FAIL.  Samplers leave out what FAILs: where
        all trials of a region diverge, nothing would be known of it, and tpe would take it for the best there is.
        A trial that was told before stays as it is.
        """
        number = number_of(group[0].id)
        if self._frozen(number).state.is_finished():
            return
        self.trial(number).set_user_attr("trials", {trial.id: _ending(trial) for trial in group})
        values = [
            statistics.fmean(found)
            for name in self.objectives
            if len(found := [t.result[name] for t in group if t.result.get(name) is not None]) == len(group)
        ]
        is_complete = all(trial.state == "COMPLETE" for trial in group)
        if is_complete and len(values) == len(self.objectives):
            self.optuna.tell(number, values)
        elif is_complete or any(trial.state == "PRUNED" or _failed_by_config(trial) for trial in group):
            self.optuna.tell(number, state=TrialState.PRUNED)
        else:
            self.optuna.tell(number, state=TrialState.FAIL)
        self._share_choices(self._frozen(number))


def is_whole(journal: Path) -> bool:
    """Whether it is there and each line is JSON.  Optuna reads past a cut last line, and fails once another follows."""
    try:
        with journal.open(encoding="utf-8") as lines:
            return all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, FileNotFoundError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return False


def _agree(point: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a config has the values of a point to try first, of which it reads some."""
    shared = point.keys() & config.keys()
    return bool(shared) and all(config[field] == point[field] for field in shared)


def _failed_by_config(trial: TrialRecord) -> bool:
    return trial.failure in RULES and RULES[trial.failure].by_config


def _ending(trial: TrialRecord) -> dict[str, Any]:
    return trial.result or {"failure": trial.failure, "reason": trial.reason}

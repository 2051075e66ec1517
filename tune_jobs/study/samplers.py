"""Optuna's samplers, as an experiment names them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tune_jobs.experiment import Search


def make_sampler(search: Search, number: int) -> BaseSampler:
    """The sampler that the experiment names, with the random numbers of the study's trial of this number."""
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.method != "optuna":
            return RandomSampler(seed=seed)
        match search.sampler:
            case "tpe":
                return TPESampler(
                    seed=seed, n_startup_trials=search.startup_trials, multivariate=True, group=True, constant_liar=True
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=search.startup_trials)
            case "qmc":  # one sequence for all
                others = RandomSampler(seed=seed)
                return QMCSampler(
                    seed=search.seed, scramble=True, warn_independent_sampling=False, independent_sampler=others
                )
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=search.startup_trials)
            case "random":
                return RandomSampler(seed=seed)


class SeededByTrial(BaseSampler):
    """The sampler that the experiment names, each trial with random numbers of its own, by its number.

    Samplers keep what they learn in the study, and only their random numbers in themselves: so a trial is the same in a
    search that was interrupted, taken up or extended, and in one that was not.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._number: int | None = None

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._number != trial.number:
            self._number, self._inner = trial.number, make_sampler(self._search, trial.number)
        return self._inner

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """nsga2 counts a trial to a generation when it is asked for values; one whose values are all given, which it is
        asked for none of, would be in no population."""
        if first_generation(self._search).keys() - trial.system_attrs.keys() and not trial.state.is_finished():
            inner = self._of(trial)
            assert isinstance(inner, NSGAIISampler)
            inner.get_trial_generation(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)


def first_generation(search: Search) -> dict[str, int]:
    """The system attribute by which nsga2 takes a finished trial into its first population; none for other samplers."""
    if search.method != "optuna" or search.sampler != "nsga2":
        return {}
    return {NSGAIISampler._get_generation_key(): 0}

"""What a person should know of an experiment before it runs, and that is no mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import models
from datasets.reasons import some
from tune_jobs.experiment import Experiment
from tune_jobs.experiment.repeats import configs
from tune_jobs.space import Space

if TYPE_CHECKING:
    from datasets import Splits


def notes(experiment: Experiment, space: Space) -> list[str]:
    """One a line; none where there is nothing to say."""
    said = [f"{field} is read by none of the trials" for field in unread(space)]
    asked = experiment.search.trials
    if asked is not None and asked > space.size():
        said.append(f"search.trials is {asked}, and the space ends after {space.size():.0f}")
    name, grace = experiment.scheduler.name, experiment.scheduler.grace_epochs
    if name != "none" and not stops_early(experiment, space):
        most = space.most_epochs()
        said.append(
            f"{name} stops no trial: grace_epochs is {grace}, and none has more than {most} epoch{'s' * (most > 1)}"
        )
    elif name != "none" and configs(experiment, space) == 1:
        said.append(f"{name} stops no trial: there is one alone, and nothing to compare it with")
    resources = experiment.resources
    if resources.fuse and not any(name in models.STACKED and resources.of(name).shares for name in space.models()):
        small = ", ".join(models.STACKED)
        said.append(f"resources.fuse does nothing: no {small} shares a card (gpu below 1) or a core (cpu below 1)")
    said += _of_search(experiment, space)
    if experiment.repeats > 1:
        said += [
            f"{model} reads no seed: its {experiment.repeats} repeats give the same numbers"
            for model in space.models()
            if "seed" not in models.fields_possible(model)
        ]
    return said


def _of_search(experiment: Experiment, space: Space) -> list[str]:
    """What a sampler does not learn from, and what it alone goes by."""
    search, scheduler, said = experiment.search, experiment.scheduler.name, []
    if search.method == "optuna" and search.sampler in ("gp", "nsga2", "qmc"):
        always, sampled = space.always(), [axis.field for axis in space.axes if axis.sampled]
        if len(always) < len(sampled):
            has = "what the first config to end has" if search.sampler == "qmc" else "what every config has"
            common = "" if search.sampler == "qmc" else f" ({', '.join(always) or 'nothing'})"
            said.append(f"{search.sampler} chooses {has}{common} and draws the rest at random; tpe chooses all")
        if scheduler != "none" and search.sampler != "qmc" and stops_early(experiment, space):
            said.append(f"{search.sampler} learns from complete trials, tpe also from those that {scheduler} stops")
    if "val_accuracy" not in search.objectives:
        stopping = f"{scheduler}, " if stops_early(experiment, space) else ""
        sampler = "the sampler and the report's figures" if search.method == "optuna" else "the report's figures"
        said.append(
            f"search.objectives is for {sampler}; {stopping}best.yaml, keep_models and confirm go by the validation "
            "accuracy"
        )
    return said


def notes_on(splits: Splits) -> list[str]:
    """As `notes`, on the images."""
    parts = (("training", splits.train), ("validation", splits.val), ("test", splits.test))
    missing = []
    for name, part in parts:
        counts = part.labels.bincount(minlength=len(splits.classes)).tolist()
        none = [kind for kind, count in zip(splits.classes, counts, strict=True) if not count]
        if none:
            missing.append(f"{len(none)} of {len(splits.classes)} in the {name} part ({some(none)})")
    return [f"classes without an image: {', '.join(missing)}"] if missing else []


def unread(space: Space) -> list[str]:
    """Fields given one value that no trial reads."""
    possible = frozenset(field for name in space.models() for field in models.fields_possible(name))
    single = [*(axis.field for axis in space.axes if axis.kind == "value"), *space.fixed]
    return [field for field in single if field not in possible]


def stops_early(experiment: Experiment, space: Space) -> bool:
    """Whether some trial may be stopped: no scheduler stops one within its grace_epochs."""
    return experiment.scheduler.name != "none" and space.most_epochs() > experiment.scheduler.grace_epochs


def note_beside(
    runs: Sequence[str], is_own: bool, resources: Mapping[str, float], available: Mapping[str, float]
) -> str:
    """On what works beside a search that is about to begin, or empty.

    `runs`: those that run in its storage; `is_own`: whether its cluster is its own, which else has `resources` and of
    them `available`, as Ray tells.
    """
    named = f"run {', '.join(runs)} {'is' if len(runs) == 1 else 'are'} running too"
    slower = "trials take longer than alone and their times do not compare"
    if is_own:
        shared = f"where they share cores, {slower}; after `ray start --head` searches share one Ray"
        return f"{named}, not on this Ray: {shared}" if runs else ""
    uncounted = "`shared_with` counts this search's own trials alone"
    if runs:
        return f"{named}: where that is on the same nodes, {slower}; {uncounted}"
    taken = [f"{kind}s" for kind in ("CPU", "GPU") if available.get(kind, 0) < resources.get(kind, 0)]
    if not taken:
        return ""
    return f"others have {' and '.join(taken)} of this cluster: beside them {slower}; {uncounted}"

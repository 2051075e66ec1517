"""Whether an experiment can run at all, as far as it can be told without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
from models import TrainConfig
from models.config import TOGETHER
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.experiment.repeats import check_seeds, configs
from tune_jobs.space import Space
from tune_jobs.space.axis import REAL_RANGES

if TYPE_CHECKING:
    from datasets import Splits


def check_experiment(experiment: Experiment, space: Space) -> None:
    """Raise UsageError where its sections do not go together.  Needs no data."""
    for name in experiment.search.objectives:
        if name in ("params", "val_loss") and "svm" in space.models():
            raise UsageError(f"search.objectives: an svm has no {name}")
    for point in space.shapes():
        if point.get("amp_dtype") == "fp16" and not experiment.resources.of(point["model"]).gpu:
            raise UsageError("amp_dtype: fp16 needs a GPU (resources.gpu); on a CPU give auto or bf16")
    if experiment.search.method != "grid":  # whose points are all made before the first is run
        space.meeting(*TOGETHER)
    check_seeds(experiment, space)
    space.check_enqueued(experiment.search.enqueue)
    trials = configs(experiment, space)
    if len(experiment.search.enqueue) > trials:
        raise UsageError(f"search.enqueue: {len(experiment.search.enqueue)} points, more than are tried: {trials}")
    if experiment.min_usable > trials:
        raise UsageError(f"min_usable: {experiment.min_usable}, and there are {trials} configs")


def check_new(experiment: Experiment, space: Space) -> None:
    """Raise UsageError for what a run of an earlier version may have and go on with, and none is to begin with."""
    search, scheduler = experiment.search, experiment.scheduler
    if search.warm_start is not None and search.sampler in ("random", "qmc"):
        raise UsageError(f"search.warm_start: is for tpe, gp and nsga2; {search.sampler} does not learn from results")
    if scheduler.name in ("asha", "hyperband") and scheduler.reduction_factor < 1.5:
        raise UsageError(
            f"scheduler.reduction_factor: {scheduler.reduction_factor:g}: give 1.5 or more; below, rungs share epochs"
        )
    real = {axis.field for axis in space.axes if axis.kind in REAL_RANGES}
    for axis in space.axes:
        for other in axis.when:
            if other in real:
                raise UsageError(
                    f"space.{axis.field}.when: {other} is a range of real numbers, which are never met exactly; make "
                    "it a choice"
                )


def check_shapes(space: Space, splits: Splits) -> None:
    """Raise ModelError where a model cannot take these images or a batch size, or has nothing to learn from."""
    configs = [TrainConfig(**point) for point in space.shapes()]
    for config in {models.shape_key(config): config for config in configs}.values():
        models.check(config, splits.channels, len(splits.classes), splits.image_size, len(splits.train))
    if "svm" in space.models():
        from models.svm_training import check_classes  # with PyTorch, which the other checks do without

        check_classes(splits)


def check_loggers(experiment: Experiment) -> None:
    """Raise UsageError where what it logs to cannot be had here."""
    if experiment.loggers != ["tensorboard"]:  # which is a requirement; the module takes a second to import
        from tune_jobs.running import loggers

        loggers.check(experiment.loggers)

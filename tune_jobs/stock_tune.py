"""Ray Tune as its own PyTorch example uses it, for the speed benchmark: `python -m tune_jobs.stock_tune TASK`.

A function trainable, one CPU a trial, the data loaded in each trial, a report an epoch, a fresh process for each trial,
Tune's own loggers and tables.  What is trained is the course's loop: nothing here is ours but the networks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ray import tune

from profiling.harness_task import Task, Trained, done_nothing, read_task, tell

FIGURES = ("train_time_s", "val_accuracy", "test_accuracy")


def train(config: dict[str, Any], task: Task) -> None:
    """One trial."""
    cell = config["cell"]
    if task.data is None:
        tune.report(dict.fromkeys(FIGURES, 0.0))
        return
    from profiling import harness_course as course

    trained = course.train(task, cell, course.pictures(task))
    tune.report({name: getattr(trained, name) for name in FIGURES})


def main(task: Task) -> None:
    """All cells of the task as one grid."""
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, task=task), {"cpu": 1}),
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max"),
        run_config=tune.RunConfig(name="stock", storage_path=str(Path(task.results).parent)),
        param_space={"cell": tune.grid_search(task.cells)},
    )
    results = tuner.fit()
    for result in (results[number] for number in range(len(results))):
        if result.error or result.metrics is None or result.config is None:
            sys.exit(f"a trial failed: {result.error}")
        cell = result.config["cell"]
        told = {name: result.metrics[name] for name in FIGURES}
        tell(task, done_nothing(cell) if task.data is None else Trained(cell, **told))


if __name__ == "__main__":
    main(read_task(sys.argv[1]))

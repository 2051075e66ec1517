"""The contenders of the speed benchmark that know no Ray: `python -m profiling.harness_contenders NAME TASK`."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from profiling.harness_task import Task, Trained, done_nothing, read_splits, read_task, tell


def sequential(task: Task) -> None:
    """The course's loop, a cell after the other in one process, with the threads that PyTorch takes by itself."""
    from profiling import harness_course as course

    data = course.pictures(task)
    for cell in task.cells:
        tell(task, course.train(task, cell, data))


def optuna(task: Task) -> None:
    """One study in as many processes as there are cores, the course's loop with a thread each."""
    storage = f"sqlite:///{Path(task.results).with_suffix('.db')}"
    import optuna as library

    library.logging.set_verbosity(library.logging.WARNING)
    study = library.create_study(storage=storage, study_name="cells", direction="maximize")
    for number in range(len(task.cells)):
        study.enqueue_trial({"cell": number})
    shares = [len(task.cells) // task.slots + (slot < len(task.cells) % task.slots) for slot in range(task.slots)]
    _run([(_optimize, (task, storage, share)) for share in shares if share])


def _optimize(task: Task, storage: str, n_trials: int) -> None:
    import optuna as library

    library.logging.set_verbosity(library.logging.WARNING)
    data: Any = None
    if task.data is not None:
        import torch

        from profiling import harness_course as course

        torch.set_num_threads(1)
        data = course.pictures(task)

    def objective(trial: library.Trial) -> float:
        cell = task.cells[trial.suggest_int("cell", 0, len(task.cells) - 1)]
        trained = done_nothing(cell) if data is None else course.train(task, cell, data)
        tell(task, trained)
        return 0.0 if data is None else trained.val_accuracy

    library.load_study(storage=storage, study_name="cells").optimize(objective, n_trials=n_trials)


def floor(task: Task) -> None:
    """Bare processes, one a core, that train the cells by `models.training.fit`, each taking the next as it is free."""
    taken = multiprocessing.get_context("spawn").Value("i", 0)
    _run([(_fit_cells, (task, taken)) for _ in range(task.slots)])


def _fit_cells(task: Task, taken: Synchronized[int]) -> None:
    import torch

    from models import TrainConfig
    from models.result import EpochMetrics
    from models.training import fit

    torch.set_num_threads(1)
    splits = read_splits(task)
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= len(task.cells):
            return
        cell = task.cells[number]
        config = TrainConfig(**cell, epochs=task.epochs, seed=task.seed)
        told: list[EpochMetrics] = []
        result = fit(config, splits, torch.device("cpu"), told.append).result
        tell(task, Trained(dict(cell), result.train_time_s, told[-1].val_accuracy, result.test_accuracy))


def _run(work: list[tuple[Any, tuple[Any, ...]]]) -> None:
    """Each in a fresh process, side by side; a failure in one is ours."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=target, args=arguments) for target, arguments in work]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(1)


CONTENDERS = {"sequential": sequential, "optuna": optuna, "floor": floor}

if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](read_task(sys.argv[2]))

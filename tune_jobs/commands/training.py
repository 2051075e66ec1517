"""Subcommands that measure one training, or the same ones on every device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiling import options
from tune_jobs.commands.common import (
    DEFAULT_STORAGE,
    DataDir,
    Exit,
    Storage,
    data_folder,
    fail,
    importing,
    one_line_errors,
    storage_at,
)

SetOne = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=V",
        help="Change the file for this call: a training field (lr=1e-3) or another key by its path "
        "(dataset.limit=4000), which takes one value.  May be given several times.",
    ),
]


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="A run's best.yaml, or a file with `dataset:` and `train:` sections."),
    ],
    overrides: SetOne = [],  # noqa: B006 - Typer reads it and never changes it
    output: Annotated[
        Path | None,
        typer.Option(
            help="File for the weights.  [default: beside CONFIG, with the ending .safetensors; it must be given where "
            "a run's config is changed by --set, or its images are others]"
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Train one config in this process, without Ray.

    The weights are written.  A run's best.yaml comes to the same validation accuracy as in the search, where it has a
    seed and the machine and number of threads are the same.
    """
    with one_line_errors():
        with importing():
            from models.result import DivergedError
            from tune_jobs.console import console, say
            from tune_jobs.errors import UsageError
            from tune_jobs.interruption import sigterm_as_sigint
            from tune_jobs.results import best
            from tune_jobs.train import train_one

        if not config.is_file():
            raise UsageError(f"{config}: there is no such file")
        path = output or config.with_suffix(".safetensors")
        if path.resolve() == config.resolve():
            raise UsageError(f"--output {path}: is the config itself")
        chosen = best.load(config, overrides)
        if output is None and overrides and chosen.run is not None:
            raise UsageError(
                f"--set: makes it another config than {config} names, whose weights are to lie beside it; give --output"
            )
        out = console()
        try:
            with sigterm_as_sigint():
                train_one(chosen, data_folder(data_dir), path, lambda line: say(out, line), is_beside=output is None)
        except DivergedError as error:
            fail(f"diverged: {error}; no model is written", Exit.NOTHING_USABLE)
        except KeyboardInterrupt:
            fail("interrupted; no model is written", Exit.INTERRUPTED)


def benchmark(
    models: options.Models = options.MODELS,
    optimizers: options.Optimizers = options.OPTIMIZERS,
    image_size: options.Sizes = options.IMAGE_SIZE,
    batch_size: options.Batches = options.BATCH_SIZE,
    precision: options.Precisions = "auto",
    steps: options.Steps = None,
    repeats: options.Repeats = None,
    dataset: options.DatasetName = options.DATASET,
    limit: options.Limit = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or all: both, where the nodes have them.")] = "all",
    compare: options.Compare = None,
    name: Annotated[str, typer.Option(help="Name of the run; the same name again takes it up.")] = "benchmark",
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
) -> None:
    """Time training on CPU and GPUs of the cluster's nodes.

    As `python -m profiling devices`, but through Ray: each row alone on its device, on one node of every kind, into a
    run directory.  The default is one epoch of FashionMNIST with learning rate 1e-3.
    """
    with one_line_errors():
        with importing():
            from profiling import rows
            from profiling.asked import benchmark as parse
            from profiling.tables import print_report, row_line
            from tune_jobs import benchmark as benchmarks
            from tune_jobs import experiment as experiments
            from tune_jobs.console import console, say
            from tune_jobs.results import rundir

        asked = parse(
            models_=models, optimizers=optimizers, image_sizes=image_size, batch_sizes=batch_size,
            precisions=precision, steps=steps, repeats=repeats, dataset=dataset, limit=limit,
        )  # fmt: skip
        benchmarks.check_device(device)
        others = [] if compare is None else rows.read(compare)
        run_dir = rundir.at(storage_at(storage), experiments.check_name(name))
        run_dir.fetch()
        out = console()

        def tell(row: rows.Row, finished: int, total: int) -> None:
            say(out, f"[{finished}/{total}] {row.machine}: {row_line(row)}")

        outcome = benchmarks.run(asked, device, run_dir, data_folder(data_dir), lambda line: say(out, line), tell)
        if outcome.rows:
            print_report(out, outcome.rows, others)
        say(out, f"run directory: {run_dir}")
        if outcome.left:
            say(out, f"interrupted, {outcome.left} rows left; the same command takes it up again")
            raise typer.Exit(Exit.INTERRUPTED)
        if not any(row.complete for row in outcome.rows):
            fail("no row could be measured", Exit.NOTHING_USABLE)

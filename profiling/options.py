"""Options of the command line.  Loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODELS, OPTIMIZERS, IMAGE_SIZE, BATCH_SIZE, DATASET = "resnet18,resnet50", "sgd,adam", "28", "16", "fashion_mnist"
"""Defaults of the benchmark, after the published reports': one epoch of these."""

MOST_THREADS = 1024
"""More are no use, and many more are none that a machine gives to one process."""

Models = Annotated[str, typer.Option(metavar="A,B", help="Models, by commas; a wrong name is answered with the list.")]
Optimizers = Annotated[str, typer.Option(metavar="A,B", help="Optimizers, by commas, of sgd, adam, adamw.")]
Sizes = Annotated[str, typer.Option(metavar="N,M", help="Sizes of the images, in pixels a side, by commas.")]
Batches = Annotated[str, typer.Option(metavar="N,M", help="Batch sizes, by commas.")]
Precisions = Annotated[
    str, typer.Option(metavar="A,B", help="By commas, of auto (what the device is good at), fp32, bf16, fp16.")
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Time so many steps in a row, and estimate the epoch.  [default: whole epochs]"),
]
Repeats = Annotated[
    int | None, typer.Option(min=1, help="How often to time each.  [default: 5 with --steps, 1 for whole epochs]")
]
DatasetName = Annotated[str, typer.Option(help="Which images: digits, fashion_mnist or mnist.")]
Limit = Annotated[int | None, typer.Option(min=3, help="Use so many of its images alone.  [default: all]")]
DeviceNames = Annotated[
    str, typer.Option(metavar="A,B", help="By commas, of cpu, cuda, cuda:1, mps; or all that there are.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="TUNE_JOBS_DATA",
        help="Folder with IDX files of MNIST or FashionMNIST, gzipped or not; else they are downloaded.",
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        help="File that an earlier call, say on another machine, wrote (.parquet or .csv), to show beside these rows."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="CPU threads.  [default: PyTorch's]")]
RowsFile = Annotated[
    Path | None,
    typer.Option(
        help="The .parquet file for the rows; the same goes into a .csv beside it.  [default: one under runs/ "
        "that bears the time]"
    ),
]

# Of `bench` alone.
PlainOptimizers = Annotated[str, typer.Option(metavar="A,B", help="Optimizers, by commas, of sgd, adam.")]
Rates = Annotated[str, typer.Option(metavar="X,Y", help="Learning rates, by commas.")]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs of each training.")]
SplitLimit = Annotated[int, typer.Option(min=20, help="Use so many of its images, split 70/10/20.")]
Idle = Annotated[
    str,
    typer.Option(
        metavar="N,M",
        help="Instead of the grid, so many trials with next to nothing to train: what a trial costs beyond that.",
    ),
]
Contenders = Annotated[
    str,
    typer.Option(
        metavar="A,B",
        help="By commas, of those above: sequential, stock, optuna, ours, floor.  [default: all]",
    ),
]
Rounds = Annotated[
    int, typer.Option(min=1, help="How often each contender runs, in turns, each round with another seed.")
]
RunsFile = Annotated[
    Path | None,
    typer.Option(
        help="The .parquet file for the runs; the single trainings' goes beside it, and a .csv of both.  "
        "[default: one under runs/ that bears the time]"
    ),
]

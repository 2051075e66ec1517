"""Options of the command line that several subcommands have.  Loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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

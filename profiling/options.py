"""Options of the command line that several subcommands have.  Loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Models = Annotated[str, typer.Option(metavar="A,B", help="Registered models, by commas.")]
Optimizers = Annotated[str, typer.Option(metavar="A,B", help="sgd, adam, adamw, by commas.")]
Sizes = Annotated[str, typer.Option(metavar="N,M", help="Pixels a side, by commas.")]
Batches = Annotated[str, typer.Option(metavar="N,M", help="Batch sizes, by commas.")]
Precisions = Annotated[
    str, typer.Option(metavar="A,B", help="auto (what the device is good at), fp32, bf16, fp16, by commas.")
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Time so many steps in a row, and estimate the epoch; whole epochs by default."),
]
Repeats = Annotated[
    int | None, typer.Option(min=1, help="How often to time each; 5 with --steps, 1 for whole epochs by default.")
]
DatasetName = Annotated[str, typer.Option(help="digits, fashion_mnist or mnist.")]
Limit = Annotated[int | None, typer.Option(min=3, help="So many of its images alone, before they are split.")]
DeviceNames = Annotated[
    str, typer.Option(metavar="A,B", help="cpu, cuda, cuda:1, mps or all that there are, by commas.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", envvar="TUNE_JOBS_DATA", help="Folder with IDX files of MNIST or FashionMNIST, gzipped or not."
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(help="Rows of another machine, to stand beside these: a .parquet or .csv file of an earlier run."),
]

"""What the subcommands share: their options, exit codes, and how a mistake is told."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiling import command_line
from profiling.command_line import Exit as Exit
from profiling.command_line import fail as fail

if TYPE_CHECKING:
    from datasets import Splits
    from tune_jobs.experiment import Experiment
    from tune_jobs.results.rundir import RunDir
    from tune_jobs.storage import Store


Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=V[,V...]",
        help="Change the file for this call: a training field (lr=1e-3 fixes it, lr=1e-3,1e-4 makes a grid axis) or "
        "another key by its path (dataset.limit=4000).  May be given several times.",
    ),
]
Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="TUNE_JOBS_STORAGE",
        help="Directory in which each run has a directory of its name; or s3://bucket/folder, gs://bucket/folder.",
    ),
]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Name of a run under the storage, or its run directory or URI.")
]
Experiments = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT", help="Path of an experiment file, or the name of one that ships (`presets` lists them)."
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the run and of its directory under the storage.  [default: the experiment's]"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="TUNE_JOBS_DATA",
        help="Folder with your data: IDX files of MNIST or FashionMNIST (gzipped or not, flat or in torchvision's "
        "layout), and what a relative dataset.path is looked for in.  digits is bundled; the other two are "
        "downloaded where they are not found.",
    ),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Scaled down to at most 4,000 images and a fifth of the epochs, to see whether it runs.  The run is "
        "NAME-quick, unless --name gives it another, and its report says so.",
    ),
]
Extend = Annotated[
    bool,
    typer.Option("--extend", help="Add the grid values of this call to those that the run has, and train what is new."),
]
WaitForNodes = Annotated[
    bool,
    typer.Option(
        "--wait-for-nodes",
        help="Where no node can serve a trial, wait for one that joins the cluster instead of ending with code 2.",
    ),
]
DEFAULT_STORAGE = "~/ray_results"


def asked_for(experiment: str, overrides: list[str], quick: bool, data_dir: Path | None) -> Experiment:
    """The experiment of a file or of a name that ships, changed by --set and --quick.  Raises UsageError."""
    from tune_jobs import experiment as experiments

    asked = experiments.load(experiment, overrides)
    if not quick:
        return asked
    from tune_jobs.experiment.quick import scaled_down

    return scaled_down(asked, data_folder(data_dir))


def glance(run_dir: RunDir, splits: Splits, macs: int | None) -> None:
    """What the best config's weights confuse, for the report of a search; a fault in it is told, and costs no more."""
    from tune_jobs.console import console, say
    from tune_jobs.results.report import predictions

    try:
        predictions.glance(run_dir, splits, macs)
    except Exception as error:  # noqa: BLE001 - whatever it is, the search's result and exit code stand
        say(console(stderr=True), f"the report has no confusion matrix ({type(error).__name__}: {error})")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For imports of seconds: without the garbage collector, which goes through all that they leave again and again, a
    sixth of their time, and finds next to nothing.  What is there at the end it leaves alone from then on."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_report() -> None:
    """Import what writes a report, a second's work, beside what else is done."""

    def load() -> None:
        for name in ("tune_jobs.results.report.page", "statsmodels.stats.multitest", "statsmodels.stats.proportion"):
            importlib.import_module(name)

    threading.Thread(target=load, daemon=True).start()


def write_report(run_dir: RunDir, data_dir: Path | None) -> None:
    """report.html at the end of a command whose result is on disk already: a fault in it is told, and costs no more."""
    from tune_jobs.console import console, say
    from tune_jobs.results.report import page

    gc.freeze()  # statsmodels has all objects gone through at each call; this process ends soon
    try:
        page.write([run_dir], run_dir.report, data_dir, look=False)
        run_dir.publish(run_dir.report)
    except Exception as error:  # noqa: BLE001 - whatever it is, the search's result and exit code stand
        say(console(stderr=True), f"no report was written ({type(error).__name__}: {error})")
    else:
        say(console(), f"report: {run_dir.shown(run_dir.report)}")


def storage_at(given: str) -> Path | Store:
    """What --storage means.  Raises UsageError."""
    from tune_jobs.storage import parse

    return parse(given)


def data_folder(given: Path | None) -> Path | None:
    """What --data-dir means."""
    from tune_jobs.storage import expanded

    return None if given is None else expanded(given).absolute()


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """As `profiling.command_line`'s, with the mistakes that are made here."""
    from tune_jobs.errors import NoUsableTrialError, UsageError

    codes: dict[type[Exception], Exit] = {NoUsableTrialError: Exit.NOTHING_USABLE, UsageError: Exit.WRONG}
    with command_line.one_line_errors(codes, again="the same command goes on from what is done"):
        yield

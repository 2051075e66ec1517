"""The command line: one function a subcommand.

What a subcommand needs is imported when it runs: `--help` answers without loading PyTorch or Ray.
"""

from __future__ import annotations

import atexit
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from profiling import options

if TYPE_CHECKING:
    from datasets import Splits
    from tune_jobs.experiment import Experiment
    from tune_jobs.results.rundir import RunDir
    from tune_jobs.storage import Store


class Exit(IntEnum):
    """Exit codes of every subcommand."""

    DONE = 0
    WRONG = 2
    """A wrong experiment, config, path or a request that no node can serve; no trial was started."""
    NO_USABLE_TRIAL = 3
    INTERRUPTED = 4
    """Interrupted; the same command takes it up again."""


app = typer.Typer(
    help="Hyperparameter search for image classifiers on Ray Tune: an experiment file in, a table of trials and a "
    "best config out.\n\n"
    "To begin: `search digits-demo` runs a small experiment that ships, in under a minute; `presets` lists the others; "
    "tune_jobs/docs/experiment.md describes the file for one of your own.\n\n"
    "Exit codes: 0 done; 2 wrong input or a request that no node can serve, nothing was trained; 3 no usable trial; "
    "4 interrupted, the same command takes it up again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
        "NAME-quick, and its report says so.",
    ),
]
DEFAULT_STORAGE = "~/ray_results"


@app.command()
def search(
    experiment: Experiments,
    overrides: Set = [],  # noqa: B006 - Typer reads it and never changes it
    name: Name = None,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
    wait_for_nodes: Annotated[
        bool,
        typer.Option(
            "--wait-for-nodes",
            help="Where no node can serve a trial, wait for one that joins the cluster instead of ending with code 2.",
        ),
    ] = False,
    quick: Quick = False,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Add the grid values of this call to those that the run has, and train what is new."
        ),
    ] = False,
) -> None:
    """Run an experiment, or go on with it where it stopped.

    Ray is started for it, or joined where a cluster runs here or RAY_ADDRESS names one.  The run directory then
    holds the table of trials (trials.csv, trials.parquet), the best config (best.yaml, which `train` runs) and
    report.html.
    """
    with _one_line_errors():
        from tune_jobs import cluster, space, yaml
        from tune_jobs import experiment as experiments
        from tune_jobs.results import rundir

        asked = _asked(experiment, overrides, quick, data_dir)
        run_dir = rundir.at(_storage(storage), experiments.check_name(name or asked.name))
        run_dir.fetch()
        if extend and run_dir.experiment.exists():
            asked = experiments.extended(experiments.check(yaml.read(run_dir.experiment)), asked)
        checked = space.parse(asked.space, asked.train, asked.search.method)
        if not run_dir.ledger.exists():  # else it may be that nothing is left to run
            cluster.begin()

        from tune_jobs import recorder
        from tune_jobs import search as searches
        from tune_jobs.console import console, say, trials_table
        from tune_jobs.progress import Progress
        from tune_jobs.results import best, selection

        total = recorder.total(asked, checked)
        out = console()
        for field in space.unread(checked):
            say(out, f"note: {field} is read by none of the trials")
        fields = ["model", *(axis.field for axis in checked.axes if axis.kind != "value" and axis.field != "model")]
        say(out, f"run {run_dir.name}: {total} trials, into {run_dir}")
        with Progress(out, fields, total) as progress:
            outcome = searches.run(asked, run_dir, _data_dir(data_dir), progress, wait_for_nodes)
        cluster.leave()
        rows = outcome.rows
        out.print(trials_table(rows))
        say(out, f"run directory: {run_dir}")
        if outcome.ended != "done":
            left = total - sum(row.finished for row in rows)
            cause = {"interrupted": "interrupted", "budget": "the budget is used up"}.get(outcome.ended, outcome.detail)
            say(out, f"{cause}, {left} of {total} trials left; the same command takes it up again")
        if outcome.ended in ("interrupted", "disk", "store", "nodes"):
            raise typer.Exit(Exit.INTERRUPTED)
        usable = len(selection.candidates(rows))
        if usable < asked.min_usable:
            _write_report(run_dir)
            wanted = f", of the {asked.min_usable} that min_usable asks for" if asked.min_usable > 1 else ""
            some = f"{usable} usable trial{'s' * (usable > 1)}" if usable else "no usable trial"
            say(out, f"{some}{wanted}: COMPLETE with an accuracy; no best.yaml")
            raise typer.Exit(Exit.NO_USABLE_TRIAL)
        row, reason = best.choose(rows, "best")
        best.write(run_dir, asked, row, "best", reason, run_dir.best)
        best.write_model(run_dir, row)
        say(out, f"best: trial {row.id}, {reason}; test accuracy {row.test_accuracy:.2%}")
        if front := best.write_front(run_dir, asked, rows):
            where = run_dir.shown(front[0].parent)
            say(out, f"Pareto front: {', '.join(path.stem for path in front)}; a config each in {where}")
        _glance(run_dir, outcome.splits, row.macs)
        _write_report(run_dir)
        data = [] if data_dir is None else ["--data-dir", str(data_dir)]
        say(out, f"next: {shlex.join(['python', '-m', 'tune_jobs', 'train', str(run_dir.best), *data])}")
        say(out, f"      {shlex.join(['tensorboard', '--logdir', str(run_dir.path)])}")


@app.command()
def plan(
    experiment: Experiments,
    overrides: Set = [],  # noqa: B006 - Typer reads it and never changes it
    name: Name = None,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
    quick: Quick = False,
) -> None:
    """Say what a search would run and how long it takes.  Starts nothing.

    The file is checked as a search checks it; then come the trials, what each asks for and how many fit on each node,
    and the expected time, which says whether it was measured or guessed.
    """
    with _one_line_errors():
        from tune_jobs import experiment as experiments
        from tune_jobs import plan as plans
        from tune_jobs.console import console, say
        from tune_jobs.results import rundir

        asked = _asked(experiment, overrides, quick, data_dir)
        run_dir = rundir.at(_storage(storage), experiments.check_name(name or asked.name))
        run_dir.fetch()
        out = console()
        say(out, f"experiment {asked.name}, run {run_dir}")
        for line in plans.lines(plans.plan(asked, run_dir, _data_dir(data_dir))):
            say(out, line)


@app.command()
def submit(
    experiment: Experiments,
    overrides: Set = [],  # noqa: B006 - Typer reads it and never changes it
    name: Name = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            envvar="TUNE_JOBS_STORAGE",
            help="Directory or s3://…, gs://… of the run directories, as the cluster's nodes see it.  [default: "
            "~/ray_results on the node that runs the job]",
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data-dir", envvar="TUNE_JOBS_DATA", help="Folder of your data, as the cluster's nodes see it."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="http://HOST:PORT of the cluster's dashboard (port 8265), or HOST:PORT of the cluster.  [default: "
            "RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or the cluster that runs on this machine]"
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Follow the log to the job's end; or only print the job's id, how to follow it and how to stop it.",
        ),
    ] = True,
    wait_for_nodes: Annotated[
        bool,
        typer.Option(
            "--wait-for-nodes",
            help="Where no node can serve a trial, the job waits for one that joins instead of ending with code 2.",
        ),
    ] = False,
) -> None:
    """Run an experiment as a job on a Ray cluster.

    The experiment is checked here; the code is sent, the job's log followed, and the command ends with the search's
    exit code.  Ctrl-C ends the following, not the job.  The same command again takes the run up where it stopped.
    """
    with _one_line_errors():
        from tune_jobs import submit as submits
        from tune_jobs.console import console, say

        plan = submits.plan(experiment, overrides, name, storage, data_dir, wait_for_nodes)
        cluster = submits.Cluster(address)
        job = cluster.submit(plan)
        out = console()
        out_of = ["--address", cluster.address]
        say(out, f"job {job}: run {plan.run}")
        say(out, f"follow it: {shlex.join(['ray', 'job', 'logs', '-f', job, *out_of])}")
        say(out, f"stop it:   {shlex.join(['ray', 'job', 'stop', job, *out_of])}")
        if not wait:
            return
        try:
            ended = cluster.follow(job, lambda text: typer.echo(text, nl=False))
        except KeyboardInterrupt:
            _fail(f"job {job} is no longer followed; it goes on until it is stopped", Exit.INTERRUPTED)
        except ConnectionError as error:
            _fail(
                f"job {job} is no longer followed: {error}; if it died, the same command takes the run up",
                Exit.INTERRUPTED,
            )
        say(out, f"job {job}: {ended.status.value}")
        code = submits.exit_code(ended)
        if code is None:
            _fail(f"job {job} did not run its command: {ended.message or ended.error_type}", Exit.WRONG)
        raise typer.Exit(code)


@app.command()
def presets() -> None:
    """List the experiments that ship: name, and what it does."""
    with _one_line_errors():
        from rich.table import Table

        from tune_jobs import experiment as experiments
        from tune_jobs.console import console

        listing = Table(box=None, show_header=False, pad_edge=False)
        for name in experiments.shipped():
            listing.add_row(name, experiments.load(name).description)
        console().print(listing)


@app.command()
def schema(
    form: Annotated[
        str,
        typer.Option("--format", help="json: the JSON schema (draft 7).  md: the reference page that is made from it."),
    ] = "json",
    output: Annotated[Path | None, typer.Option(help="File to write, instead of printing it.")] = None,
) -> None:
    """Print the JSON schema of an experiment file, for editors.

    With `# yaml-language-server: $schema=PATH` as the first line of an experiment, editors complete its keys and
    values and mark what is wrong.  --format md is the page tune_jobs/docs/experiment.md.
    """
    with _one_line_errors():
        from tune_jobs import reference
        from tune_jobs import schema as schemas
        from tune_jobs.errors import UsageError
        from tune_jobs.results.atomic import write_text

        forms = {"json": schemas.text, "md": reference.page}
        if form not in forms:
            raise UsageError(f"--format {form}: there is no such format; there are {', '.join(forms)}")
        written = forms[form]()
        if output is None:
            typer.echo(written, nl=False)
        else:
            write_text(output.absolute(), written)


@app.command()
def status(
    run: Run,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Stay and show the trials as they go, until the search ends; Ctrl-C leaves it."),
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Show a run's trials and how far it is, also while it runs.

    It reads the run directory alone: from another terminal, or any machine that sees the storage.
    """
    with _one_line_errors():
        from collections import Counter

        from tune_jobs.console import console, say, trials_table
        from tune_jobs.results import ledger, rundir, table

        run_dir = rundir.find(run, _storage(storage))
        out = console()
        if follow:
            from tune_jobs.follow import watch

            watch(run_dir, out)
        rows = table.rows(ledger.read(run_dir.ledger).values())
        states = Counter(row.state for row in rows)
        out.print(trials_table(rows))
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        finished = sum(row.finished for row in rows)
        say(out, f"run {run_dir.name}: {finished} of {len(rows)} trials finished ({counts}); {run_dir}")
        if finished < len(rows) and not run_dir.is_running():
            say(out, "no process runs it now; the search command that began it takes it up again")


@app.command()
def export(
    run: Run,
    rule: Annotated[
        str,
        typer.Option(
            help="best: highest validation accuracy.  cheapest: least training time, or smallest: fewest "
            "multiply-accumulates, among the configs near the best one: see --within."
        ),
    ] = "best",
    within: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="For cheapest and smallest: so many percentage points below the best accuracy count as near.  "
            "[default: half the interval of a confirmed run's best; else it must be given]",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write.  [default: best.yaml in the run directory]")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write the best config of a run as a file that `train` runs.

    A search writes best.yaml itself, by rule best; this chooses by another rule, or writes elsewhere.  Of a run with
    several objectives, the configs of its Pareto front are written besides, a file each.
    """
    with _one_line_errors():
        from tune_jobs import experiment as experiments
        from tune_jobs import yaml
        from tune_jobs.console import console, say
        from tune_jobs.results import best, confirmation, ledger, rundir, selection, table

        run_dir = rundir.find(run, _storage(storage))
        experiment = experiments.check(yaml.read(run_dir.experiment))
        rows = selection.with_front(table.rows(ledger.read(run_dir.ledger).values()), experiment.search.objectives)
        best.check_rule(rule)
        if not selection.candidates(rows):
            _fail(f"run {run_dir.name}: no usable trial: none is COMPLETE with an accuracy", Exit.NO_USABLE_TRIAL)
        near = confirmation.half_width(run_dir.confirmation) if within is None else within / 100
        row, reason = best.choose(rows, rule, near)
        path = output or run_dir.best
        best.write(run_dir, experiment, row, rule, reason, path)
        out = console()
        say(out, f"trial {row.id} ({reason}) written to {run_dir.shown(path)}")
        if front := best.write_front(run_dir, experiment, rows):
            where = run_dir.shown(front[0].parent)
            say(out, f"Pareto front: {', '.join(path.stem for path in front)}; a config each in {where}")


@app.command()
def confirm(
    run: Run,
    top: Annotated[int, typer.Option(min=1, help="How many of the best configs are trained again.")] = 3,
    seeds: Annotated[int, typer.Option(min=2, help="Fresh training seeds for each.")] = 5,
    splits: Annotated[bool, typer.Option("--splits", help="With each seed also split the images afresh.")] = False,
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="Trials side by side instead of one at a time: sooner done, but times do not compare."
        ),
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
) -> None:
    """Train a run's top configs again over fresh seeds.

    It says which are really better, by paired tests corrected for several, and by how much the search flattered its
    winner; the report then shows both.
    """
    with _one_line_errors():
        from tune_jobs import confirm as confirms
        from tune_jobs.cluster import leave
        from tune_jobs.console import confirmation_lines, confirmation_table, console, say
        from tune_jobs.progress import Progress
        from tune_jobs.results import rundir

        run_dir = rundir.find(run, _storage(storage))
        out = console()
        with Progress(out, ["model", "seed"], top * seeds) as progress:
            outcome, found = confirms.confirm(run_dir, top, seeds, splits, together, _data_dir(data_dir), progress)
        leave()
        if outcome.ended != "done":
            _fail(f"{outcome.detail or 'interrupted'}; the same command takes it up again", Exit.INTERRUPTED)
        if found is None:
            _fail("no usable trial: no config is COMPLETE under every seed", Exit.NO_USABLE_TRIAL)
        out.print(confirmation_table(found))
        for line in confirmation_lines(found):
            say(out, line)
        say(out, f"written to {run_dir.shown(run_dir.confirmation)}")
        _write_report(run_dir)


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="A run's best.yaml, or a file with `dataset:` and `train:` sections."),
    ],
    overrides: Set = [],  # noqa: B006 - Typer reads it and never changes it
    output: Annotated[
        Path | None, typer.Option(help="File for the weights.  [default: beside CONFIG, with the ending .safetensors]")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Train one config in this process, without Ray.

    The weights are written.  A run's best.yaml comes to the same validation accuracy as in the search, where it has a
    seed and the machine and number of threads are the same.
    """
    with _one_line_errors():
        from models.training import DivergedError
        from tune_jobs.console import console, say
        from tune_jobs.errors import UsageError
        from tune_jobs.results import best
        from tune_jobs.train import train_one

        if not config.is_file():
            raise UsageError(f"{config}: there is no such file")
        path = output or config.with_suffix(".safetensors")
        if path == config:
            raise UsageError(f"--output {path}: is the config itself")
        out = console()
        try:
            train_one(best.load(config, overrides), _data_dir(data_dir), path, lambda line: say(out, line))
        except DivergedError as error:
            _fail(f"diverged: {error}; no model is written", Exit.NO_USABLE_TRIAL)


@app.command()
def benchmark(
    models: options.Models = "resnet18,resnet50",
    optimizers: options.Optimizers = "sgd,adam",
    image_size: options.Sizes = "28",
    batch_size: options.Batches = "16",
    precision: options.Precisions = "auto",
    steps: options.Steps = None,
    repeats: options.Repeats = None,
    dataset: options.DatasetName = "fashion_mnist",
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
    with _one_line_errors():
        from profiling import rows
        from profiling.asked import benchmark as parse
        from profiling.tables import print_report, row_line
        from tune_jobs import benchmark as benchmarks
        from tune_jobs import experiment as experiments
        from tune_jobs.console import console, say
        from tune_jobs.results import rundir

        asked = parse(models, optimizers, image_size, batch_size, precision, steps, repeats, dataset, limit)
        benchmarks.check_device(device)
        others = [] if compare is None else rows.read(compare)
        run_dir = rundir.at(_storage(storage), experiments.check_name(name))
        run_dir.fetch()
        out = console()

        def tell(row: rows.Row, finished: int, total: int) -> None:
            say(out, f"[{finished}/{total}] {row.machine}: {row_line(row)}")

        outcome = benchmarks.run(asked, device, run_dir, _data_dir(data_dir), lambda line: say(out, line), tell)
        if outcome.rows:
            print_report(out, outcome.rows, others)
        say(out, f"run directory: {run_dir.path}")
        if outcome.left:
            say(out, f"interrupted, {outcome.left} rows left; the same command takes it up again")
            raise typer.Exit(Exit.INTERRUPTED)
        if not any(row.complete for row in outcome.rows):
            _fail("no row could be measured", Exit.NO_USABLE_TRIAL)


@app.command()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Names of runs under the storage, or their run directories or URIs; searches and benchmarks.",
        ),
    ],
    form: Annotated[
        str,
        typer.Option("--format", help="html: one page with figures.  md: tables and findings.  csv: the rows."),
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write.  [default: of html report.html, in the run directory or, of several runs, in this "
            "folder; md and csv are printed]"
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Instead, as Markdown: the tables of five published reports with these runs' figures beside theirs.",
        ),
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
    data_dir: DataDir = None,
) -> None:
    """Write the report of a run, or of several side by side.

    A search writes its own; this makes it anew, in another form, or of several runs.  Nothing is trained.  The best
    model's weights, where they are kept, are run on the test images once, to show what it confuses.
    """
    with _one_line_errors():
        from tune_jobs.console import console, say
        from tune_jobs.errors import UsageError
        from tune_jobs.results import rundir
        from tune_jobs.results.report import FORMATS

        if form not in FORMATS:
            raise UsageError(f"--format {form}: there is no such format; there are {', '.join(FORMATS)}")
        found = [rundir.find(run, _storage(storage), benchmarks=True) for run in runs]
        if form == "html" and not published:
            from tune_jobs.results.report import page

            path = output or (found[0].report if len(found) == 1 else Path("report.html"))
            page.write(found, path.absolute(), _data_dir(data_dir))
            found[0].publish(path.absolute())
        else:
            from tune_jobs.results.report import text

            if published:
                if form == "csv":
                    raise UsageError("--published: is Markdown; leave --format out")
                written = text.beside_published(found)
            else:
                written = text.markdown(found) if form == "md" else text.csv(found)
            if output is None:
                typer.echo(written, nl=False)
                return
            path = output
            rundir.write_text(path.absolute(), written)
        say(console(), f"report: {path}")


def _asked(experiment: str, overrides: list[str], quick: bool, data_dir: Path | None) -> Experiment:
    from tune_jobs import experiment as experiments

    asked = experiments.load(experiment, overrides)
    if not quick:
        return asked
    from tune_jobs.quick import scaled_down

    return scaled_down(asked, _data_dir(data_dir))


def _glance(run_dir: RunDir, splits: Splits, macs: int | None) -> None:
    """What the best config's weights confuse, for the report of a search; a fault in it is told, and costs no more."""
    from tune_jobs.console import console, say
    from tune_jobs.results.report import predictions

    try:
        predictions.glance(run_dir, splits, macs)
    except Exception as error:  # noqa: BLE001 - whatever it is, the search's result and exit code stand
        say(console(stderr=True), f"the report has no confusion matrix ({type(error).__name__}: {error})")


def _write_report(run_dir: RunDir) -> None:
    """report.html at the end of a command whose result is on disk already: a fault in it is told, and costs no more."""
    from tune_jobs.console import console, say
    from tune_jobs.results.report import page

    try:
        page.write([run_dir], run_dir.report, look=False)
        run_dir.publish(run_dir.report)
    except Exception as error:  # noqa: BLE001 - whatever it is, the search's result and exit code stand
        say(console(stderr=True), f"no report was written ({type(error).__name__}: {error})")
    else:
        say(console(), f"report: {run_dir.shown(run_dir.report)}")


def _storage(given: str) -> Path | Store:
    from tune_jobs.storage import parse

    return parse(given)


def _data_dir(given: Path | None) -> Path | None:
    return None if given is None else given.expanduser().absolute()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """A person's mistake becomes one line on stderr and exit code 2; a fault of ours keeps its traceback."""
    from tune_jobs.errors import UsageError

    try:
        yield
    except UsageError as error:
        _fail(str(error), Exit.WRONG)
    except ValueError as error:
        from datasets import DataError
        from models import ModelError
        from profiling import ProfilingError

        if not isinstance(error, DataError | ModelError | ProfilingError):
            raise
        _fail(str(error), Exit.WRONG)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", Exit.WRONG)
    except KeyboardInterrupt:
        _fail("interrupted; the same command starts again from what is done", Exit.INTERRUPTED)


def _fail(line: str, code: Exit) -> NoReturn:
    typer.echo("error: " + " ".join(line.split()), err=True)
    raise typer.Exit(code)


def main() -> NoReturn:
    """The command, to the end of its process."""
    try:
        app(prog_name="python -m tune_jobs")
    except SystemExit as end:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        # Python itself would take a second more, to take the modules of PyTorch and pandas apart object by object.
        os._exit(end.code if isinstance(end.code, int) else 0)
    raise AssertionError("Typer ends with SystemExit")


if __name__ == "__main__":
    main()

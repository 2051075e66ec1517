"""The command line: one function a subcommand.

What a subcommand needs is imported when it runs: `--help` answers without loading PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

try:
    import typer
except ModuleNotFoundError:
    from profiling import end_outside

    end_outside()

from profiling import options
from profiling.command_line import Exit, fail, one_line_errors, run

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from datasets import Splits
    from profiling.devices import Case
    from profiling.rows import Row


app = typer.Typer(
    help="What a model costs: multiply-accumulates, time on a CPU and on GPUs, memory.  All is measured in this "
    "process or ones that it starts, without Ray.\n\n"
    "Exit codes: 0 done; 2 wrong input; 3 nothing could be measured; 4 interrupted, what was finished is kept.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def flops(
    models: Annotated[
        str,
        typer.Option(metavar="A,B", help="Models, by commas; a wrong name is answered with the list.  [default: all]"),
    ] = "",
    image_size: Annotated[
        str, typer.Option(metavar="N,M", help="Sizes of the images, in pixels a side, by commas.")
    ] = "28",
    channels: Annotated[
        str, typer.Option(metavar="N,M", help="Channels of the images, by commas: 1 grey, 3 colour.")
    ] = "1",
    output: Annotated[
        Path | None, typer.Option(help="A .csv or .parquet file to which the table is written besides.")
    ] = None,
) -> None:
    """Count multiply-accumulates and parameters for one image.

    By operator, with fvcore, which also says what was not counted.  A multiply-accumulate is about two FLOPs.
    """
    with one_line_errors():
        from profiling.asked import comma_ints, comma_models
        from profiling.console import console, say
        from profiling.files import check_output, write_table
        from profiling.flops import count, frame
        from profiling.tables import flops_lines, flops_table

        if output is not None:
            check_output(output)
        names = comma_models(models)
        sizes, depths = comma_ints("--image-size", image_size, 4, 1024), comma_ints("--channels", channels, most=1024)
        counts = [count(config, depth, size) for depth in depths for size in sizes for config in names]
        out = console()
        out.print(flops_table(counts))
        for line in flops_lines(counts):
            say(out, line)
        if output is not None:
            write_table(frame(counts), output)
            say(out, f"written to {output}")


@app.command()
def devices(
    models: options.Models = options.MODELS,
    optimizers: options.Optimizers = options.OPTIMIZERS,
    image_size: options.Sizes = options.IMAGE_SIZE,
    batch_size: options.Batches = options.BATCH_SIZE,
    precision: options.Precisions = "auto",
    steps: options.Steps = None,
    repeats: options.Repeats = None,
    dataset: options.DatasetName = options.DATASET,
    limit: options.Limit = None,
    device: options.DeviceNames = "all",
    threads: options.Threads = None,
    compare: options.Compare = None,
    output: options.RowsFile = None,
    data_dir: options.DataDir = None,
) -> None:
    """Time training on the CPU and on every accelerator.

    Each combination of the options is a row: time, share of the machine's measured peak, memory, speed-up over the
    CPU.  The default is one epoch of FashionMNIST; the learning rate is 1e-3.  Beside rows of FashionMNIST in batches
    of 16 stand the figures of three published reports for the same model, optimizer and size, which is 28 pixels of A
    and B, 224 of C; only C states all of its conditions, and the table says what the others leave out.  Rows that are
    finished are kept on Ctrl-C.
    """
    with one_line_errors():
        from profiling import rows as tables
        from profiling.asked import benchmark, rows_file
        from profiling.console import console
        from profiling.devices import choose, plan
        from profiling.tables import print_report

        asked = benchmark(
            models_=models, optimizers=optimizers, image_sizes=image_size, batch_sizes=batch_size,
            precisions=precision, steps=steps, repeats=repeats, dataset=dataset, limit=limit,
        )  # fmt: skip
        others = [] if compare is None else tables.read(compare)
        work = plan(asked.cases, choose(device))
        splits = asked.load(data_dir)
        path, out = rows_file(output), console()
        found: list[tables.Row] = []
        try:
            _measure_all(work, splits, dataset, threads, path, found, out)
        except KeyboardInterrupt:
            if found:
                print_report(out, found, others)
            fail(f"interrupted; {len(found)} of {len(work)} rows are finished, in {path}", Exit.INTERRUPTED)
        print_report(out, found, others)
        if not any(row.complete for row in found):
            fail("no row could be measured", Exit.NOTHING_USABLE)


def _measure_all(
    work: Sequence[tuple[Case, torch.device]],
    splits: Splits,
    dataset: str,
    threads: int | None,
    path: Path,
    found: list[Row],
    out: Console,
) -> None:
    """Into `found`, and into the file as they come."""
    import torch

    from profiling import rows
    from profiling.console import say
    from profiling.devices import measure
    from profiling.tables import row_line

    say(out, f"{len(work)} rows, into {path}")
    for number, (case, where) in enumerate(work, start=1):
        row = measure(case, splits, dataset, where, threads or torch.get_num_threads())
        found[:] = rows.with_speedups([*found, row])
        rows.write(found, path)
        say(out, f"[{number}/{len(work)}] {row_line(row)}")


@app.command()
def memory(
    models: options.Models = options.MODELS,
    optimizers: options.Optimizers = options.OPTIMIZERS,
    image_size: options.Sizes = options.IMAGE_SIZE,
    batch_size: options.Batches = options.BATCH_SIZE,
    precision: options.Precisions = "auto",
    channels: Annotated[int, typer.Option(min=1, max=1024, help="Channels of the images: 1 grey, 3 colour.")] = 1,
    device: options.DeviceNames = "all",
) -> None:
    """Measure the peak memory of training steps.

    Each combination of the options runs in a fresh process.  On a CPU it is what the process grew by; on CUDA what
    tensors held at most, and what the card had less of.  A trial of a search needs more: it evaluates, and makes
    checkpoints.
    """
    with one_line_errors():
        from profiling.asked import benchmark
        from profiling.console import console
        from profiling.devices import choose, plan
        from profiling.memory import Needed, peaks
        from profiling.tables import memory_table

        asked = benchmark(
            models_=models, optimizers=optimizers, image_sizes=image_size, batch_sizes=batch_size,
            precisions=precision, steps=1, repeats=1, dataset="digits", limit=None,
        )  # fmt: skip
        work = plan(asked.cases, choose(device))
        configs = [(case.config, case.image_size, where) for case, where in work]
        found: list[Needed] = []
        try:
            found.extend(peaks(configs, channels))
        finally:
            if found:  # those that are finished, on Ctrl-C too
                console().print(memory_table(found))
        if all(one.reason for one in found):
            fail("no row could be measured", Exit.NOTHING_USABLE)


@app.command()
def bench(
    models: options.Models = "resnet18",
    optimizers: options.PlainOptimizers = "sgd,adam",
    batch_size: options.Batches = "16,32",
    lr: options.Rates = "1e-3,1e-4",
    epochs: options.Epochs = 1,
    dataset: options.DatasetName = "fashion_mnist",
    limit: options.SplitLimit = 4000,
    idle: options.Idle = "",
    contenders: options.Contenders = "",
    rounds: options.Rounds = 3,
    output: options.RunsFile = None,
    data_dir: options.DataDir = None,
) -> None:
    """Time a whole search here against other ways to run it.

    The same grid of trainings, from a cold process start to the last result, by five contenders: a course's loop, one
    after another (sequential); Ray Tune as in its own example (stock); Optuna in a process a core (optuna);
    `tune_jobs search` (ours); bare processes without a search (floor).  The machine must have nothing else to do.
    """
    with one_line_errors():
        import tempfile

        from profiling import harness
        from profiling.asked import contest, rows_file
        from profiling.console import console, say
        from profiling.harness_report import markdown

        works, names = contest(
            models_=models, optimizers=optimizers, batch_sizes=batch_size, lrs=lr, epochs=epochs, dataset=dataset,
            limit=limit, idle=idle, contenders=contenders, data_dir=data_dir,
        )  # fmt: skip
        path = rows_file(output, "bench")
        out = console()
        say(out, f"{rounds} rounds of {', '.join(names)}, into {path}")
        runs: list[harness.Run] = []
        cells: list[harness.Cell] = []

        def tell(run: harness.Run, own: list[harness.Cell]) -> None:
            runs.append(run)
            cells.extend(own)
            harness.write(runs, cells, path)
            say(out, f"round {run.round}, {run.work}, {run.contender}: {run.wall_s:.1f} s")

        try:
            with tempfile.TemporaryDirectory() as folder:
                harness.rounds(works, names, rounds, Path(folder), tell)
        except KeyboardInterrupt:
            fail(f"interrupted; {len(runs)} runs are finished, in {path}", Exit.INTERRUPTED)
        say(out, markdown(runs, cells))


if __name__ == "__main__":
    sys.exit(run(app, "python -m profiling"))

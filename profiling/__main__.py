"""The command line: one function a subcommand.

What a subcommand needs is imported when it runs: `--help` answers without loading PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer


class Exit(IntEnum):
    """Exit codes of every subcommand."""

    DONE = 0
    WRONG = 2
    """A wrong model, size, device or path."""
    NO_USABLE_ROW = 3
    """Nothing could be measured; each row says why."""
    INTERRUPTED = 4
    """Interrupted; what was finished is kept."""


app = typer.Typer(
    help="What a model costs: multiply-accumulates, time on a CPU and on GPUs, memory.  "
    "Exit codes: 0 done, 2 wrong input, 3 nothing could be measured, 4 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def main() -> None:
    """Each figure has a subcommand."""


@app.command()
def flops(
    models: Annotated[str, typer.Option(metavar="A,B", help="Models, by commas; all by default.")] = "",
    image_size: Annotated[str, typer.Option(metavar="N,M", help="Pixels a side, by commas.")] = "28",
    channels: Annotated[str, typer.Option(metavar="N,M", help="Channels of the images, by commas.")] = "1",
    output: Annotated[Path | None, typer.Option(help="Write the table to this .csv or .parquet file, too.")] = None,
) -> None:
    """Count multiply-accumulates, parameters and activations for one image, by fvcore, with what it left out."""
    with _one_line_errors():
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


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """A person's mistake becomes one line on stderr and exit code 2; a fault of ours keeps its traceback."""
    from profiling import ProfilingError

    try:
        yield
    except ProfilingError as error:
        _fail(str(error), Exit.WRONG)
    except ValueError as error:
        from datasets import DataError
        from models import ModelError

        if not isinstance(error, DataError | ModelError):
            raise
        _fail(str(error), Exit.WRONG)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", Exit.WRONG)
    except KeyboardInterrupt:
        _fail("interrupted", Exit.INTERRUPTED)


def _fail(line: str, code: Exit) -> NoReturn:
    typer.echo("error: " + " ".join(line.split()), err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app(prog_name="python -m profiling")

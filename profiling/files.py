"""Files that are whole or as they were."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from profiling import ProfilingError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
"""How a table's file ends."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well: nobody ever sees half a file.

    Where `path` is a link, the file that it leads to is replaced.  Raises OSError that names `path` where no file can
    be made or put in place there.
    """
    path = path.resolve() if path.is_symlink() else path
    with _called(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with _called(path):
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _called(path: Path) -> Iterator[None]:
    """An error is the file's that a person asked for, not the temporary one's."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_place(path: Path) -> bool:
    """Whether a file can be put there: in a folder that is there, and in place of nothing but another file; a device or
    a pipe would be gone."""
    return path.parent.is_dir() and (path.is_file() or not path.exists())


def check_output(path: Path) -> None:
    """Raise ProfilingError where a table cannot be written there."""
    if path.suffix not in SUFFIXES:
        raise ProfilingError(f"{path}: a table is written as {' or '.join(SUFFIXES)}")
    if not is_place(path):
        raise ProfilingError(f"{path}: is no place for a file")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """The whole table as the ending says, or what was there before."""
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: Path) -> pd.DataFrame:
    """A table that `write_table` wrote.  Raises ProfilingError where it is not one."""
    import pandas as pd
    import pyarrow

    if path.suffix not in SUFFIXES:
        raise ProfilingError(f"{path}: a table is a file that ends in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise ProfilingError(f"{path}: there is no such file")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (pyarrow.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ProfilingError(f"{path}: is no table ({error})") from error

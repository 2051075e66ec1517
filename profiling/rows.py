"""The rows of the device benchmark, as a table and as files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling import ProfilingError
from profiling.files import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row:
    """One model trained on one device.  What is not known is NaN or None; a failed row keeps its reason."""

    machine: str
    """Rows with the same one were measured side by side: a host's name, or a kind of node in a cluster."""
    compute: str
    """cpu, cuda:0, cuda:1, …, mps."""
    model: str
    optimizer: str | None
    """None for an svm."""
    image_size: int
    batch_size: int | None
    """None for an svm."""
    lr: float
    """NaN for an svm."""
    seed: int | None
    """None for an svm."""
    asked_precision: str
    """auto, fp32, bf16 or fp16."""
    dataset: str
    images: int
    """Trained on in an epoch."""
    state: str
    """COMPLETE or FAIL."""
    reason: str | None
    """Of a failure."""
    test_accuracy: float
    """From 0 to 1, after one epoch; NaN where only some steps were timed."""
    train_time_ms: float
    """One epoch's training alone, warmed up and synchronised: the median of the repeats.  Estimated from `steps`."""
    estimated: bool
    """Whether `train_time_ms` is `images` times the time of an image over some steps."""
    steps: int | None
    """Timed in a row in each repeat; None for whole epochs."""
    repeats: int
    step_time_ms: float
    """Median over the repeats.  Of whole epochs, their time over their number of batches; NaN for an svm."""
    spread: float
    """From the fastest repeat to the slowest, as a share of the median; NaN for a single one."""
    images_per_s: float
    macs: int | None
    """Multiply-accumulates for one image forwards; of an svm, support vectors × features."""
    training_flops: int | None
    """Floating-point operations for one image of a training step: convolutions and linear layers of the whole model."""
    achieved_flop_per_s: float
    """`training_flops` × `images_per_s`.  Nominal: a training leaves out kernel taps that touch padding alone."""
    peak_flop_per_s: float
    """Of a matrix product in the same precision on the same threads, measured just before the row."""
    peak_share: float
    """The one over the other: nominal too, and more than the device reaches."""
    top_operators: str | None
    """What takes most of a step, as torch.profiler tells."""
    peak_memory_mib: float
    """On CUDA of tensors, on a CPU the growth of a fresh process."""
    card_memory_mib: float
    """With the CUDA context and the allocator's reserve."""
    device_memory_mib: float
    """All that the device has."""
    precision: str | None
    """The one that ran."""
    threads: int
    speedup: float
    """Images a second over those of the CPU's row on the same machine; NaN where it has none."""
    device_name: str
    device_clock_mhz: float
    """Just after the timed work; NaN where it is not told."""
    cpu: str
    cpu_cores: int
    memory_gib: float
    python: str
    torch: str
    torchvision: str
    cuda: str | None
    """The version that PyTorch was built for, on CUDA rows."""
    git_commit: str | None
    time_utc: str
    """ISO 8601, when the row was finished."""

    @property
    def kind(self) -> str:
        """cpu, cuda or mps."""
        return self.compute.split(":")[0]

    @property
    def work(self) -> tuple[object, ...]:
        """Equal for rows that did the same work on whatever device."""
        return (
            self.model, self.optimizer, self.image_size, self.batch_size, self.asked_precision, self.dataset,
            self.images,
        )  # fmt: skip

    @property
    def complete(self) -> bool:
        return self.state == "COMPLETE"


COLUMNS = tuple(field.name for field in fields(Row))
"""Of the table, in their order."""


def with_speedups(rows: Sequence[Row]) -> list[Row]:
    """Each row with its rate over that of the CPU's row for the same work on the same machine."""
    cpu = {(row.machine, row.work): row.images_per_s for row in rows if row.kind == "cpu" and row.complete}
    return [replace(row, speedup=row.images_per_s / cpu.get((row.machine, row.work), math.nan)) for row in rows]


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """A row each, in the order of `Row`'s fields."""
    import pandas as pd

    records = [asdict(row) for row in rows]
    columns = {}
    for field in fields(Row):
        kind = next(kind for word, kind in _PANDAS.items() if str(field.type).startswith(word))
        columns[field.name] = pd.Series([record[field.name] for record in records], dtype=kind)
    return pd.DataFrame(columns)


_PANDAS = {"str": "string", "int": "Int64", "float": "float64", "bool": "bool"}
"""First word of an annotation -> pandas' type."""


def write(rows: Sequence[Row], path: Path) -> None:
    """`path` (.parquet) and the same as .csv beside it, each whole or as it was."""
    table = frame(rows)
    for suffix in (".parquet", ".csv"):
        write_table(table, path.with_suffix(suffix))


def read(path: Path) -> list[Row]:
    """Rows that `write` wrote, from either file.  Raises ProfilingError for any other table."""
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ProfilingError(f"{path}: is no table of `devices`; it has no column {', '.join(missing)}")
    try:
        return [from_record(record) for record in table[list(COLUMNS)].to_dict("records")]
    except ProfilingError as error:
        raise ProfilingError(f"{path}: is no table of `devices`; {error}") from error


def from_record(record: dict[Any, Any]) -> Row:
    """A row from a dict in which what is missing may be None or NaN.

    Raises ProfilingError for a value of another type.
    """
    values: dict[str, Any] = {}
    for field in fields(Row):
        value, kind = record[field.name], str(field.type)
        absent = value is None or value != value or str(value) == "<NA>"  # NaN differs from itself
        if absent:
            values[field.name] = math.nan if kind == "float" else None
        else:
            try:
                values[field.name] = _PYTHON[kind.split(" ")[0]](value)
            except ValueError as error:
                raise ProfilingError(f"{field.name}: {str(value)[:40]!r} is no {kind.split(' ')[0]}") from error
    return Row(**values)


_PYTHON = {"str": str, "int": int, "float": float, "bool": bool}

"""Images and labels as tensors, split and transformed.  Knows nobody.

A config is had without PyTorch, as in `models`; the rest comes when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets.config import DataError, DatasetConfig, names

if TYPE_CHECKING:
    from datasets.registry import SOURCES, count, load, load_splits
    from datasets.sources import Dataset
    from datasets.splits import Split, Splits
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'datasets' has no attribute {name!r}")
        from datasets import registry, sources, splits

        owner = {"Dataset": sources, "Split": splits, "Splits": splits}.get(name, registry)
        return getattr(owner, name)


__all__ = [
    "SOURCES",
    "DataError",
    "Dataset",
    "DatasetConfig",
    "Split",
    "Splits",
    "count",
    "load",
    "load_splits",
    "names",
]

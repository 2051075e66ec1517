"""What is trained, and how.

A config, and what each model reads of it, is had without PyTorch, which takes more than a second to import: so that a
mistake in an experiment file is told at once, and Ray starts meanwhile.  The rest comes when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.config import ModelError, TrainConfig
from models.fields import (
    STACKED,
    building_fields,
    can_be_stacked,
    fields_possible,
    fields_read,
    is_network,
    names,
    shape_key,
)

if TYPE_CHECKING:
    from models.registry import CHECKED_FOR_REAL, MODELS, Model, build, check, parameters
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'models' has no attribute {name!r}")
        from models import registry

        return getattr(registry, name)


__all__ = [
    "CHECKED_FOR_REAL",
    "MODELS",
    "STACKED",
    "Model",
    "ModelError",
    "TrainConfig",
    "build",
    "building_fields",
    "can_be_stacked",
    "check",
    "fields_possible",
    "fields_read",
    "is_network",
    "names",
    "parameters",
    "shape_key",
]

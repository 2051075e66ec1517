"""Where this application keeps on a machine what can be had again."""

from __future__ import annotations

import os
from pathlib import Path

from datasets.config import DataError


def folder() -> Path:
    """The user's cache folder for this application; it may not exist yet.

    Raises DataError for a user without a home folder, where XDG_CACHE_HOME names no other.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune_jobs"
    except RuntimeError as error:
        raise DataError("there is no home folder to keep a cache in: set XDG_CACHE_HOME to a folder") from error

"""What other machines need of this application: its packages, in a folder that Ray uploads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("tune_jobs", "profiling", "models", "datasets")
"""The packages under the root that are imported when a search runs."""
_EXCLUDES = ("__pycache__", "tune_jobs/deploy")


@contextmanager
def runtime_env(files: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """Ray's runtime environment with the packages, and text files by their names beside them, as `working_dir`.

    Ray follows the links of which the folder is made, and has read it when it has uploaded it: it is gone after the
    block.  What else lies in the root (data, virtual environments, tests) is not looked at.
    """
    with tempfile.TemporaryDirectory(prefix="tune-jobs-") as folder:
        for package in PACKAGES:
            (Path(folder) / package).symlink_to(ROOT / package)
        for name, text in (files or {}).items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        yield {"working_dir": folder, "excludes": list(_EXCLUDES)}

"""The house stands as it is meant to: our packages are the ones imported, and nothing is installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["datasets", "models", "profiling", "tune_jobs"])
def test_layout_package_is_ours(name: str) -> None:
    found = Path(str(importlib.import_module(name).__file__)).parent
    assert found == ROOT / name, (
        f"`import {name}` finds {found}, not this project's {ROOT / name}: another distribution of that name is "
        f"installed or stands earlier on the path.  Run from {ROOT}, in its own .venv."
    )


def test_layout_nothing_is_installed_into_site_packages() -> None:
    names = ("tune_jobs", "profiling", "models", "datasets")
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    elsewhere = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == "[]"


def test_layout_top_level_holds_what_it_should() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {name.split("/")[0] for name in listed.splitlines() if not name.startswith(".")}
    assert top <= {
        "tune_jobs", "models", "datasets", "profiling", "tests", "pyproject.toml", "README.md", "Makefile",
        "CHANGELOG.md", "BENCHMARKS.md", "LICENSE",
    }  # fmt: skip

"""The house stands as it is meant to: our packages are the ones imported, and nothing is installed."""

from __future__ import annotations

import ast
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


PACKAGES = ("datasets", "models", "profiling", "tune_jobs")
PARTS = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_layout_files_have_at_most_300_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PARTS}
    assert {name: length for name, length in lines.items() if length > 300} == {}


def test_layout_functions_have_at_most_50_lines() -> None:
    """From the first statement after the docstring: the options of a command, with their help, are no work to read."""
    lengths = {}
    for path in PARTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
                lengths[f"{path.relative_to(ROOT)}:{node.name}"] = body[-1].end_lineno - body[0].lineno + 1  # type: ignore[operator]
    assert len(lengths) > 1000
    assert {name: length for name, length in lengths.items() if length > 50} == {}

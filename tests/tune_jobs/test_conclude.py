"""An object store that is lost after the last trial: nothing is lost, and the same command makes the rest again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer

from datasets import DatasetConfig, load_splits
from tests.tune_jobs.results.report.conftest import MakeRun, make_run
from tune_jobs import confirm as confirms
from tune_jobs import search as searches
from tune_jobs.commands import confirming, searching
from tune_jobs.results import best
from tune_jobs.results.report.loaded import load
from tune_jobs.results.rundir import RunDir
from tune_jobs.running.run import Run
from tune_jobs.search import Outcome
from tune_jobs.storage import StoreError

__all__ = ["make_run"]  # a fixture

CONFIG = {"model": "mlp", "lr": 0.1, "epochs": 3, "seed": 1}


@pytest.fixture
def run(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose store is lost from here on."""

    def lost(self: RunDir, *paths: Path) -> None:
        raise StoreError("s3://bucket/runs/made: cannot be reached")

    found = make_run([(CONFIG, "COMPLETE", [0.9], {})], {"train": CONFIG})
    monkeypatch.setattr(RunDir, "publish", lost)
    return found


def test_a_search_that_cannot_leave_its_best_on_the_store_is_interrupted(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(load(run).rows, "done", load_splits(DatasetConfig(name="digits")))
    monkeypatch.setattr(searches, "run", lambda *_: outcome)
    with pytest.raises(typer.Exit) as ended:
        searching.search(str(run.experiment), storage=str(run.path.parent))
    assert ended.value.exit_code == 4
    said = "error: s3://bucket/runs/made: cannot be reached; the same command takes it up again"
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_confirmation_that_cannot_be_left_on_the_store_is_interrupted(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = load_splits(DatasetConfig(name="digits"))
    rows = [replace(row, id=f"00000-{fold}", fold=fold) for row in load(run).rows for fold in (0, 1)]

    def again(asked: Run) -> Outcome:
        assert asked.wait_for_nodes
        asked.directory.path.mkdir()
        return Outcome(rows, "done", splits)

    monkeypatch.setattr(confirms, "run_space", again)
    with pytest.raises(typer.Exit) as ended:
        confirming.confirm(str(run.path), seeds=2, storage=str(run.path.parent), wait_for_nodes=True)
    assert ended.value.exit_code == 4
    said = "error: s3://bucket/runs/made: cannot be reached; the same command takes it up again"
    assert capsys.readouterr().err.splitlines() == [said]
    assert run.confirmation.exists()


def test_a_search_with_too_few_usable_trials_leaves_no_best_of_before(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([(CONFIG, "COMPLETE", [0.9], {})], {"train": CONFIG})
    monkeypatch.setattr(
        searches, "run", lambda *_: Outcome(load(run).rows, "done", load_splits(DatasetConfig(name="digits")))
    )
    for rule, left in (("best", "no best.yaml"), ("smallest", "best.yaml is what `export` wrote")):
        best.write(run, load(run).experiment, load(run).rows[0], rule, "", run.best)
        with pytest.raises(typer.Exit) as ended:
            searching.search(str(run.experiment), ["min_usable=2"], storage=str(run.path.parent))
        assert ended.value.exit_code == 3
        usable = "1 usable trial, of the 2 that min_usable asks for: COMPLETE with an accuracy"
        assert capsys.readouterr().err == f"error: {usable}; {left}\n"
        assert run.best.exists() == (rule != "best")

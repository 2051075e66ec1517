"""What a person looks at after a real search: the report, the run's status, TensorBoard's files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

if TYPE_CHECKING:
    from tests.conftest import App

pytestmark = pytest.mark.cluster

EXPERIMENT = """
name: looked-at
dataset: {name: digits, image_size: 8, limit: 600}
space: {lr: {choice: [1e-2, 1e-3, 1e30]}, seed: {choice: [1, 2, 3]}}
train: {model: mlp, epochs: 4, optimizer: sgd}
search: {method: random, trials: 9, seed: 3, max_concurrent: 1}
scheduler: {name: asha}
"""


@pytest.fixture(scope="module")
def searched(app: App) -> str:
    """What the search printed."""
    path = app.home / "looked-at.yaml"
    path.write_text(EXPERIMENT)
    ran = app("search", str(path))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def table(app: App) -> pd.DataFrame:
    return pd.read_csv(app.storage / "looked-at" / "trials.csv", dtype={"id": str})


def test_search_leaves_a_report_and_says_where(app: App, searched: str) -> None:
    path = app.storage / "looked-at" / "report.html"
    assert f"report: {path}\n" in searched
    page = path.read_text()
    assert "What the rows say" in page
    # The weights are there when a search ends, and so are the images.
    assert "Its 120 test images: how many of each class it named what" in page
    assert '"r0-confusion"' in page
    assert "slot 0" in page
    assert f"python -m tune_jobs train {app.storage / 'looked-at' / 'best.yaml'}" in page


def test_tensorboard_has_scalars_and_hparams_of_every_trial(app: App, searched: str) -> None:
    rows = table(app)
    assert set(rows["state"]) == {"COMPLETE", "PRUNED", "FAIL"}
    for row in rows.itertuples():
        events = EventAccumulator(str(app.storage / "looked-at" / f"{row.id}-mlp"))
        events.Reload()
        start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        info = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info
        assert info.hparams["lr"].number_value == row.lr
        assert info.hparams["trial"].string_value == row.id
        content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
        metrics = {m.name.tag for m in plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos}
        if row.state == "FAIL":  # it diverged in its first epoch
            continue
        assert "ray/tune/val_accuracy" in metrics
        accuracies = [event.value for event in events.Scalars("ray/tune/val_accuracy")]
        assert len(accuracies) == row.epochs
        assert max(accuracies) == pytest.approx(row.val_accuracy)
        if row.state == "COMPLETE":
            assert "ray/tune/result/test_accuracy" in metrics
            (test,) = events.Scalars("ray/tune/result/test_accuracy")
            assert test.value == pytest.approx(row.test_accuracy)


def test_report_as_html_markdown_and_csv(app: App, searched: str, tmp_path: Path) -> None:
    ran = app("report", "looked-at", "--output", str(tmp_path / "page.html"))
    assert (ran.returncode, ran.stdout) == (0, f"report: {tmp_path / 'page.html'}\n")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")

    markdown = app("report", "looked-at", "--format", "md").stdout
    lines = markdown[markdown.index("| trial") :].split("\n\n")[0].splitlines()
    assert len(lines) == 2 + 9
    assert len({line.count("|") for line in lines}) == 1

    printed = app("report", "looked-at", "--format", "csv").stdout
    data = pd.read_csv(io.StringIO(printed), dtype={"id": str})
    assert data.pop("run").unique().tolist() == ["looked-at"]
    pd.testing.assert_frame_equal(data, table(app))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("looked-at", "--format", "pdf"), "--format pdf: there is no such format; there are html, md, csv"),
        (("nowhere",), "run nowhere: no run directory of that path or name"),
        (("looked-at", "--output", "/nowhere/page.html"), "/nowhere"),
    ],
)
def test_report_of_wrong_input_is_one_line(app: App, searched: str, arguments: tuple[str, ...], said: str) -> None:
    ran = app("report", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_report_that_cannot_be_written_costs_no_search_its_result(app: App, searched: str) -> None:
    path = app.storage / "looked-at" / "report.html"
    path.unlink()
    path.mkdir()
    try:
        ran = app("search", str(app.home / "looked-at.yaml"))
    finally:
        path.rmdir()
    assert ran.returncode == 0
    assert "best: trial" in ran.stdout
    assert "report:" not in ran.stdout
    assert "no report was written (IsADirectoryError" in ran.stderr


def test_confusions_that_cannot_be_kept_cost_no_search_its_report(app: App, searched: str) -> None:
    path = app.storage / "looked-at" / "best.predictions.npz"
    path.unlink()
    path.mkdir()
    try:
        ran = app("search", str(app.home / "looked-at.yaml"))
    finally:
        path.rmdir()
    assert ran.returncode == 0
    assert "the report has no confusion matrix (IsADirectoryError" in ran.stderr
    assert "report:" in ran.stdout


def test_status_follow_of_a_run_that_has_ended_says_so_and_ends(app: App, searched: str) -> None:
    ran = app("status", "looked-at", "--follow")
    assert ran.returncode == 0
    assert ran.stdout.startswith("run looked-at: 9 of 9 trials finished\n")
    assert "run looked-at: 9 of 9 trials finished (" in ran.stdout

"""What is exported: by a rule or by id, its weights beside it, and what the confirmation says of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.numpy
import torch
import typer

from models import TrainConfig, build, weights
from tests.tune_jobs.results.report.conftest import MakeRun, Trial, make_run, train_again
from tune_jobs.checkpoints import Checkpoints
from tune_jobs.commands import runs
from tune_jobs.errors import UsageError
from tune_jobs.results import best
from tune_jobs.results.mirror import Mirror
from tune_jobs.results.report import page, text
from tune_jobs.results.report.loaded import load
from tune_jobs.results.rundir import RunDir
from tune_jobs.storage import Store

__all__ = ["make_run"]  # a fixture

TRIALS: list[Trial] = [
    ({"model": "mlp", "lr": 0.1, "seed": 1}, "COMPLETE", [0.9], {"macs": 900, "seed": 1}),
    ({"model": "mlp", "lr": 0.2, "seed": 1}, "COMPLETE", [0.89], {"macs": 100, "seed": 1}),
    ({"model": "mlp", "lr": 0.3, "seed": 1}, "PRUNED", [0.5], {"reason": "stopped"}),
]


@pytest.fixture
def run(make_run: MakeRun) -> RunDir:
    return make_run([(config, state, values, dict(more)) for config, state, values, more in TRIALS])


def export(run: RunDir, **options: Any) -> None:
    runs.export(str(run.path), storage=str(run.path.parent), **options)


def keep(run: RunDir, trial: str, text: bytes) -> None:
    def write(path: Path) -> None:
        path.write_bytes(text)

    Checkpoints(run.checkpoints, trial).write_model(write, run.path)


def confirm(make_run: MakeRun, run: RunDir, fresh: list[list[float]]) -> None:
    train_again(make_run, run, TRIALS, fresh)


FIRST, SECOND = (safetensors.numpy.save({"weight": np.full(3, value)}) for value in (1.0, 2.0))


def test_export_puts_the_kept_weights_beside_best_yaml_and_leaves_no_others(run: RunDir) -> None:
    keep(run, "00000", FIRST)
    export(run)
    assert run.best_model.read_bytes() == FIRST
    export(run, rule="smallest", within=5.0, output=run.path / "elsewhere.yaml")
    assert run.best_model.read_bytes() == FIRST
    export(run, rule="smallest", within=5.0)
    assert best.load(run.best).trial == "00001"
    assert not run.best_model.exists()
    keep(run, "00001", SECOND)
    export(run, trial="00001")
    assert run.best_model.read_bytes() == SECOND


def test_export_says_that_kept_weights_are_damaged_and_leaves_whole_ones(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(**best.load(run.best).train)
    network = build(config, 1, 10, 8)
    assert isinstance(network, torch.nn.Module)
    weights.save(network, config, {}, run.best_model)
    written = run.best_model.read_bytes()
    keep(run, "00000", written[:-1])
    export(run)
    assert run.best_model.read_bytes() == written
    assert "note: the weights that were kept of trial 00000 are damaged; `train` makes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["trials.jsonl", "experiment.yaml", "environment.json"])
def test_export_does_not_take_the_place_of_what_the_run_lives_by(
    name: str, run: RunDir, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = (run.path / name).read_bytes()
    (tmp_path / "link").symlink_to(run.path / name)
    for output in (run.path / name, tmp_path / "link"):
        with pytest.raises(typer.Exit) as ended:
            export(run, output=output)
        assert ended.value.exit_code == 2
        assert capsys.readouterr().err.startswith(f"error: --output {output}: is the run's own")
    assert (run.path / name).read_bytes() == before


def test_export_writes_through_a_link_and_in_place_of_no_pipe(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("before")
    (tmp_path / "link.yaml").symlink_to("own.yaml")
    export(run, output=tmp_path / "link.yaml")
    assert (tmp_path / "link.yaml").is_symlink()
    assert best.load(tmp_path / "own.yaml").trial == "00000"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(typer.Exit):
        export(run, output=tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_export_leaves_weights_that_train_wrote_of_the_same_config(run: RunDir) -> None:
    config = TrainConfig(**best.load(run.best).train)
    network = build(config, 1, 10, 8)
    assert isinstance(network, torch.nn.Module)
    weights.save(network, config, {}, run.best_model)
    written = run.best_model.read_bytes()
    export(run)
    assert run.best_model.read_bytes() == written


def test_export_sets_weights_aside_that_a_person_trained(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(**best.load(run.best).train)
    network = build(config, 1, 10, 8)
    assert isinstance(network, torch.nn.Module)
    weights.save(network, config, {}, run.best_model)
    written = run.best_model.read_bytes()
    keep(run, "00000", written)  # which can give them back
    export(run, trial="00001")
    assert not list(run.path.glob("best-*.safetensors"))
    assert not run.best_model.exists()
    Checkpoints(run.checkpoints, "00000").drop_all()
    run.best_model.write_bytes(written)
    capsys.readouterr()
    export(run, trial="00001")
    (aside,) = run.path.glob("best-*.safetensors")
    assert aside.read_bytes() == written
    assert not run.best_model.exists()
    assert f"note: other weights were there, which are {aside} now" in capsys.readouterr().out


def test_export_by_id(run: RunDir, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    export(run, trial="00001", output=path)
    said = "trial 00001 (asked for by its id; validation accuracy 89.00%) written to"
    assert capsys.readouterr().out == f"{said} {path}\n"
    found = best.load(path)
    assert (found.trial, found.rule, found.train["lr"]) == ("00001", "trial", 0.2)
    assert path.read_text().splitlines()[0].endswith(f"Train it again with: python -m tune_jobs train {path}")
    export(run, trial="00001")
    loaded = load(run)
    choice = loaded.choice
    assert choice is not None
    assert (choice.row.id, choice.exported, choice.by_id) == ("00001", True, True)
    page.write([run], tmp_path / "page.html", None)
    html = (tmp_path / "page.html").read_text()
    assert "Named config, trial 00001" in html
    assert "and so likely too high" not in html
    assert "Named: trial 00001, validation" in text.markdown([run])
    export(run)
    assert load(run).choice != choice
    assert "Best: trial 00000, validation" in text.markdown([run])


def test_export_of_a_repeat_names_it(make_run: MakeRun) -> None:
    config = {"model": "mlp", "lr": 0.1, "seed": 1}
    run = make_run([(config, "COMPLETE", [0.9], {"number": 0, "fold": fold, "seed": fold}) for fold in (0, 1)])
    export(run, trial="00000-1")
    assert best.load(run.best).train["seed"] == 1
    choice = load(run).choice
    assert choice is not None
    assert choice.row.id == "00000-1"


def test_export_of_a_repeat_beside_one_that_failed_is_one_line(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    config, failed = {"model": "mlp", "lr": 0.1, "seed": 1}, {"failure": "error", "reason": "x"}
    run = make_run(
        [(config, "COMPLETE", [0.9], {"number": 0, "fold": 0}), (config, "FAIL", [], {"number": 0, "fold": 1} | failed)]
    )
    with pytest.raises(typer.Exit) as ended:
        export(run, trial="00000-0")
    assert ended.value.exit_code == 2
    assert "--trial 00000-0: not all repeats of its config are COMPLETE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trial": "7"}, "--trial 7: there is no such trial; the ids are from 00000 to 00002"),
        ({"trial": "00002"}, "--trial 00002: is PRUNED, and not COMPLETE with an accuracy"),
        ({"trial": "00001", "rule": "smallest"}, "--trial: names the config itself; leave --rule and --within out"),
        (
            {"rule": "cheapest", "within": float("nan")},
            "--within: nan: is a number of percentage points, from 0 to 100",
        ),
    ],
)
def test_export_of_what_is_not_there_is_one_line(
    run: RunDir, options: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        export(run, **options)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_export_of_a_refuted_best_says_so_and_how_to_have_the_other(
    run: RunDir, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    confirm(make_run, run, [[0.70, 0.71, 0.70], [0.88, 0.89, 0.88]])
    export(run)
    note = capsys.readouterr().out.splitlines()[1]
    assert note == (
        "note: the confirmation found trial 00000, mean 70.33%, worse than trial 00001, 88.33%: "
        f"python -m tune_jobs export {run.path} --trial 00001"
    )
    page.write([run], run.report, look=False)
    assert f"export {run.path} --trial 00001" in run.report.read_text()
    export(run, trial="00001")
    assert "note" not in capsys.readouterr().out


def test_export_elsewhere_leaves_the_front_alone(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {"search": {"method": "random", "trials": 2, "objectives": {"val_accuracy": "max", "macs": "min"}}}
    run = make_run([(c, s, v, dict(more)) for c, s, v, more in TRIALS[:2]], document)
    export(run, output=tmp_path / "mine.yaml")
    assert not (run.path / "pareto").exists()
    assert "Pareto" not in capsys.readouterr().out
    export(run)
    assert sorted(path.name for path in (run.path / "pareto").iterdir()) == ["00000.yaml", "00001.yaml"]
    (run.path / "pareto" / "00007.yaml").write_text("of a front before more trials")
    export(run)
    assert sorted(path.name for path in (run.path / "pareto").iterdir()) == ["00000.yaml", "00001.yaml"]


def test_export_of_a_front_names_each_config_once(make_run: MakeRun) -> None:
    document = {"search": {"method": "random", "trials": 2, "objectives": {"val_accuracy": "max", "macs": "min"}}}
    run = make_run(
        [
            ({"model": "mlp", "lr": lr, "seed": fold}, "COMPLETE", [value], {"number": n, "fold": fold, "macs": macs})
            for n, (lr, value, macs) in enumerate(((0.1, 0.9, 900), (0.2, 0.8, 100)))
            for fold in (0, 1)
        ],
        document,
    )
    export(run)
    assert sorted(path.name for path in (run.path / "pareto").iterdir()) == ["00000-0.yaml", "00001-0.yaml"]


def test_the_command_that_trains_it_again_names_the_data_and_no_working_copy(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "my data"
    assert best.again(run, "00000", data) == f"python -m tune_jobs train {run.best} --data-dir '{data}'"
    page.write([run], run.report, data, look=False)
    assert f"python -m tune_jobs train {run.best} --data-dir &#39;{data}&#39;" in run.report.read_text()
    copy = RunDir(tmp_path / "copy", Mirror(tmp_path / "copy", cast(Store, "s3://bucket/runs/made")))
    assert best.again(copy, "00000", None) == (
        "python -m tune_jobs export s3://bucket/runs/made --trial 00000 --output best.yaml && "
        "python -m tune_jobs train best.yaml"
    )
    shutil.copytree(run.path, copy.path)
    monkeypatch.setattr(RunDir, "is_running", lambda _: False)
    page.write([copy], tmp_path / "page.html", look=False)
    assert str(copy.best) not in (tmp_path / "page.html").read_text()


def test_the_page_and_markdown_have_what_the_confirmation_found(run: RunDir, make_run: MakeRun) -> None:
    confirm(make_run, run, [[0.90, 0.91, 0.90], [0.88, 0.88, 0.88]])
    page.write([run], run.report, look=False)
    html = run.report.read_text()
    section = html[html.index('id="r0-confirmed"') :].split("</section>")[0]
    for cell in ("00001", "worse on these images", "88.90 to 91.77", "no spread", "−2.33"):
        assert f">{cell}</td>" in section
    export(run, trial="00001")
    page.write([run], run.report, look=False)
    assert "leave <b>85.84% to 89.87%</b>" in run.report.read_text()  # by the mean of 88 %, not the search's 89 %
    assert "| 88.00 | 0.00 | no spread | 87.00 |" in text.markdown([run])


def test_load_of_a_config_without_fields_says_so_in_a_person_s_words(tmp_path: Path) -> None:
    (path := tmp_path / "config.yaml").write_text("dataset: {name: digits}\ntrain: {}\n")
    with pytest.raises(UsageError) as error:
        best.load(path)
    assert str(error.value) == f"{path}: train: is empty, and needs at least 1 entry"

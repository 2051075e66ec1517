"""A run of which a file was damaged: one line that names it, and no traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from datasets import DatasetConfig, load_splits
from tests.tune_jobs.results.report.conftest import MakeRun
from tests.tune_jobs.results.report.test_predictions import DIGITS, trained
from tune_jobs import estimate
from tune_jobs import search as searches
from tune_jobs.commands import confirming, files, reporting, runs
from tune_jobs.errors import UsageError
from tune_jobs.experiment import check
from tune_jobs.results import ledger, rundir, table
from tune_jobs.results.report import predictions
from tune_jobs.results.rundir import RunDir
from tune_jobs.sameness import check_same
from tune_jobs.space import parse
from tune_jobs.study import drawn

MLP: dict[str, Any] = {"model": "mlp", "lr": 0.1, "epochs": 3}
Command = Callable[[RunDir], None]


def export(run: RunDir) -> None:
    runs.export(str(run.path), storage=str(run.path.parent))


def status(run: RunDir) -> None:
    runs.status(str(run.path), storage=str(run.path.parent))


def export_cheapest(run: RunDir) -> None:
    runs.export(str(run.path), rule="cheapest", storage=str(run.path.parent))


def report(run: RunDir) -> None:
    reporting.report([str(run.path)], storage=str(run.path.parent))


def markdown(run: RunDir) -> None:
    reporting.report([str(run.path)], form="md", storage=str(run.path.parent))


def confirm(run: RunDir) -> None:
    confirming.confirm(str(run.path), storage=str(run.path.parent))


def made(make_run: MakeRun) -> RunDir:
    return make_run([(MLP | {"lr": lr}, "COMPLETE", [accuracy], {}) for lr, accuracy in ((0.1, 0.8), (0.2, 0.9))])


def said(command: Command, run: RunDir, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with exit code 2."""
    with pytest.raises(typer.Exit) as ended:
        command(run)
    assert ended.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", [export, report, markdown, confirm])
def test_a_trial_whose_config_was_damaged_is_named(
    command: Command, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(make_run)
    lines = run.ledger.read_text().splitlines()
    run.ledger.write_text("\n".join([lines[0][:60], *lines[1:]]) + "\n")
    assert "the config of trial 00000 is damaged; the search command" in said(command, run, capsys)
    config = ledger.read(run.ledger)["00000"].config
    assert config == {}
    drawn.config_key(config)  # by which a search that puts it back looks for it
    assert len(drawn.Drawn({0: [ledger.read(run.ledger)["00000"]]})) == 0


@pytest.mark.parametrize("command", [report, markdown, export_cheapest])
@pytest.mark.parametrize("text", ["", "{}", '{"configs": [', "[]", '{"configs": 3, "test": null, "optimism": 1}'])
def test_a_damaged_confirmation_is_named(
    command: Command, text: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(make_run)
    run.confirmation.write_text(text)
    assert said(command, run, capsys).startswith(f"error: {run.confirmation}: is damaged (")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged"),
        ("null", "does not say what data the run had"),
        ('{"data_sha256": "x", "images": 5}', "does not say how many images there were"),
        ('{"data_sha256": "x", "images": {"val": "many"}}', "does not say how many images there were"),
        ('{"data_sha256": "x"}', "does not say how many images there were"),
    ],
)
def test_a_damaged_environment_is_named_and_passed_over_where_times_are_asked_for(
    text: str, words: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(make_run)
    run.environment.write_text(text)
    assert words in said(report, run, capsys)
    splits = load_splits(DatasetConfig(**DIGITS))
    assert estimate.known(run.path.parent, "some", splits) == []


def test_a_missing_environment_is_named_once(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(make_run)
    run.environment.unlink()
    cure = "put a copy back; a search's rows alone come by `report --format csv`"
    missing = f"error: {run.environment}: cannot be read (No such file or directory); {cure}"
    assert said(report, run, capsys) == missing
    assert said(export, run, capsys) == missing
    reporting.report([str(run.path)], form="csv", storage=str(run.path.parent))
    assert capsys.readouterr().out.count("made,0000") == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "bare", "other tensors"])
def test_damaged_weights_cost_the_report_its_confusions_alone(damage: str, make_run: MakeRun) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    run, _, _ = trained(make_run, {"model": "svm", "kernel": "linear", "C": 0.0001})
    with safe_open(run.best_model, framework="numpy") as opened:
        metadata = opened.metadata()
    import torch

    data = run.best_model.read_bytes()
    match damage:
        case "cut":
            run.best_model.write_bytes(data[: len(data) // 2])
        case "empty":
            run.best_model.write_bytes(b"")
        case "bare":
            save_file({"x": torch.zeros(1)}, run.best_model)
        case _:
            save_file({"x": torch.zeros(1)}, run.best_model, metadata)
    report(run)
    assert "best.safetensors is here, but: best.safetensors: " in run.report.read_text()


def test_damaged_predictions_are_made_anew(make_run: MakeRun) -> None:
    run, _, _ = trained(make_run, {"model": "svm", "kernel": "linear", "C": 0.0001})
    assert predictions.look(run, None) is not None
    (kept,) = run.path.glob("*.npz")
    whole = kept.read_bytes()
    drawn_at = random.Random(0)
    for damaged in [b"", whole[:200], *(_flipped(whole, drawn_at.randrange(len(whole))) for _ in range(1000))]:
        kept.write_bytes(damaged)
        predictions.known(run)  # None, or what it says where that byte did not matter
    kept.write_bytes(whole[:200])
    assert predictions.known(run) is None
    assert predictions.look(run, None) is not None


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


@pytest.mark.parametrize(
    "line",
    [
        '{"time": 1, "trial": "00000", "event": [1], "state": "FAIL"}',
        '{"time": "x", "trial": "00000", "event": "state", "state": "FAIL"}',
        '{"time": 1, "trial": "abc", "event": "state", "state": "FAIL"}',
        '{"time": 1, "trial": "00000", "event": "state", "state": "COMPLETE", "result": null}',
        '{"time": 1, "trial": "00000", "event": "state", "state": "COMPLETE", "result": {"epochs": null}}',
        '{"time": 1, "trial": "00000", "event": "state", "state": "COMPLETE", "result": {"val_accuracy": "0.9"}}',
        '{"time": 1, "trial": "00000", "event": "config", "config": {"model": ["mlp"]}}',
        "[" * 100_000,
    ],
    ids=["event", "time", "trial", "result", "nulls", "text", "config", "deep"],
)
def test_a_line_of_the_ledger_with_another_type_is_passed_over(line: str, make_run: MakeRun) -> None:
    run = made(make_run)
    before = ledger.read(run.ledger)
    with run.ledger.open("a") as file:
        file.write(line + "\n")
    assert ledger.read(run.ledger) == before
    report(run)


def test_report_of_a_confirmation_names_it_as_one(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([(MLP, "COMPLETE", [0.8], {})], {"train": {}, "space": {}})
    assert said(report, run, capsys) == "error: run made: is a confirmation, which the report of its search shows"


def test_status_of_a_sampled_search_counts_what_it_has_not_drawn_yet(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"space": {"lr": {"uniform": [0.1, 0.2]}}, "search": {"method": "random", "trials": 30}}
    run = make_run([(MLP, "COMPLETE", [0.8], {})], asked)
    runs.status(str(run.path), storage=str(tmp := run.path.parent))
    shown = " ".join(capsys.readouterr().out.split())
    assert "run made: 1 of 30 trials finished (1 COMPLETE)" in shown
    assert "no process runs it now" in shown
    assert rundir.find("made", tmp).path == run.path


def test_tables_of_runs_with_and_without_failures_have_the_same_types(make_run: MakeRun) -> None:
    fine = make_run([(MLP, "COMPLETE", [0.8], {})], name="fine")
    failed = make_run([(MLP, "FAIL", [], {"failure": "error", "reason": "x"})], name="failed")
    empty, whole = (table.frame(table.rows(ledger.read(run.ledger).values())) for run in (fine, failed))
    for name in ("failure", "reason", "card", "node", "params", "precision", "val_accuracy", "pareto", "slot"):
        assert empty[name].dtype == whole[name].dtype, name
    assert str(empty["failure"].dtype) == "string"
    assert json.loads(empty.to_json(orient="records"))[0]["failure"] is None


def test_status_of_a_run_whose_experiment_is_gone_shows_its_trials(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(make_run)
    run.experiment.unlink()
    runs.status(str(run.path), storage=str(run.path.parent))
    assert "run made: 2 of 2 trials finished (2 COMPLETE)" in " ".join(capsys.readouterr().out.split())


def test_a_run_whose_trial_lost_its_config_is_put_back_before_it_is_changed(make_run: MakeRun) -> None:
    """A study whose space grows is made anew from the ledger: it would lose what is put back from it."""
    run = make_run([(MLP, "COMPLETE", [0.8], {})], {"space": {"lr": {"grid": [0.1]}}})
    lines = run.ledger.read_text().splitlines()
    run.ledger.write_text("\n".join([lines[0][:60], *lines[1:]]) + "\n")
    before = run.read_experiment()
    after = check(before.document() | {"space": {"lr": {"grid": [0.1, 0.2]}}})
    trials = ledger.read(run.ledger)
    for asked in (before, after):
        space = parse(asked.space, asked.train, "grid")
        if asked is before:
            check_same(asked, space, run, "a" * 64, trials)
        else:
            with pytest.raises(UsageError, match="take the run up as it was, which puts it back, before it is changed"):
                check_same(asked, space, run, "a" * 64, trials)


@pytest.mark.parametrize("command", [status, export, report, markdown])
@pytest.mark.parametrize("text", ["\0" * 100, "{\n" * 9, '{"time": 17\n{"ti'])
def test_a_ledger_of_which_nothing_is_left_is_no_run_that_has_not_begun(
    command: Command, text: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(make_run)
    report(run)
    page, best = run.report.read_bytes(), run.best.read_bytes()
    run.ledger.write_text(text)
    capsys.readouterr()
    assert said(command, run, capsys).startswith(f"error: {run.ledger}: is damaged, no line of it is whole")
    assert (run.report.read_bytes(), run.best.read_bytes()) == (page, best)


@pytest.mark.parametrize("command", [status, export, report, markdown])
def test_a_ledger_damaged_in_its_middle_is_told_of(
    command: Command, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(make_run)
    lines = run.ledger.read_text().splitlines()
    last = next(number for number, line in enumerate(lines) if "COMPLETE" in line)
    run.ledger.write_text("\n".join([*lines[:last], lines[last][:60], *lines[last + 1 :]]) + "\n")
    assert ledger.read(run.ledger)["00000"].state == "RUNNING"
    command(run)
    told = capsys.readouterr()
    out = told.err if command in (report, markdown) else told.out
    assert "note: run made: 1 line of trials.jsonl is damaged and passed over" in " ".join(out.split())


class Heard:
    """A listener that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def follow(self, trial: ledger.TrialRecord) -> None:
        pytest.fail(f"{trial.id} ran")

    def tell(self, trial: ledger.TrialRecord, finished: int, total: int) -> None:
        pytest.fail(f"{trial.id} ended, {finished} of {total}")


def test_a_search_that_takes_up_a_damaged_run_says_so_and_begins_none_anew_of_which_nothing_is_left(
    make_run: MakeRun,
) -> None:
    train = {"model": "mlp", "epochs": 3}
    space = parse({}, train, "grid")
    (point,) = space.grid()
    run = make_run([(point, "COMPLETE", [0.8], {})], {"dataset": DIGITS, "train": train})
    facts = json.loads(run.environment.read_text()) | {"data_sha256": load_splits(DatasetConfig(**DIGITS)).sha256}
    run.environment.write_text(json.dumps(facts))
    lines = run.ledger.read_text().splitlines()
    run.ledger.write_text("\n".join([lines[0], "\0" * 40, *lines[1:]]) + "\n")
    heard = Heard()
    searches.run(run.read_experiment(), space, run, None, heard)
    assert heard.lines[0].startswith("note: run made: 1 line of trials.jsonl is damaged and passed over")
    run.ledger.write_text("\0\n")
    with pytest.raises(UsageError, match="is damaged, no line of it is whole"):
        searches.run(run.read_experiment(), space, run, None, heard)
    assert run.ledger.read_text() == "\0\n"


@pytest.mark.parametrize("text", [None, "name: [", "name: made"])
def test_a_damaged_experiment_is_named_with_what_helps(
    text: str | None, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(make_run)
    run.experiment.unlink() if text is None else run.experiment.write_text(text)
    for command in (export, report):
        line = said(command, run, capsys)
        assert line.startswith(f"error: {run.experiment}: ")
        assert line.count(str(run.experiment)) == 1
        assert line.endswith("; put a copy back, or the file it was made from")


def test_a_run_given_twice_is_not_compared_with_itself(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(make_run)
    with pytest.raises(typer.Exit) as ended:
        reporting.report(["made", str(run.path)], storage=str(run.path.parent))
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "error: run made is given twice\n"


@pytest.mark.parametrize("place", [".", "none/file"])
def test_what_is_to_be_written_onto_a_folder_is_refused(
    place: str, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, output = str(made(make_run).path), tmp_path / place
    commands: list[Callable[[], None]] = [
        lambda: runs.export(run, output=output, storage=str(tmp_path)),
        lambda: reporting.report([run], output=output, storage=str(tmp_path)),
        lambda: reporting.report([run], form="md", output=output, storage=str(tmp_path)),
        lambda: files.schema(output=output),
    ]
    for command in commands:
        with pytest.raises(typer.Exit) as ended:
            command()
        assert ended.value.exit_code == 2
        assert capsys.readouterr().err == f"error: --output {output}: is no place for a file\n"


@pytest.mark.parametrize("form", ["html", "md", "csv"])
def test_a_data_folder_that_is_not_there_is_refused(
    form: str, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, nowhere = made(make_run), tmp_path / "nowhere"

    def command(run: RunDir) -> None:
        reporting.report([str(run.path)], form=form, storage=str(tmp_path), data_dir=nowhere)

    assert said(command, run, capsys) == f"error: data directory {nowhere}: there is no such folder"
    assert not run.report.exists()

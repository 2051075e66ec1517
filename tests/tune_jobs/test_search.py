"""Searches through real Ray, as a person starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datasets import DatasetConfig, load_splits
from models import TrainConfig
from models.training import fit
from tests.conftest import App, processes_under
from tune_jobs.results import ledger, table
from tune_jobs.results.rundir import RunDir

pytestmark = pytest.mark.cluster

MIXED = """
name: mixed
dataset: {name: digits, image_size: 8, limit: 600}
space:
  model: {grid: [mlp, svm, stabilized]}
  kernel: {grid: [rbf, poly]}
  lr: {grid: [1e-3, 1e10]}
train: {epochs: 3, optimizer: sgd, hidden_units: 20}
"""
UNTIMED = [
    "id", "state", "model", "lr", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "best_epoch", "epochs",
    "precision", "device", "threads", "params", "seed", "failure", "reason",
]  # fmt: skip
"""Columns that do not depend on how fast the machine was."""


@pytest.fixture(scope="module")
def mixed(app: App) -> subprocess.CompletedProcess[str]:
    """One search over three kinds of models, in which some trials diverge."""
    (app.home / "mixed.yaml").write_text(MIXED)
    return app("search", str(app.home / "mixed.yaml"))


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_search_mixed_grid_ends_well_with_every_trial_in_the_table(
    app: App, mixed: subprocess.CompletedProcess[str]
) -> None:
    assert (mixed.returncode, mixed.stderr) == (0, "")
    data = pd.read_parquet(app.storage / "mixed" / "trials.parquet").set_index("id")
    assert data["model"].tolist() == ["mlp", "mlp", "svm", "svm", "stabilized", "stabilized"]
    assert data["kernel"].fillna("none").tolist() == ["none", "none", "rbf", "poly", "none", "none"]
    assert data["lr"].fillna(0).tolist() == [1e-3, 1e10, 0, 0, 1e-3, 1e10]
    assert data["state"].tolist() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    diverged = data.loc["00001"]
    assert diverged["failure"] == "diverged"
    assert "in epoch 1" in diverged["reason"]
    assert diverged["attempts"] == 1  # it would diverge again
    complete = data[data["state"] == "COMPLETE"]
    assert (complete["val_accuracy"][complete["model"] == "svm"] > 0.9).all()
    assert (
        complete[["test_accuracy", "train_time_s", "wall_time_s", "precision", "device", "threads"]]
        .notna()
        .to_numpy()
        .all()
    )
    assert (complete["wall_time_s"] >= complete["train_time_s"]).all()


def test_search_says_a_line_a_trial_the_best_and_where_everything_lies(
    app: App, mixed: subprocess.CompletedProcess[str]
) -> None:
    lines = mixed.stdout.splitlines()
    assert lines[0] == f"run mixed: 6 trials, into {app.storage / 'mixed'}"
    (dashboard,) = (line for line in lines if line.startswith("Ray dashboard"))
    assert re.fullmatch(r"Ray dashboard: http://127\.0\.0\.1:\d+", dashboard)  # when it answers: trials may have begun
    assert lines.index(dashboard) < lines.index(f"run directory: {app.storage / 'mixed'}")
    ends = [line for line in lines if line.startswith("[")]
    assert [line[:5] for line in ends] == [f"[{number}/6]" for number in range(1, 7)]
    assert sum("diverged: the training loss is" in line for line in ends) == 2
    assert sorted(line[:14] for line in lines if " started  " in line) == [f"0000{n} started " for n in range(6)]
    assert f"run directory: {app.storage / 'mixed'}" in lines
    assert f"next: python -m tune_jobs train {app.storage / 'mixed' / 'best.yaml'}" in lines
    assert "\x1b" not in mixed.stdout


def test_search_ledger_has_every_epoch_and_every_change_of_state(
    app: App, mixed: subprocess.CompletedProcess[str]
) -> None:
    by_trial: dict[str, list[str]] = {}
    for event in events(app.storage / "mixed"):
        by_trial.setdefault(event["trial"], []).append(
            event.get("state") or f"{event['event']} {event.get('epoch', '')}"
        )
    epochs = ["epoch 1", "epoch 2", "epoch 3"]
    assert by_trial["00000"] == ["WAITING", "RUNNING", "place ", *epochs, "COMPLETE"]
    assert by_trial["00001"] == ["WAITING", "RUNNING", "place ", "FAIL"]
    assert by_trial["00002"] == ["WAITING", "RUNNING", "place ", "epoch 1", "COMPLETE"]


def test_search_numbers_are_those_of_a_fresh_process_to_the_last_digit(
    app: App, mixed: subprocess.CompletedProcess[str]
) -> None:
    """Trial 00004 ran in a worker that had run others, one of them diverged."""
    trial = ledger.read(app.storage / "mixed" / "trials.jsonl")["00004"]
    splits = load_splits(DatasetConfig(name="digits", image_size=8, limit=600))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fresh = fit(TrainConfig(**trial.config), splits, torch.device("cpu"), lambda _: None).result
    finally:
        torch.set_num_threads(threads)
    for name in ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "best_epoch", "precision"):
        assert trial.result[name] == getattr(fresh, name), name


def test_search_tensorboard_has_scalars_and_hparams(app: App, mixed: subprocess.CompletedProcess[str]) -> None:
    (folder,) = (app.storage / "mixed").glob("00000-*")
    accumulator = EventAccumulator(str(folder)).Reload()
    accuracies = [event.value for event in accumulator.Scalars("ray/tune/val_accuracy")]
    recorded = [epoch["val_accuracy"] for epoch in ledger.read(app.storage / "mixed" / "trials.jsonl")["00000"].epochs]
    assert accuracies[:3] == pytest.approx(recorded)
    assert "_hparams_/experiment" in accumulator.summary_metadata


def test_search_environment_says_what_it_ran_with(app: App, mixed: subprocess.CompletedProcess[str]) -> None:
    facts = json.loads((app.storage / "mixed" / "environment.json").read_text())
    assert facts["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert facts["data_sha256"] == load_splits(DatasetConfig(name="digits", image_size=8, limit=600)).sha256
    assert facts["cpu_cores"] == os.cpu_count()


def test_status_agrees_with_the_table(app: App, mixed: subprocess.CompletedProcess[str]) -> None:
    said = app("status", "mixed")
    assert said.returncode == 0
    assert said.stdout.splitlines()[-1] == (
        f"run mixed: 6 of 6 trials finished (4 COMPLETE, 2 FAIL); {app.storage / 'mixed'}"
    )


def test_export_and_train_best_gives_the_same_accuracy_and_a_model(
    app: App, mixed: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    exported = app("export", "mixed", "--rule", "best", "--output", str(tmp_path / "b.yaml"))
    assert exported.returncode == 0, exported.stderr
    best = app.storage / "mixed" / "best.yaml"
    assert (tmp_path / "b.yaml").read_text().replace(str(tmp_path / "b.yaml"), str(best)) == best.read_text()
    trained = app("train", str(tmp_path / "b.yaml"))
    assert trained.returncode == 0, trained.stderr
    assert "that is the same as in the search" in trained.stdout
    assert (tmp_path / "b.safetensors").stat().st_size > 0


def test_search_again_trains_nothing_and_gives_the_same_table(
    app: App, mixed: subprocess.CompletedProcess[str]
) -> None:
    run = app.storage / "mixed"
    before = [(run / name).read_bytes() for name in ("trials.jsonl", "trials.csv", "best.yaml", "environment.json")]
    again = app("search", str(app.home / "mixed.yaml"))
    assert again.returncode == 0
    assert "taken up: 6 of 6 trials are finished already" in again.stdout
    assert "note:" not in again.stdout
    assert before == [
        (run / name).read_bytes() for name in ("trials.jsonl", "trials.csv", "best.yaml", "environment.json")
    ]


def test_search_changed_experiment_under_the_same_name_is_refused_with_the_difference(
    app: App, mixed: subprocess.CompletedProcess[str]
) -> None:
    refused = app("search", str(app.home / "mixed.yaml"), "--set", "epochs=1")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: run mixed exists with another experiment (train.epochs: 3 -> 1); give this one another --name, "
        "or, where it is to add grid values to the run, --extend\n"
    )


def test_search_taken_up_with_other_versions_says_so(app: App, mixed: subprocess.CompletedProcess[str]) -> None:
    path = app.storage / "mixed" / "environment.json"
    before = path.read_text()
    facts = json.loads(before)
    path.write_text(json.dumps(facts | {"versions": facts["versions"] | {"torch": "1.0"}}))
    again = app("search", str(app.home / "mixed.yaml"))
    path.write_text(before)
    assert f"versions.torch: 1.0 -> {facts['versions']['torch']}" in again.stdout


def test_search_run_that_lost_its_experiment_is_not_taken_for_another(
    app: App, mixed: subprocess.CompletedProcess[str]
) -> None:
    shutil.copytree(app.storage / "mixed", app.storage / "bare")
    (app.storage / "bare" / "experiment.yaml").unlink()
    refused = app("search", str(app.home / "mixed.yaml"), "--name", "bare")
    assert refused.returncode == 2
    assert "run bare has trials but no " in refused.stderr
    (app.storage / "bare" / "environment.json").write_text("{")
    assert app("export", "bare").returncode == 2


def test_search_address_where_nobody_listens_is_one_line(app: App) -> None:
    lost = replace(app, environment={"RAY_ADDRESS": "127.0.0.1:1"})("search", "digits-demo", "--name", "nobody")
    assert lost.returncode == 2
    assert lost.stderr == "error: RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers there (Connection refused)\n"
    assert not (app.storage / "nobody").exists()


def test_search_request_no_node_can_serve_ends_before_anything_is_written(app: App) -> None:
    refused = app("search", "digits-demo", "--set", "resources.cpu=4096", "--name", "huge")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: resources: a trial asks for cpu 4096, which no node can serve (nodes have: "
    )
    assert not (app.storage / "huge").exists()


def test_search_no_usable_trial_is_exit_3_and_no_best(app: App) -> None:
    sets = ["lr=1e12", "optimizer=sgd", "model=mlp", "epochs=1", "hidden_units=20,1000000000", "retries=1"]
    with RunDir(app.storage / "beside").locked():  # as another search has it
        lost = app("search", "digits-demo", *(word for value in sets for word in ("--set", value)), "--name", "lost")
    assert "note: run beside is running too, not on this Ray: " in lost.stdout
    assert lost.returncode == 3, lost.stderr
    assert lost.stderr == "error: no usable trial: COMPLETE with an accuracy; no best.yaml\n"
    assert not (app.storage / "lost" / "best.yaml").exists()
    assert app("export", "lost").returncode == 3
    data = pd.read_parquet(app.storage / "lost" / "trials.parquet")
    assert data[["state", "failure", "attempts"]].to_numpy().tolist() == [
        ["FAIL", "diverged", 1],
        ["FAIL", "out_of_memory", 2],
    ]
    assert "allocate memory" in data["reason"][1]  # 3 TB of weights
    assert re.search(r"asked for cpu 1, memory \d+ MiB, \d+ MiB in use at most", data["reason"][1])


LONG = ["search", "digits-demo", "--set", "model=baseline", "--set", "lr=1e-3,1e-4", "--set", "epochs=6"]


def test_search_killed_worker_is_retried_and_interrupted_search_is_taken_up(app: App) -> None:
    """An undisturbed run; the same with a worker killed, then the search stopped by SIGTERM, then taken up."""
    undisturbed = app(*LONG, "--name", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr

    run = app.storage / "disturbed"
    process = app.start(*LONG, "--name", "disturbed")

    def states() -> list[str]:
        return [trial.state for trial in ledger.read(run / "trials.jsonl").values()]

    def workers() -> list[psutil.Process]:
        found = []
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if (
                    child.cmdline()[:1]
                    and child.cmdline()[0].startswith("ray::")
                    and "TrialWorker" in child.cmdline()[0]
                ):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    wait_for(lambda: any(t.epochs for t in ledger.read(run / "trials.jsonl").values()) and bool(workers()), process)
    workers()[0].kill()
    wait_for(lambda: any(t.attempts == 2 for t in ledger.read(run / "trials.jsonl").values()), process)
    wait_for(lambda: "COMPLETE" in states(), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (4, ""), out
    assert "the same command takes it up again" in out
    assert "worker_crashed: its worker process died; attempt 2 follows" in out
    interrupted = pd.read_parquet(run / "trials.parquet")
    assert "RUNNING" not in set(interrupted["state"])
    finished = set(interrupted["id"][interrupted["state"] == "COMPLETE"])
    assert 0 < len(finished) < 4
    assert not processes_under(app.home)

    again = app(*LONG, "--name", "disturbed")
    assert again.returncode == 0, again.stderr
    starts = [event["trial"] for event in events(run) if event.get("state") == "COMPLETE"]
    assert sorted(starts) == ["00000", "00001", "00002", "00003"]  # each completed once: none lost, none doubled
    first, second = (
        table.frame(table.rows(ledger.read(app.storage / name / "trials.jsonl").values()))[UNTIMED]
        for name in ("undisturbed", "disturbed")
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.slow
def test_search_trials_that_ask_for_all_cpus_run_one_at_a_time_on_as_many_threads(app: App) -> None:
    cpus = os.cpu_count() or 1
    sets = ["--set", f"resources.cpu={cpus}", "--set", "model=mlp", "--set", "epochs=1", "--set", "optimizer=adam"]
    ran = app("search", "digits-demo", *sets, "--name", "wide")
    assert ran.returncode == 0, ran.stderr
    states = [event["state"] for event in events(app.storage / "wide") if event["event"] == "state"]
    assert states == ["WAITING", "WAITING", "RUNNING", "COMPLETE", "RUNNING", "COMPLETE"]
    assert pd.read_parquet(app.storage / "wide" / "trials.parquet")["threads"].tolist() == [cpus] * 2


def test_search_trials_share_the_images_without_copying(app: App) -> None:
    """What a worker gets out of Ray's object store is a read-only view of it, not a copy."""
    code = (
        "import ray; from datasets import DatasetConfig, load_splits\n"
        "ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "@ray.remote\n"
        "def look(splits):\n"
        "    maps = open('/proc/self/maps').read().splitlines()\n"
        "    address = splits.train.images.data_ptr()\n"
        "    for line in maps:\n"
        "        low, high = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "        if low <= address < high: return line\n"
        "print(ray.get(look.remote(ray.put(load_splits(DatasetConfig(name='digits'))))))\n"
    )
    app.home.joinpath("share.py").write_text(code)
    looked = app.script(app.home / "share.py")
    assert "/dev/shm/plasma" in looked.stdout, looked.stdout + looked.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="FashionMNIST is not installed")
def test_search_shipped_fashion_grid_scaled_down_and_its_resnet_loads_into_torchvision(app: App) -> None:
    sets = ["dataset.limit=300", "epochs=1", "model=resnet18", "lr=1e-3"]
    ran = app("search", "fashion-resnet-grid", *(word for value in sets for word in ("--set", value)))
    assert ran.returncode == 0, ran.stderr
    run = app.storage / "fashion-resnet-grid"
    data = pd.read_parquet(run / "trials.parquet")
    assert data["state"].tolist() == ["COMPLETE"] * 4
    assert data["params"].tolist() == [11_175_370] * 4

    trained = app("train", str(run / "best.yaml"))
    assert "that is the same as in the search" in trained.stdout, trained.stderr
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.load_state_dict(load_file(run / "best.safetensors"), strict=True)


def test_demo_runs_and_names_a_best_config(app: App) -> None:
    ran = app("search", "digits-demo", "--name", "demo")
    assert ran.returncode == 0, ran.stderr
    assert "running too" not in ran.stdout
    data = pd.read_parquet(app.storage / "demo" / "trials.parquet")
    assert data["state"].tolist() == ["COMPLETE"] * 8
    assert data["val_accuracy"].max() > 0.9
    running, most = 0, 0
    for event in events(app.storage / "demo"):
        running += {"RUNNING": 1, "COMPLETE": -1}.get(event.get("state", ""), 0)
        most = max(most, running)
    assert most == min(os.cpu_count() or 1, 8)  # as many at once as fit, and never more

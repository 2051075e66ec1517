"""Trials and the requests they make, on one node with a GPU that is there in Ray's books alone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, App
from tune_jobs.results import ledger

pytestmark = pytest.mark.cluster

MIXED = """
name: packed
dataset: {name: digits, image_size: 8}
space:
  model: {grid: [mlp, svm]}
  hidden_units: {grid: [32, 33, 34, 35, 36, 37]}
  C: {grid: [1, 10]}
train: {epochs: 150, batch_size: 16}
resources: {cpu: 1, by_model: {mlp: {gpu: 0.25}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def head() -> Iterator[App]:
    """`ray start --head` with 8 CPUs and one GPU in its books; what is started with this App joins it."""
    home = Path(tempfile.mkdtemp(prefix="tj", dir="/tmp"))
    port = free_port()
    command = [
        "start",
        "--head",
        "--block",
        "--num-cpus=8",
        "--num-gpus=1",
        f"--port={port}",
        "--include-dashboard=false",
    ]
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own |= {"HOME": str(home), "RAY_TMPDIR": str(home / "ray"), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    ray = Path(sys.executable).parent / "ray"
    log = home / "head.log"
    with log.open("w") as out:
        process = subprocess.Popen([str(ray), *command], env=own, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        (home / "packed.yaml").write_text(MIXED)
        yield App(home, {"RAY_ADDRESS": f"127.0.0.1:{port}"})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def test_quarters_of_a_card_run_four_at_once_and_cpu_trials_beside_them(head: App) -> None:
    ran = head("search", str(head.home / "packed.yaml"))
    assert ran.returncode == 0, ran.stderr
    trials = list(ledger.read(head.storage / "packed" / "trials.jsonl").values())
    assert [trial.state for trial in trials] == ["COMPLETE"] * 8
    quarters = [trial for trial in trials if trial.config["model"] == "mlp"]
    assert all(trial.request is not None and trial.request["gpu"] == 0.25 for trial in quarters)
    assert {tuple(trial.place["cards"]) for trial in quarters} == {("0",)}
    assert most_at_once(quarters) == 4
    assert "note: 6 trials asked for a GPU and computed on the CPU, " in ran.stdout
    machines = [trial for trial in trials if trial.config["model"] == "svm"]
    assert all(trial.request is not None and trial.request["gpu"] == 0 for trial in machines)
    assert {tuple(trial.place["cards"]) for trial in machines} == {()}
    for trial in quarters[:4]:
        assert trial.shared_with is not None
        assert trial.shared_card_with is not None
        assert 0 < trial.shared_card_with <= 3
        assert trial.shared_card_with <= trial.shared_with
    assert all(trial.shared_card_with is None and (trial.shared_with or 0) > 0 for trial in machines)


def most_at_once(trials: list[ledger.TrialRecord]) -> int:
    """By the ledger's times of start and end."""
    changes = sorted([(t.started or 0.0, 1) for t in trials] + [(t.since, -1) for t in trials])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def test_requests_are_held_against_the_nodes_of_the_cluster(head: App) -> None:
    planned = head("plan", str(head.home / "packed.yaml"), "--name", "other")
    assert planned.returncode == 0, planned.stderr
    assert "node 0 of the cluster: cpu 8, gpu 1, " in planned.stdout
    assert "6 trials ask for cpu 1, gpu 0.25: 4 at once on node 0" in planned.stdout
    assert "2 trials ask for cpu 1: 8 at once on node 0" in planned.stdout
    for change, line in [
        ("resources.gpu=2", "a trial asks for cpu 1, gpu 2, which no node can serve (nodes have: cpu 8, gpu 1, "),
        (
            "resources.gpu=auto",
            "auto, probing mlp, batch size 32: the node has a GPU in Ray's books, but PyTorch finds",
        ),
    ]:
        refused = head("search", "digits-demo", "--set", "model=mlp", "--set", change, "--name", "refused")
        assert refused.returncode == 2, refused.stdout
        assert line in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (head.storage / "refused").exists()


def test_plan_joins_the_ray_that_runs_here_as_a_search_would(head: App) -> None:
    planned = App(head.home)("plan", str(head.home / "packed.yaml"), "--name", "other")
    assert planned.returncode == 0, planned.stderr
    assert "node 0 of the cluster: cpu 8, gpu 1, " in planned.stdout


def test_a_probe_that_no_node_can_serve_is_refused_and_not_waited_for(head: App) -> None:
    auto = ("--set", "resources.memory_mib=auto", "--set", "resources.cpu=64")
    refused = head("search", "digits-demo", "--set", "model=mlp", *auto, "--name", "refused")
    assert refused.returncode == 2, refused.stdout
    assert "a trial asks for cpu 64, which no node can serve (nodes have: cpu 8, gpu 1, " in refused.stderr
    assert not (head.storage / "refused").exists()


@pytest.mark.slow
def test_main_memory_that_was_measured_is_enough_and_plan_shows_it(head: App) -> None:
    asked = ("digits-demo", "--set", "model=simple_cnn", "--set", "lr=1e-3", "--set", "resources.memory_mib=auto")
    ran = head("search", *asked, "--name", "measured")
    assert ran.returncode == 0, ran.stderr
    (line,) = {line for line in ran.stdout.splitlines() if line.startswith("measured: ")}
    assert line.startswith("measured: simple_cnn, batch size 32 takes ")
    for trial in ledger.read(head.storage / "measured" / "trials.jsonl").values():
        assert trial.request is not None
        assert line.endswith(f" so it asks for cpu 1, memory {trial.request['memory_mib']:.0f} MiB")
        assert trial.result["peak_memory_mib"] < trial.request["memory_mib"]
        assert trial.result["peak_memory_mib"] > trial.request["memory_mib"] / 2
    planned = head("plan", *asked, "--name", "other")
    assert line.partition(", so it asks for ")[2] in planned.stdout


def test_search_waits_for_nodes_where_told_to(head: App) -> None:
    process = head.start("search", "digits-demo", "--set", "resources.gpu=2", "--name", "waits", "--wait-for-nodes")
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("waiting"):
                break
        assert line.strip() == "waiting for nodes that can serve: cpu 1, gpu 2"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 4
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(bool(os.environ.get("CUDA_VISIBLE_DEVICES")), reason="the surroundings choose the GPUs")
def test_a_trial_that_asks_for_no_gpu_sees_none() -> None:
    code = (
        "import os, torch\n"
        "from tune_jobs.device import Place\n"
        "from tune_jobs.resources import Request\n"
        "place = Place(Request(cpu=2))\n"
        "place.take()\n"
        "unseen = os.environ['CUDA_VISIBLE_DEVICES'] == ''\n"
        "print(place.device, torch.cuda.is_available(), torch.get_num_threads(), unseen)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["cpu", "False", "2", "True"]


FUSED = """
name: fused
dataset: {name: digits, image_size: 8}
space:
  model: mlp
  hidden_units: {grid: [32, 33]}
  lr: {grid: [1e-2, 1e-3]}
train: {epochs: 4, batch_size: 16}
resources: {cpu: 1, gpu: 0.25, fuse: true}
"""


def test_quarters_of_a_card_are_fused_by_one_process_which_ends_when_none_needs_it(head: App) -> None:
    """Ray's books alone have the card: it computes on the CPU."""
    (head.home / "fused.yaml").write_text(FUSED)
    ran = head("search", str(head.home / "fused.yaml"))
    assert ran.returncode == 0, ran.stderr
    trials = list(ledger.read(head.storage / "fused" / "trials.jsonl").values())
    assert [trial.state for trial in trials] == ["COMPLETE"] * 4
    assert [trial.result["fused"] for trial in trials] == [2] * 4
    assert {tuple(trial.place["cards"]) for trial in trials} == {("0",)}
    assert wait_for_fusers(head, 0) == []


def test_what_fuses_ends_after_its_driver_was_killed(head: App) -> None:
    """While trials of two shapes wait for their turns."""
    (head.home / "fused.yaml").write_text(FUSED)
    process = head.start("search", str(head.home / "fused.yaml"), "--set", "epochs=2000", "--name", "killed")
    (fuser,) = wait_for_fusers(head, 1)
    ledger_of_run = head.storage / "killed" / "trials.jsonl"
    end = time.monotonic() + 120
    while '"epoch": 2' not in ledger_of_run.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert fuser.is_running()
    assert wait_for_fusers(head, 0) == []


def wait_for_fusers(head: App, count: int) -> list[psutil.Process]:
    """Until there are so many in this Ray, for two minutes."""
    end = time.monotonic() + 120
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::TrialFuser"):
                    found += [process] if process.environ().get("HOME") == str(head.home) else []
            except psutil.Error:
                continue  # it has just ended
        if len(found) == count or time.monotonic() > end:
            return found
        time.sleep(0.2)

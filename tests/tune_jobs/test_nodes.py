"""Searches over two Ray nodes on this machine, one of which dies."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import pytest

from tune_jobs import failures
from tune_jobs.cluster import is_lost
from tune_jobs.results import ledger, table

if TYPE_CHECKING:
    from tests.conftest import App

HEAD, OTHER = "127.0.0.1", "127.0.0.2"
UNTIMED = [
    "id", "state", "model", "optimizer", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "best_epoch",
    "epochs", "precision", "device", "threads", "params", "seed", "failure", "reason",
]  # fmt: skip
"""Columns that do not depend on how fast the machine was."""


@contextmanager
def ray_node(app: App, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`ray start`, a node of one core, until the block ends."""
    words = ("--block", "--disable-usage-stats", "--num-cpus=1", *arguments)
    process = app.start(*words, command=("-m", "ray.scripts.scripts", "start"))
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ray runtime started" in line:
                break
        else:
            pytest.fail(f"the node did not start: {process.communicate()}")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def two_nodes(app: App, second: App | None = None) -> Iterator[tuple[App, subprocess.Popen[str]]]:
    """The application on a cluster of two nodes with one core each; and the process of the second, which has the
    environment of `second`, where that is given."""
    with socket.socket() as free:
        free.bind((HEAD, 0))
        address = f"{HEAD}:{free.getsockname()[1]}"
    # Once a search has left a token in this home, the head would want it of the others.
    plain = {"RAY_AUTH_MODE": "disabled"}
    one, two = (replace(node, environment=node.environment | plain) for node in (app, second or app))
    head = ["--head", f"--node-ip-address={HEAD}", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"]
    with (
        ray_node(one, *head, f"--temp-dir={app.home / 'cluster'}"),
        ray_node(two, f"--address={address}", f"--node-ip-address={OTHER}") as other,
    ):
        yield replace(app, environment={"RAY_ADDRESS": address} | plain), other


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def kill_node(node: subprocess.Popen[str]) -> None:
    """Its raylet by SIGKILL; the workers on it end by themselves, as they have lost their node."""
    (raylet,) = [child for child in psutil.Process(node.pid).children(recursive=True) if child.name() == "raylet"]
    raylet.kill()


def frame(run: Path) -> pd.DataFrame:
    return table.frame(table.rows(ledger.read(run / "trials.jsonl").values()))[UNTIMED]


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]


def test_is_lost_of_a_node_that_ray_still_believes_in_its_raylet_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.client.ray.is_connected", lambda: False)
    with socket.socket() as raylet:
        raylet.bind((HEAD, 0))
        node = {"NodeID": "a", "Alive": True, "NodeManagerAddress": HEAD, "NodeManagerPort": raylet.getsockname()[1]}
        monkeypatch.setattr("ray.nodes", lambda: [node])
        raylet.listen()
        assert not is_lost("a")
        assert is_lost("b")
    assert is_lost("a")


def test_classify_what_ray_says_of_a_dead_node_once_it_knows() -> None:
    """The first is what the driver gets within Ray's first seconds, as this file's search meets it."""
    unavailable = (
        "The actor 2b77 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed"
    )
    died = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: TrialWorker\n"
        "The actor died because its node has died. Node Id: d6ae\n"
        "\tthe actor's node was terminated unexpectedly: health check failed"
    )
    head = "Failure # 1 (occurred at 2026-11-21_08-41-21)\n"
    assert failures.classify(head + unavailable) == ("worker_crashed", "its worker process died")
    assert failures.classify(head + died) == ("node_lost", failures.NODE_LOST)


@pytest.mark.slow
@pytest.mark.cluster
def test_search_node_killed_its_trials_go_on_elsewhere_from_their_checkpoints(app: App) -> None:
    sets = ["model=baseline", "lr=1e-3", "epochs=20", "retries=0"]
    command = ["search", "digits-demo", *(word for value in sets for word in ("--set", value))]
    run = app.storage / "killed"
    with two_nodes(app) as (cluster, other):
        process = cluster.start(*command, "--name", "killed")

        def on_other() -> list[ledger.TrialRecord]:
            trials = ledger.read(run / "trials.jsonl").values()
            return [trial for trial in trials if trial.place.get("node") == OTHER and not trial.finished]

        wait_for(
            lambda: any(trial.epochs and any((run / "checkpoints" / trial.id).glob("*.pt")) for trial in on_other()),
            process,
        )
        (hit,) = on_other()
        kill_node(other)
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert f"{hit.id} WAITING" in out
    assert "node_lost: the node that it ran on died; attempt 2 follows" in out  # with retries=0: it is not counted

    trials = ledger.read(run / "trials.jsonl")
    assert {trial.id: trial.failures for trial in trials.values()} == {
        trial: ["node_lost"] if trial == hit.id else [] for trial in ("00000", "00001")
    }
    assert trials[hit.id].place["node"] != OTHER
    epochs = [event for event in events(run) if event["event"] == "epoch" and event["trial"] == hit.id]
    first = min(event["epoch"] for event in epochs if event["attempt"] == 2)
    assert first > 1  # not from the beginning
    assert sorted(event["trial"] for event in events(run) if event.get("state") == "COMPLETE") == ["00000", "00001"]

    undisturbed = app(*command, "--name", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    pd.testing.assert_frame_equal(frame(run), frame(app.storage / "undisturbed"), check_exact=True)
    assert not list(app.storage.glob(".seen-*"))


@pytest.mark.slow
@pytest.mark.cluster
def test_search_a_node_where_every_worker_dies_costs_no_trial(app: App, tmp_path: Path) -> None:
    """The broken node's processes end as soon as they are to train, as where a card or a library of it is broken."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, threading, time\n"
        "def watch():\n"
        "    while 'tune_jobs.trial' not in sys.modules:\n"
        "        time.sleep(0.02)\n"
        "    os._exit(1)\n"
        "if any('default_worker' in word for word in sys.orig_argv):\n"
        "    threading.Thread(target=watch, daemon=True).start()\n"
    )
    broken = replace(app, environment={"PYTHONPATH": str(tmp_path)})
    sets = ["model=baseline", "lr=1e-3,2e-3,3e-3,5e-3,1e-2", "epochs=15"]
    command = ["search", "digits-demo", *(word for value in sets for word in ("--set", value))]
    with two_nodes(app, broken) as (cluster, _):
        done = cluster(*command, "--name", "broken")
    assert done.returncode == 0, done.stderr
    trials = ledger.read(app.storage / "broken" / "trials.jsonl").values()
    assert {trial.state for trial in trials} == {"COMPLETE"}
    assert OTHER not in {trial.place["node"] for trial in trials}
    # Some may have been sent there by then: as many wait at Ray's as there is room for.
    assert 3 <= sum(len(trial.failures) for trial in trials) <= 5, done.stdout
    assert f"note: {OTHER} is sent no more trials: 3 in a row failed on {OTHER}" in done.stdout

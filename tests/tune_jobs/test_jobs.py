"""Searches as jobs on a cluster that was started with `ray start`, with tokens on."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT, App
from tune_jobs import submit
from tune_jobs.cluster import shipping
from tune_jobs.results import ledger

if TYPE_CHECKING:
    pass

BIN = Path(sys.executable).parent
RAY = str(BIN / "ray")


def free_ports(count: int) -> list[int]:
    """Ports at which nobody listens now."""
    with ExitStack() as stack:  # all open at once: no port twice
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


@dataclass
class Head:
    """A cluster of one node, and what a client of it has in its environment."""

    address: str
    dashboard: str
    token: str
    temp_dir: Path
    app: App
    environment: dict[str, str]

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Ray's own command line, from a clone."""
        return subprocess.run(
            [RAY, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )

    def get(self, path: str) -> Any:
        """What the dashboard answers."""
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def job(self, run: str) -> dict[str, Any]:
        """The newest job of a run."""
        jobs = [job for job in self.get("/api/jobs/") if (job["metadata"] or {}).get("run") == run]
        return max(jobs, key=lambda job: job["start_time"])

    def log(self, job_id: str) -> str:
        return str(self.get(f"/api/jobs/{job_id}/logs")["logs"])


@pytest.fixture(scope="module")
def head(app: App) -> Iterator[Head]:
    port, dashboard, client, agent, agent_grpc, runtime_env, metrics = free_ports(7)
    token = secrets.token_hex(32)
    (app.home / "token").write_text(token)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_", "PYTHON"))
    }
    environment |= {
        "HOME": str(app.home),
        "PATH": f"{BIN}:{environment['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(app.home / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    temp_dir = app.home / "head"
    options = {
        "port": port, "dashboard-port": dashboard, "ray-client-server-port": client, "min-worker-port": 0,
        "max-worker-port": 0, "dashboard-agent-listen-port": agent, "dashboard-agent-grpc-port": agent_grpc,
        "runtime-env-agent-port": runtime_env, "metrics-export-port": metrics, "num-cpus": 2, "num-gpus": 0,
        "node-ip-address": "127.0.0.1", "object-store-memory": 200_000_000, "temp-dir": temp_dir,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    log = (app.home / "head.log").open("w")
    process = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--disable-usage-stats", *words],
        cwd=app.home,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    environment |= {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}", "TUNE_JOBS_STORAGE": str(app.storage)}
    found = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", token, temp_dir, app, environment)
    app.environment = {
        name: environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "TUNE_JOBS_STORAGE")
    }
    try:
        until(lambda: answers(found), process)
        yield found
    finally:
        process.terminate()  # `ray start --block` takes its processes with it
        process.wait(60)
        log.close()


def answers(head: Head) -> bool:
    try:
        head.get("/api/version")
    except OSError:
        return False
    return True


def until(condition: Callable[[], bool], process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process is None or process.poll() is None, "the process has ended"
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)


SMALL = """
name: small
dataset: {name: digits, image_size: 8, limit: 300}
space: {lr: {grid: [1e-2, 1e-3]}}
train: {model: mlp, hidden_units: 20, epochs: 1}
"""
LONG = """
name: long
dataset: {name: digits, image_size: 28, limit: 400}
space: {lr: {grid: [1e-2, 1e-3]}}
train: {model: baseline, epochs: 2000}
"""


@dataclass
class Ended:
    """A `submit` that has come to its end."""

    code: int
    out: str
    err: str

    @property
    def job(self) -> str:
        found = re.search(r"^job (\S+): run ", self.out, re.MULTILINE)
        assert found, (self.out, self.err)
        return found[1]


def end(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=400)
    return Ended(process.returncode, out, err)


@pytest.fixture(scope="module")
def ended(head: Head) -> dict[str, Ended]:
    """Submits that end well and not, at the same time."""
    file = head.app.home / "small.yaml"  # outside the root: it is carried along
    file.write_text(SMALL)
    asked = {
        "done": ["--set", "epochs=2"],
        "diverged": ["--set", "optimizer=sgd", "--set", "lr=1e10", "--name", "diverged"],
    }
    processes = {name: head.app.start("submit", str(file), *arguments) for name, arguments in asked.items()}
    try:
        return {name: end(process) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()


@pytest.fixture(scope="module")
def plain(head: Head) -> subprocess.CompletedProcess[str]:
    """Ray's own `job submit`, which knows nothing of us."""
    command = shlex.split("python -m tune_jobs search digits-demo --set model=mlp --set epochs=1 --name plain")
    environment = json.dumps({"env_vars": {"TUNE_JOBS_STORAGE": str(head.app.storage)}})
    return head.ray("job", "submit", "--working-dir", ".", "--runtime-env-json", environment, "--", *command)


@pytest.mark.cluster
def test_ray_job_submit_works_from_a_clone_and_its_log_has_every_trial(
    head: Head, plain: subprocess.CompletedProcess[str]
) -> None:
    assert plain.returncode == 0, (plain.stdout, plain.stderr)
    (job,) = [job for job in head.get("/api/jobs/") if job["entrypoint"].endswith("--name plain")]
    assert (job["status"], job["driver_exit_code"]) == ("SUCCEEDED", 0)
    lines = head.log(job["submission_id"]).splitlines()
    for trial in ("00000", "00001", "00002", "00003"):
        assert sum(line.startswith(f"{trial} started  model=mlp optimizer=") for line in lines) == 1
        assert sum(f"] {trial} COMPLETE  model=mlp " in line and " val " in line for line in lines) == 1
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert f"run directory: {head.app.storage / 'plain'}" in lines
    assert lines[-1].endswith(str(head.app.storage / "plain"))
    assert (head.app.storage / "plain" / "best.yaml").is_file()


@pytest.mark.cluster
def test_ray_job_submit_uploads_little(head: Head, plain: subprocess.CompletedProcess[str]) -> None:
    """As unpacked on the node, which is more than what was uploaded."""
    packages = package_folders(head)
    (package,) = [folder for folder in packages if (folder / "README.md").is_file()]
    files = [path for path in package.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5 * 2**20
    assert not {".git", ".venv", ".mypy_cache"} & {path.name for path in package.iterdir()}


def package_folders(head: Head) -> list[Path]:
    return [path for path in head.temp_dir.glob("session_2*/runtime_resources/working_dir_files/*") if path.is_dir()]


@pytest.mark.cluster
def test_submit_follows_the_log_and_ends_as_the_search_did(head: Head, ended: dict[str, Ended]) -> None:
    done = ended["done"]
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:3] == [
        f"job {done.job}: run small",
        f"follow it: ray job logs -f {done.job} --address {head.dashboard}",
        f"stop it:   ray job stop {done.job} --address {head.dashboard}",
    ]
    assert sum(" COMPLETE  model=mlp lr=" in line for line in lines) == 2
    assert lines[-1] == f"job {done.job}: SUCCEEDED"
    rows = ledger.read(head.app.storage / "small" / "trials.jsonl")
    assert [(trial.state, trial.config["epochs"]) for trial in rows.values()] == [("COMPLETE", 2)] * 2
    assert {name: ended[name].code for name in ended} == {"done": 0, "diverged": 3}
    assert f"job {ended['diverged'].job}: FAILED" in ended["diverged"].out


@pytest.mark.cluster
def test_submit_job_says_what_runs_and_from_which_commit(head: Head, ended: dict[str, Ended]) -> None:
    job = head.job("small")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert job["metadata"]["experiment"] == "small"
    assert job["metadata"]["git_commit"].removesuffix("+changes") == commit.strip()
    assert job["entrypoint"] == "python -m tune_jobs search experiment.yaml --name small"
    facts = json.loads((head.app.storage / "small" / "environment.json").read_text())
    assert facts["git_commit"] == job["metadata"]["git_commit"]


@pytest.mark.cluster
def test_submit_sends_the_packages_and_the_experiment_alone(head: Head, ended: dict[str, Ended]) -> None:
    sent = [folder for folder in package_folders(head) if (folder / submit.EXPERIMENT_FILE).is_file()]
    assert len(sent) == 2
    for folder in sent:
        assert {path.name for path in folder.iterdir()} == {*shipping.PACKAGES, submit.EXPERIMENT_FILE}
        assert not (folder / "tune_jobs" / "deploy").exists()


def actor_names(head: Head) -> set[str]:
    """What the dashboard calls the workers."""
    actors = head.get("/api/v0/actors?detail=true&limit=1000")["data"]["result"]["result"]
    return {actor["repr_name"] for actor in actors}


@pytest.mark.slow
@pytest.mark.cluster
def test_submit_stopped_search_is_taken_up_by_the_same_submit(head: Head) -> None:
    file = head.app.home / "long.yaml"
    file.write_text(LONG)
    run = head.app.storage / "long"

    def epochs() -> list[int]:
        trials = ledger.read(run / "trials.jsonl").values()
        for trial in trials:
            assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
        return [len(trial.epochs) for trial in trials] or [0]

    first = head.app("submit", str(file), "--no-wait")
    assert (first.returncode, first.stderr) == (0, "")
    job = Ended(0, first.stdout, "").job
    until(lambda: min(epochs()) > 0)
    assert {"long slot 0", "long slot 1"} <= actor_names(head)
    assert head.ray("job", "stop", job).returncode == 0
    assert head.job("long")["status"] == "STOPPED"
    assert "interrupted, 2 of 2 trials left; the same command takes it up again" in head.log(job)
    assert [trial.state for trial in ledger.read(run / "trials.jsonl").values()] == ["WAITING", "WAITING"]
    before = epochs()

    following = head.app.start("submit", str(file))
    try:
        until(lambda: min(now - then for now, then in zip(epochs(), before, strict=True)) > 0, following)
        following.send_signal(signal.SIGINT)
        left = end(following)
    finally:
        following.kill()
    assert left.code == 4
    assert left.err == f"error: job {left.job} is no longer followed; it goes on until it is stopped\n"
    assert "taken up: 0 of 2 trials are finished already, 2 go on from their last checkpoint" in left.out
    assert head.job("long")["status"] == "RUNNING"
    assert head.ray("job", "stop", left.job).returncode == 0
    assert head.job("long")["status"] == "STOPPED"


@pytest.mark.cluster
def test_connect_sends_the_code_to_a_cluster_that_is_joined(head: Head, tmp_path: Path) -> None:
    script = tmp_path / "where.py"
    script.write_text(
        "import ray\nfrom tune_jobs import cluster\n"
        "@ray.remote\ndef where():\n    import tune_jobs, datasets\n    return tune_jobs.__file__, datasets.__file__\n"
        "cluster.connect(print)\nprint(*ray.get(where.remote()))\n"
    )
    app = App(head.app.home, head.app.environment | {"RAY_ADDRESS": head.address})
    ran = app.script(script)
    assert ran.returncode == 0, ran.stderr
    dashboard, files = ran.stdout.splitlines()
    assert dashboard == f"Ray dashboard: {head.dashboard}"
    for file in files.split():
        assert Path(file).is_relative_to(head.temp_dir)


@pytest.mark.cluster
@pytest.mark.parametrize("command", ["submit", pytest.param("search", marks=pytest.mark.slow)])  # Ray tries for long
def test_a_cluster_with_tokens_refuses_who_has_none(head: Head, command: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(secrets.token_hex(32))
    address = head.dashboard if command == "submit" else head.address
    other = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"), "RAY_ADDRESS": address}
    ran = App(head.app.home, head.app.environment | other)(command, "digits-demo", "--name", "refused")
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    *_, last = ran.stderr.splitlines()
    assert last.startswith("error: ")
    assert "RAY_AUTH_MODE=token" in last
    assert not (head.app.storage / "refused").exists()


@pytest.mark.cluster
def test_no_token_in_what_jobs_show_or_write(
    head: Head, plain: subprocess.CompletedProcess[str], ended: dict[str, Ended]
) -> None:
    jobs = head.get("/api/jobs/")
    assert len(jobs) >= 3
    shown = json.dumps(jobs) + "".join(head.log(job["submission_id"]) for job in jobs if job["submission_id"])
    assert head.token not in shown
    written = [*head.app.storage.rglob("*"), *(head.temp_dir / "session_latest" / "logs").rglob("*")]
    files = [path for path in written if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if head.token.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus here (Debian: prometheus)")
def test_prometheus_scrapes_a_gauge_a_trial(head: Head, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "- job_name: ray\n"
        f"  authorization: {{credentials_file: {head.environment['RAY_AUTH_TOKEN_PATH']}}}\n"
        f"  file_sd_configs: [{{files: [{head.temp_dir / 'prom_metrics_service_discovery.json'}]}}]\n"
    )
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("w") as log:
        prometheus = subprocess.Popen(["prometheus", *options], cwd=tmp_path, stdout=log, stderr=log)
    file = head.app.home / "long.yaml"
    file.write_text(LONG)

    def series(metric: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": f'ray_tune_jobs_{metric}{{run="metrics"}}'})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=60) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except OSError:
            return []  # it has not come up yet

    try:
        sent = head.app("submit", str(file), "--set", "epochs=500", "--name", "metrics", "--no-wait")
        assert sent.returncode == 0, sent.stderr
        until(lambda: len(series("val_accuracy")) > 1, prometheus)
        until(lambda: any(state["metric"]["state"] == "COMPLETE" for state in series("trials")), prometheus)
        for metric in ("val_accuracy", "epoch_time_s", "images_per_s"):
            found = series(metric)
            assert {one["metric"]["trial"] for one in found} == {"00000", "00001"}
            assert all(float(one["value"][1]) > 0 for one in found)
        assert sum(float(one["value"][1]) for one in series("trials")) == 2
        until(lambda: head.job("metrics")["status"] == "SUCCEEDED")
    finally:
        prometheus.terminate()
        prometheus.wait(60)

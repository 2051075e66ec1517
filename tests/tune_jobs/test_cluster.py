"""This process as a driver of Ray: its beginning beside other work, and its end."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.autoscaler import sdk
from ray.exceptions import AuthenticationError, RuntimeEnvSetupError

from tests.conftest import App, processes_under
from tune_jobs import cluster
from tune_jobs.cluster import refusals, tokens
from tune_jobs.errors import UsageError
from tune_jobs.resources import Request

_LEAVING = """
import time
import ray
from tune_jobs import cluster

cluster.begin()
told = []
cluster.connect(told.append)
cluster.connect(told.append)  # again, of the same one
references = [ray.put(number) for number in range(2000)]
cluster.leave()
while references:
    references.pop()
    time.sleep(0.0005)
print("alive")
"""


@pytest.mark.cluster
def test_references_dropped_while_ray_ends_cost_no_exit_code(app: App) -> None:
    """Ray ends a process that drops one while the connection is being closed: exit code 1 after all had gone well."""
    script = app.home / "leaving.py"
    script.write_text(_LEAVING)
    ran = app.script(script)
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran.stderr


_AGAIN = """
import ray
from tune_jobs import cluster

for end in (cluster.leave, ray.shutdown, cluster.leave):
    cluster.connect()
    print(ray.get(ray.put(len(ray.nodes()))))
    end()
ray.init(address="local", log_to_driver=False, logging_level="ERROR")
cluster.connect()  # the one that is there
print(ray.get(ray.put(len(ray.nodes()))))
cluster.leave()
assert ray.is_initialized()  # it was not ours
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_process_can_join_again_after_it_has_left_or_shut_ray_down(app: App) -> None:
    script = app.home / "again.py"
    script.write_text(_AGAIN)
    ran = app.script(script)
    assert (ran.returncode, ran.stdout) == (0, "1\n" * 4), ran.stderr


_TERMINATED = """
import os, signal, sys, time
from tune_jobs import cluster, interruption

if sys.argv[1] == "begun before":
    cluster.begin()
    cluster._membership.joined.result()
try:
    with interruption.sigterm_as_sigint():
        if sys.argv[1] == "not asked for yet":
            cluster.begin()
            while not cluster._membership.joined.done():
                time.sleep(0.01)
        else:
            cluster.connect()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.cluster
@pytest.mark.parametrize("when", ["begun before", "begun within", "not asked for yet"])
def test_sigterm_is_a_word_to_us_and_no_failure_of_rays(when: str, app: App) -> None:
    script = app.home / "terminated.py"
    script.write_text(_TERMINATED)
    process = app.start(when, command=(str(script),))
    assert process.communicate(timeout=120) == ("interrupted\n", "")
    assert process.returncode == 0


_FORKING = """
import os, sys

registered = []
os.register_at_fork = lambda **hooks: registered.append(hooks)
import tune_jobs.cluster.membership

before = len(registered)
assert any("after_in_parent" in hooks for hooks in registered)
import tune_jobs.search

print([hooks for hooks in registered[before:] if "after_in_parent" in hooks])
"""


def test_nothing_is_registered_around_forks_once_ray_may_be_starting_processes(app: App) -> None:
    """Registered between a fork's beginning and its end, `after_in_parent` is run without its `before`: a traceback on
    stderr, in one search of forty."""
    script = app.home / "forking.py"
    script.write_text(_FORKING)
    ran = app.script(script)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


_ABANDONING = """
import os, sys, time
from tune_jobs import cluster

cluster.begin()
time.sleep(float(sys.argv[1]))
assert cluster.is_abandoned()
os._exit(2)
"""


@pytest.mark.cluster
@pytest.mark.parametrize("after_s", [0, 0.1, 0.4, 0.8, 1.6, 5])
def test_process_that_ends_while_ray_starts_leaves_none(after_s: float, app: App) -> None:
    script = app.home / "abandoning.py"
    script.write_text(_ABANDONING)
    process = app.start(str(after_s), command=(str(script),))
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 2
    deadline = time.monotonic() + 60
    while left := processes_under(app.home / "ray"):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.cluster
@pytest.mark.parametrize("after_s", [1.5, 3])
def test_search_interrupted_while_ray_starts_leaves_no_process(after_s: float, app: App) -> None:
    process = app.start("search", "digits-demo", "--name", f"left-{after_s}")
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 4, (out, err)
    assert "Traceback" not in err
    deadline = time.monotonic() + 60
    while left := processes_under(app.home / "ray"):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.cluster
def test_wrong_space_ends_with_its_line_alone_though_ray_was_begun(app: App) -> None:
    ran = app("search", "digits-demo", "--set", "model=resnet19")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: space.model: 'resnet19' is not a model; there are resnet18, ")
    assert len(ran.stderr.splitlines()) == 1
    assert not list(app.storage.glob("*"))


_TELLING = """
import contextlib, time, urllib.request
import psutil, ray
from ray.util.state import get_log
from tune_jobs import cluster

told = []
cluster.connect(told.append)
while not told:
    time.sleep(0.05)
url = told[0].removeprefix("Ray dashboard: ")
print(url)
print(urllib.request.urlopen(url).status)

@ray.remote
class Printer:
    def speak(self):
        print("spoken by a worker")

printer = Printer.remote()
ray.get(printer.speak.remote())
here = ray.get_runtime_context().gcs_address
log = get_log(here, actor_id=printer._actor_id.hex())  # from the dashboard
print("spoken by a worker" in "".join(log))
names = []
for child in psutil.Process().children():
    with contextlib.suppress(psutil.NoSuchProcess):
        names += child.cmdline()
print([any(part in name for name in names) for part in ("raylet", "log_monitor")])
"""


@pytest.mark.cluster
def test_dashboard_is_told_once_it_answers_and_shows_what_workers_print(app: App) -> None:
    script = app.home / "telling.py"
    script.write_text(_TELLING)
    ran = app.script(script)
    assert (ran.returncode, ran.stderr) == (0, "")
    url, status, *more = ran.stdout.splitlines()
    assert url.startswith("http://127.0.0.1:")
    assert status == "200"
    assert more == ["True", "[True, False]"]


_PRELOADING = """
import glob, sys, time
import ray
from ray.util import placement_group, scheduling_strategies
from tune_jobs import cluster

cluster.PRELOADING_CPUS = int(sys.argv[1])
cluster.connect()
cores = int(ray.cluster_resources()["CPU"])
logs = ray._private.worker._global_node.get_logs_dir_path()
while len(glob.glob(f"{logs}/python-core-worker-*")) < cores:
    time.sleep(0.05)
reserved = placement_group([{"CPU": 1}] * cores)
ray.get(reserved.ready())  # no core is free now, as when trials are about to start
time.sleep(3)

@ray.remote(num_cpus=1)
class Worker:
    def found(self):
        import sys
        return sorted({"torch", "ray.tune"} & sys.modules.keys())

there = scheduling_strategies.PlacementGroupSchedulingStrategy(reserved)
workers = [Worker.options(scheduling_strategy=there).remote() for _ in range(cores)]
print({tuple(found) for found in ray.get([worker.found.remote() for worker in workers])})
print(len(glob.glob(f"{logs}/python-core-worker-*")) - cores, "more")
"""


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("most", [10_000, 0])
def test_workers_have_pytorch_and_on_a_small_machine_tune_before_they_are_asked_and_stay_until_then(
    most: int, app: App
) -> None:
    script = app.home / "preloading.py"
    script.write_text(_PRELOADING)
    ran = app.script(script, str(most))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == ("{('ray.tune', 'torch')}" if most else "{('torch',)}") + "\n0 more\n"


@pytest.mark.slow
@pytest.mark.cluster
def test_cluster_that_was_killed_is_not_waited_for(app: App) -> None:
    """What `ray start` writes down outlives a killed cluster: Ray alone tries for more than ten minutes to join it."""
    remembered = app.home / "ray" / "ray" / "ray_current_cluster"
    remembered.parent.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    remembered.write_text(f"127.0.0.1:{port}")

    sets = ("--set", "model=mlp", "--set", "epochs=1", "--set", "lr=1e-3", "--name", "killed")
    planned = app("plan", "digits-demo", *sets)
    assert planned.returncode == 0, planned.stderr
    assert "this machine" in planned.stdout
    searched = app("search", "digits-demo", *sets)
    assert (searched.returncode, searched.stderr) == (0, "")

    automatic = replace(app, environment={"RAY_ADDRESS": "auto"})
    refused = automatic("search", "digits-demo", *sets, "--name", "other")
    assert (refused.returncode, refused.stderr) == (
        2, "error: RAY_ADDRESS=auto: no Ray cluster runs on this machine\n",
    )  # fmt: skip
    for caller in (app, automatic):
        refused = caller("submit", "digits-demo", "--storage", str(app.storage))
        assert (refused.returncode, refused.stderr) == (
            2, "error: no Ray cluster runs here: give --address, or set RAY_ADDRESS\n",
        )  # fmt: skip
    remembered.unlink()


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        (
            f"/tmp/{'x' * 60}",
            "too long a path for Ray's sockets; set RAY_TMPDIR to a folder with a shorter one, such as",
        ),
        ("/dev/null/x", "Ray cannot keep its files there (Not a directory); set RAY_TMPDIR to another"),
    ],
)
def test_folder_that_ray_cannot_use_is_one_line(folder: str, reason: str, app: App) -> None:
    elsewhere = replace(app, environment={"RAY_TMPDIR": folder})
    refused = elsewhere("search", "digits-demo", "--name", "nowhere")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: RAY_TMPDIR={folder}: {reason} ")
    assert refused.stderr.count("\n") == 1
    assert not (app.storage / "nowhere").exists()
    assert not processes_under(Path(folder))
    shutil.rmtree(folder, ignore_errors=True)


_OWN = """
import ray

ray.init(address="local", resources={"own": 4}, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
from tune_jobs.__main__ import app

app(["search", "digits-demo", "--set", "model=mlp", "--set", "epochs=1", "--set", "resources.custom.own=1"])
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_search_in_a_process_that_has_a_ray_is_served_by_that_one(app: App) -> None:
    """It has what a Ray that were started for the search would not have."""
    script = app.home / "own.py"
    script.write_text(_OWN)
    ran = app.script(script)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (app.storage / "digits-demo" / "best.yaml").exists()


@pytest.mark.parametrize("scheme", ["ray", "http"])
def test_an_address_that_no_search_can_use_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"a search runs on a node of its cluster; give HOST:6379"):
        cluster._join()


@pytest.mark.parametrize("address", ["ray:1", "foo", "http://[::1:6379"])
def test_an_address_that_is_none_or_has_nobody_is_one_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """`ray` is a host's name like any other."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ValueError("Invalid address format")))
    with pytest.raises(UsageError, match=rf"^RAY_ADDRESS={re.escape(address)}: "):
        cluster._join()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError(
                "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\nThis process\n    Ray: 2.60.0"
            ),
            "the cluster there cannot be joined: Version mismatch: The cluster was started with: Ray: 2.59.0 This "
            "process Ray: 2.60.0; RAY_ADDRESS=local starts a Ray of the search's own",
        ),
        (RuntimeEnvSetupError("Package size (600MiB) exceeds"), "the cluster there cannot be joined: Failed to set up"),
        (
            AuthenticationError("none"),
            "no Ray cluster can be joined there; one with tokens wants RAY_AUTH_MODE=token, ",
        ),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line_with_the_way_out(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(cluster, "_known_here", lambda: None)
    monkeypatch.setattr(tokens, "provide", lambda: "")
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(error))
    with pytest.raises(UsageError, match=f"^this machine: {re.escape(line)}") as refused:
        cluster._join()
    assert str(refused.value).endswith("RAY_ADDRESS=local starts a Ray of the search's own")
    assert "\n" not in str(refused.value)


def test_another_fault_of_rays_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(cluster, "_known_here", lambda: None)
    monkeypatch.setattr(tokens, "provide", lambda: "")
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match=r"^a fault$"):
        cluster._join()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(13, "Permission denied", "/home/me/.cache"), "/home/me/.cache: Permission denied; Ray needs it"),
        (OSError(13, "Permission denied", "/short/ray"), "RAY_TMPDIR=/short: Ray cannot keep its files there (Permiss"),
    ],
)
def test_a_file_that_ray_cannot_write_is_named(error: OSError, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/short")
    assert str(refusals.line(error, "")).startswith(line)


def test_somebody_elses_cluster_that_is_kept_from_others_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_: object) -> str:
        raise PermissionError(13, "Permission denied", "/tmp/ray/ray_current_cluster")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "canonicalize_bootstrap_address", unreadable)
    assert not cluster.is_there()
    assert not cluster.is_gone()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r" \(what listens there is none; a dashboard"),
        (b"", r" \(what listens there is none; a dashboard"),
        (b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64", None),
    ],
)
def test_what_listens_is_a_cluster_where_it_speaks_as_one(answer: bytes, reason: str | None) -> None:
    """Ray would try for more than ten minutes to join another program that has the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        refused = (
            contextlib.nullcontext()
            if reason is None
            else pytest.raises(UsageError, match=f"^RAY_ADDRESS={address}: no Ray cluster answers there{reason}")
        )
        with refused:
            cluster.check_reachable(address, "RAY_ADDRESS")
        thread.join()


def test_auto_where_no_cluster_runs_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(cluster, "_known_here", lambda: None)
    with pytest.raises(UsageError, match=r"^RAY_ADDRESS=auto: no Ray cluster runs on this machine$"):
        cluster._join()


def test_what_was_asked_of_an_autoscaler_is_taken_back_by_who_stops_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the cluster would start the node and keep it for ever."""
    asked: list[list[dict[str, float]]] = []
    node = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0}}

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sdk, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(time, "sleep", interrupted)
    requests = [Request(gpu=1), Request(cpu=4)]  # the second is there, and would idle away unasked for
    with pytest.raises(KeyboardInterrupt):
        cluster.wait_until_servable(requests, lambda _: None)
    assert asked == [[request.bundle() for request in requests], []]

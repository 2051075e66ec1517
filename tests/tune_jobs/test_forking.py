"""Workers of a Ray that this process starts are forked from a server that has PyTorch already."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import ray

from tune_jobs import forking
from tune_jobs.forking import server, worker

if TYPE_CHECKING:
    from tests.conftest import App

ROOT = Path(__file__).parents[2]

_WORKERS = """
import json
import os
import signal
import time

import psutil
import ray
from tune_jobs import cluster

cluster.connect()


def tell(value):
    print("told:", json.dumps(value), flush=True)


@ray.remote(num_cpus=1)
class Worker:
    def tell(self):
        import gc
        import resource
        import numpy
        return {
            "collects": [gc.isenabled(), *gc.get_threshold()],
            "pid": os.getpid(),
            "parent": psutil.Process().parent().cmdline()[1:2],
            "leads": os.getpgrp() == os.getpid(),
            "niceness": os.nice(0),
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
            "told": {name: os.environ.get(name) for name in ("OF_THE_DRIVER", "TUNE_JOBS_FORK_SERVER")},
            "children": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
            "drawn": numpy.random.rand(),
        }

    def own(self):
        return os.environ.get("OWN")


def gone(pid):
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


parts, deadline = {}, time.monotonic() + 60
while list(parts.values()).count(10) < 2 and time.monotonic() < deadline:  # they come up beside
    for process in psutil.Process().children():
        for word in process.cmdline():
            parts[os.path.basename(word)] = process.nice()
    time.sleep(0.05)
tell({name: parts.get(name) for name in ("gcs_server", "raylet", "dashboard.py", "monitor.py")})

several = [Worker.remote() for _ in range(2)]
told = [ray.get(one.tell.remote()) for one in several]
ray.kill(several[0])
tell({"told": told, "killed": gone(told[0]["pid"])})
os.kill(told[1]["pid"], signal.SIGKILL)
again = Worker.remote()
tell(ray.get(again.tell.remote()))
ray.kill(again)

with_its_own = Worker.options(runtime_env={"env_vars": {"OWN": "yes"}}).remote()
tell([ray.get(with_its_own.own.remote()), ray.get(with_its_own.tell.remote())["parent"]])
ray.kill(with_its_own)

(server,) = [one for one in psutil.Process().children() if "server.py" in " ".join(one.cmdline())]
server.kill()
server.wait()
without = Worker.remote()
tell(ray.get(without.tell.remote()))
"""


@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_workers_are_forked_and_are_otherwise_as_ray_starts_them(app: App) -> None:
    script = app.home / "workers.py"
    script.write_text(_WORKERS)
    app.environment["OF_THE_DRIVER"] = "yes"
    ran = app.script(script)
    assert ran.returncode == 0, ran.stderr
    lines = [
        line.removeprefix("told: ") for line in ran.stdout.splitlines() if line.startswith("told: ")
    ]  # Ray tells too
    parts, first, again, with_its_own, without = map(json.loads, lines)
    assert parts == {"gcs_server": 0, "raylet": 0, "dashboard.py": 10, "monitor.py": 10}
    in_the_usual_way = without | {"pid": 0, "drawn": 0}
    assert "server.py" not in str(without["parent"])
    assert first["killed"]
    for one in (*first["told"], again):
        assert one["parent"] == [str(forking.SERVER)]
        assert one | {"pid": 0, "drawn": 0, "parent": without["parent"]} == in_the_usual_way
    assert len({one["drawn"] for one in (*first["told"], again)}) == 3
    assert without["told"] == {"OF_THE_DRIVER": "yes", "TUNE_JOBS_FORK_SERVER": None}
    own, parent = with_its_own
    assert own == "yes"
    assert "server.py" not in str(parent)


@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_server_ends_with_the_process_that_started_it_even_if_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from tune_jobs import forking\n"
        "with forking.fork_server():\n"
        "    print(os.environ[forking.ADDRESS], forking._server.process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert process.stdout is not None
    address, pid = process.stdout.readline().split()
    found = psutil.Process(int(pid))
    process.kill()
    process.wait()
    process.stdout.close()
    found.wait(timeout=120)
    assert not Path(address).parent.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_no_server_is_told_of_outside() -> None:
    assert not forking.is_on()
    with forking.fork_server():
        assert forking.is_on()
        assert forking._server is not None
        process = forking._server.process
    assert not forking.is_on()
    forking.end()
    assert process.wait(timeout=120) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_server_begun_is_the_one_that_is_used_and_one_that_is_not_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")  # as if it were not there
    forking.begin()
    begun = forking._server
    assert begun is not None
    forking.begin()
    assert forking._server is begun
    forking.end()
    assert begun.process.returncode == -signal.SIGKILL
    with forking.fork_server():
        assert forking._server is not None
        assert forking._server is not begun
        process = forking._server.process
    forking.end()
    assert process.wait(timeout=120) == 0


@pytest.mark.parametrize(("name", "value"), [("RAY_ADDRESS", "auto"), ("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")])
def test_no_server_is_begun_where_a_cluster_is_joined(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    forking.begin()
    assert forking._server is None


def test_server_imports_what_can_be_forked() -> None:
    """No thread that knows nothing of it, nothing of Ray, and no card asked for: a forked process could use none."""
    code = (
        "import importlib, sys, threading, torch\n"
        "asked = []\n"
        "torch._C._cuda_getDeviceCount = lambda: asked.append('count') or 0\n"
        "torch._C._cuda_init = lambda: asked.append('init')\n"
        f"for name in {server.MODULES}: importlib.import_module(name)\n"
        "import pathlib\n"
        "comms = [(task / 'comm').read_text().strip() for task in pathlib.Path('/proc/self/task').iterdir()]\n"
        "print(asked, threading.active_count(), 'ray' in sys.modules, torch.cuda.is_initialized())\n"
        "print(sorted(set(comms) - {'python', 'python3', 'jemalloc_bg_thd'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, threads = ran.stdout.splitlines()
    assert first == "[] 1 False False"
    assert [name for name in json.loads(threads.replace("'", '"')) if not name.startswith("python")] == []


USUAL = ["--node-id=1", "--runtime-env-hash=0"]


@pytest.mark.parametrize(
    ("address", "arguments"),
    [("", USUAL), ("{}/nobody", USUAL), ("{}/socket", ["--node-id=1", "--runtime-env-hash=7"]), ("{}/socket", USUAL)],
)
def test_worker_becomes_one_in_rays_own_way_where_no_server_makes_it(
    address: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: executed.append([path, *words]))
    monkeypatch.setattr(sys, "argv", ["worker.py", *arguments])
    monkeypatch.setenv(worker.ADDRESS, address.format(tmp_path))
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(str(tmp_path / "socket"))
        full.listen(1)
        monkeypatch.setattr(socket.socket, "recv", lambda *_: b"")  # a server that died before it had forked
        worker.main()
    own = Path(str(ray.__file__)).parent / "_private/workers/default_worker.py"
    assert executed == [[sys.executable, sys.executable, "-u", str(own), *arguments]]
    assert worker.ADDRESS not in os.environ

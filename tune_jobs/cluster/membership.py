"""This process as a driver of a Ray cluster: its beginning beside other work, and its end."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import ray
from ray._private import services, utils, worker
from ray._private.node import Node
from ray._private.ray_constants import PROCESS_TYPE_DASHBOARD, PROCESS_TYPE_MONITOR

from tune_jobs import forking

# Why `concurrent.futures.thread` is imported here: it has a lock held while a process is forked, and registers that at
# its import.  An import between the beginning and the end of a fork, by another thread, would have a lock released that
# nobody holds, and Python says so on stderr.


OF_THE_DASHBOARD = (
    *("aiohttp", "aiohttp_cors", "grpc", "opencensus", "opentelemetry"),
    *("prometheus_client", "pydantic"),
)
"""Packages of Ray's extra `default`."""

FOR_PEOPLE = (PROCESS_TYPE_DASHBOARD, PROCESS_TYPE_MONITOR)
"""Ray's processes that no trial waits for."""

NICENESS = 10
"""Theirs, and that of what they start: behind all that the first trials wait for, and before Ray's workers, which have
15, so that the dashboard answers while they train."""

SWITCH_S = 0.0005
"""While Ray starts, a thread that computes gives way so soon to one that waits to: Python's own 5 ms are waited for by
Ray's thread behind each of its many short steps, while the other one imports PyTorch."""


class Membership:
    """This process as a driver of a cluster, in threads that live as long.

    Ray waits for its processes far more than it computes, so that what a command reads and imports is done
    meanwhile; and the kernel ends the processes that it starts together with the thread that started them.
    """

    def __init__(self, join: Callable[[], str]) -> None:
        """`join` makes this process a driver and returns the address of the dashboard that is known then, HOST:PORT."""
        self.joined: Future[None] = Future()
        """Done when the cluster is there, or with what was raised."""
        self.dashboard: Future[str] = Future()
        """HOST:PORT; empty where there is none."""
        self.is_wanted = False
        """Whether the command has come to where it needs the cluster."""
        self._join = join
        self._over = threading.Event()
        self._spawning = threading.RLock()
        self._dashboard: threading.Thread | None = None
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
        atexit.register(self.end, wait=True)
        self._thread.start()

    def end(self, wait: bool = False) -> None:
        """Shut Ray down.  It takes seconds, for which the end of the process waits, at the latest.

        What belongs to this process is gone when this returns: an object reference that were dropped while it goes,
        by the collector too, would end the process with exit code 1.
        """
        self._over.set()
        collecting = gc.isenabled()
        gc.disable()
        while hasattr(worker.global_worker, "core_worker") and self._thread.is_alive():
            time.sleep(0.01)
        if collecting:
            gc.enable()
        if wait:
            self._thread.join()

    def is_over(self) -> bool:
        """Whether Ray was there and somebody else in this process has shut it down."""
        return self.joined.done() and self.joined.exception() is None and not ray.is_initialized()

    def abandon(self) -> None:
        """To be called right before the process ends, by a thread that lives until then: the kernel ends Ray's
        processes with it.  One that is being started is waited for, until it has told the kernel so: a moment, unless
        the interrupt left some library's lock behind."""
        self._spawning.acquire(timeout=10)

    def _live(self) -> None:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            with self._started_by_us():
                known = self._join()
            if self._dashboard is None:
                self.dashboard.set_result(known)
            self.joined.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self.joined.set_exception(error)
        finally:
            sys.setswitchinterval(usual)
        self._over.wait()
        if self._dashboard is not None and self.joined.exception() is None:
            self.dashboard.exception()  # waits: Ray's shutdown ends the processes that it knows
        ray.shutdown()
        forking.end()

    @contextmanager
    def _started_by_us(self) -> Iterator[None]:
        """Ray starts its dashboard and its monitor beside its other processes, and no log monitor.

        By itself it waits for the dashboard's answer, one to two seconds, before it starts the raylet, whose workers
        every trial waits for; and it imports here what the dashboard needs, to see whether it is there: half a second.
        The log monitor, as long in a short search, reads workers' logs out to drivers, and ours ask for none; the
        dashboard shows them all the same.  The agent has a port of its own choice: a second Ray on the machine would
        try for three seconds to get the one that Ray gives to all, and then do without.
        """
        start_dashboard, start_process = Node.start_api_server, services.start_ray_process
        start_monitor: Callable[[Node], None] = Node.start_monitor

        def beside(node: Node, **asked: Any) -> None:
            node._ray_params.dashboard_agent_listen_port = 0
            if forking.is_on():
                node._ray_params.worker_path = str(forking.WORKER)
            node._ray_params.include_log_monitor = False  # type: ignore[assignment]  # declared as a path by mistake
            self._dashboard = threading.Thread(target=start, args=(node,), kwargs=asked, name="dashboard", daemon=True)
            self._dashboard.start()

        def start(node: Node, **asked: Any) -> None:
            try:
                start_monitor(node)
                start_dashboard(node, **asked)
                self.dashboard.set_result(node.webui_url or "")
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                self.dashboard.set_exception(error)
            self._over.wait()

        def one_at_a_time(*arguments: Any, **named: Any) -> Any:
            with self._spawning:
                started = start_process(*arguments, **named)
            if any(kind in (*arguments, *named.values()) for kind in FOR_PEOPLE):
                os.setpriority(os.PRIO_PROCESS, started.process.pid, NICENESS)
            return started

        def put_back(_: object = None, look: Any = utils.get_dashboard_dependency_error) -> None:
            services.start_ray_process, utils.get_dashboard_dependency_error = start_process, look

        Node.start_api_server = beside  # type: ignore[assignment, method-assign]
        Node.start_monitor = lambda _: None  # type: ignore[method-assign]
        services.start_ray_process, utils.get_dashboard_dependency_error = one_at_a_time, _missing
        try:
            yield
        finally:
            Node.start_api_server, Node.start_monitor = start_dashboard, start_monitor  # type: ignore[method-assign]
            if self._dashboard is None:
                put_back()
            else:  # its thread may not have come to them yet
                self.dashboard.add_done_callback(put_back)


def _missing() -> ImportError | None:
    """As Ray's own `get_dashboard_dependency_error`, without importing what is there."""
    missing = [name for name in OF_THE_DASHBOARD if find_spec(name) is None]
    return ImportError(f"the dashboard needs {', '.join(missing)}") if missing else None

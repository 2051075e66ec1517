"""The Ray cluster that a command works on."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import get_num_cpus
from ray.exceptions import RayError

from tune_jobs import forking, interruption
from tune_jobs.cluster import refusals, shipping, tokens
from tune_jobs.cluster.membership import Membership
from tune_jobs.errors import UsageError
from tune_jobs.resources import Request, unservable

PRELOADING_CPUS = 16
"""Up to so many cores workers import Tune before they are asked for a trial."""

IDLE_MS = 60_000
"""A worker that has been idle for so long is ended, where there are more of them than free cores.

Ray's own second is over when the first trials come, and to reserve their cores leaves none free: one search in three
lost its workers in the tenth of a second between that and the trials' own start, and began others, 5 s later.  So may
one still that has more than this to do before its first trial (a download, say).  The price is memory: where a trial
takes several cores, a worker of each core stays for so long.
"""

_membership: Membership | None = None
_left: Membership | None = None
"""The one before, whose Ray may still be shutting down."""
_is_joining = False
"""Whether it is a cluster that was there before."""
_is_closed = ""
"""Why nobody else has the token of the Ray that this process has started, where that is so."""


def begin() -> None:
    """Begin to `connect` beside what is still to be done before a cluster is needed."""
    global _membership, _left  # as Ray's own state: one a process
    if _membership is not None and _membership.is_over():
        leave()
    if _left is not None:
        _left.end(wait=True)
        _left = None
    if _membership is None and not ray.is_initialized():
        _membership = Membership(_join)


def connect(say: Callable[[str], None] | None = None) -> None:
    """Join the cluster that RAY_ADDRESS or this job names, or one that runs here; else start Ray on this machine.

    A cluster that is joined is sent our packages, for its other nodes to import; a job's have come with the job.
    Where it has a dashboard that can be opened, `say` is told its address as soon as it answers, from another thread.

    Raises UsageError where none can be joined.
    """
    begin()
    if _membership is None:
        return
    _membership.is_wanted = True
    try:
        _membership.joined.result()
    except Exception:
        leave()  # the next call tries anew
        raise

    def tell(address: Future[str]) -> None:
        if say is not None and address.exception() is None and address.result():
            say(
                f"note: Ray keeps its token to this search, and its dashboard closed ({_is_closed})"
                if _is_closed
                else f"Ray dashboard: http://{address.result()}"
            )

    _membership.dashboard.add_done_callback(tell)


def is_own() -> bool:
    """Whether this process has started its cluster, so that nobody else works on it; asked once it is there."""
    return _membership is not None and not _is_joining


def leave() -> None:
    """Shut this process's Ray down beside what is still to be done; the process's end waits for it."""
    global _membership, _left
    if _membership is not None:
        _membership.end()
        _membership, _left = None, _membership


def is_abandoned() -> bool:
    """Whether Ray was begun for a command that never came to use it: one that was asked something wrong, or left.

    Then the process is to end at once, and Ray's processes with it: to wait until Ray is there and shut it down would
    take seconds.  Nothing can be started any more.  A cluster that is joined is left in order.
    """
    if _membership is None or _is_joining or (_membership.is_wanted and _membership.joined.done()):
        return False
    _membership.abandon()
    return True


def _join() -> str:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("ray://", "http://", "https://")):
        raise UsageError(
            f"RAY_ADDRESS={address}: a search runs on a node of its cluster; give HOST:6379 or auto there, or send it "
            "with `submit`"
        )
    check_reachable(address, "RAY_ADDRESS")
    try:
        with _code() as where:
            dashboard = ray.init(**where, log_to_driver=False, logging_level=logging.ERROR).dashboard_url
        interruption.take_back_sigterm()
        return dashboard or ""
    except (RayError, OSError, RuntimeError, ValueError) as error:
        line = refusals.line(error, address)
        if line is None:
            raise
        raise UsageError(line) from error


def is_there() -> bool:
    """Whether `connect` would not start Ray: this process has one, RAY_ADDRESS names one, as it does in a job, or one
    runs here."""
    if ray.is_initialized():
        return True
    if named := os.environ.get("RAY_ADDRESS"):
        return named != "local"
    return _runs_here()


def is_gone() -> bool:
    """Whether nobody answers any more where Ray says that a cluster runs on this machine.

    Ray remembers the last one beyond its end: where that one was killed, or the machine was switched off.  It would try
    for more than ten minutes to join it.
    """
    address = _known_here()
    return address is not None and not _answers(address)


def _runs_here() -> bool:
    address = _known_here()
    return address is not None and _answers(address)


def _answers(address: str) -> bool:
    try:
        _call(address)
    except OSError:
        return False
    return True


def _known_here() -> str | None:
    """HOST:PORT of the cluster that was started on this machine, for a RAY_ADDRESS of nothing or `auto`."""
    try:
        return canonicalize_bootstrap_address(None)  # type: ignore[arg-type]  # as ray.init calls it
    except OSError:  # of `auto`, where there is none; or it is somebody else's, who keeps it from others
        return None


def this_machine() -> Mapping[str, Any]:
    """The one node of a cluster that `connect` would start, as ray.nodes() would tell of it."""
    node = ResourceAndLabelSpec(num_gpus=_gpus_unknown_to_ray()).resolve(is_head=True)
    return {"Alive": True, "Resources": node.to_resource_dict()}


def _gpus_unknown_to_ray() -> int | None:
    """A Mac's GPU, which Ray on its own does not count; None leaves the counting to Ray.

    Elsewhere PyTorch is not asked, and so Ray does not wait for its import.
    """
    if platform.system() != "Darwin":
        return None
    import torch

    return 1 if torch.backends.mps.is_available() else None


def wait_until_servable(requests: Sequence[Request], say: Callable[[str], None]) -> None:
    """Wait until some node could serve each request, and say for what: for clusters that grow when asked.

    The autoscaler is told what is wanted; once it is there, the trials themselves keep it.
    """
    from ray.autoscaler.sdk import request_resources

    said = ""
    try:
        while missing := unservable(requests, ray.nodes()):
            line = f"waiting for nodes that can serve: {'; '.join(map(str, missing))}"
            if line != said:
                say(line)
                said = line
            request_resources(bundles=[request.bundle() for request in requests])  # what is there would idle away
            time.sleep(2)
    finally:  # what is asked of it stands for ever, beyond the end of who asked
        if said:
            request_resources(bundles=[])
    if said:
        say("the nodes are there")


def is_lost(node_id: str) -> bool:
    """Whether a node is dead.

    Ray takes some 15 s to say so, while the workers on it are gone at once; so its raylet is asked for an answer.
    """
    node = next((node for node in ray.nodes() if node["NodeID"] == node_id), None)
    if node is None or not node["Alive"]:
        return True
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=2).close()
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _code() -> Iterator[dict[str, Any]]:
    """What ray.init is told of the cluster: the runtime environment of one that is joined, where the code is not there
    already; the GPUs of a new one that Ray would not find, and how its workers are kept."""
    global _is_joining, _is_closed
    _is_joining, _is_closed = False, ""
    is_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # Ray refuses a second working_dir
    if is_job:
        _is_joining = True
        yield {}
    elif os.environ.get("RAY_ADDRESS") == "auto" and not _runs_here():
        raise UsageError("RAY_ADDRESS=auto: no Ray cluster runs on this machine")
    elif not is_there():
        _is_closed = tokens.provide()
        gpus = _gpus_unknown_to_ray()
        with forking.fork_server():
            yield {"address": "local", "_system_config": _workers()} | ({} if gpus is None else {"num_gpus": gpus})
    else:
        _is_joining = True
        forking.end()
        with shipping.runtime_env() as runtime_env:
            yield {"runtime_env": runtime_env}


def _workers() -> dict[str, Any]:
    """Ray's configuration of the workers of a new cluster, of which it starts one a core beforehand.

    Each is to import Tune at once, and PyTorch where it was not forked with it, beside the driver's own imports,
    instead of when its first trial comes: up to 2 s of work, and memory that a large server's many idle workers are not
    worth.  Our own packages are not found yet at that point.
    """
    config: dict[str, Any] = {}
    if "RAY_idle_worker_killing_time_threshold_ms" not in os.environ:  # it would count for less than what is given here
        config["idle_worker_killing_time_threshold_ms"] = IDLE_MS
    if get_num_cpus() <= PRELOADING_CPUS:
        config["preload_python_modules"] = ["torch", "ray.tune"]
    return config


def check_reachable(address: str, name: str) -> None:
    """Raise UsageError where `address`, which is called `name`, has a host and port at which nobody listens, or
    something else than Ray: Ray would try for minutes."""
    try:
        _call(address)
    except ValueError as error:
        raise UsageError(f"{name}={address}: is no address ({error})") from error
    except OSError as error:
        raise UsageError(f"{name}={address}: no Ray cluster answers there ({error.strerror or error})") from error


_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""With which an HTTP/2 client begins (RFC 9113, 3.4); a server, as gRPC's is one, answers with a frame of type 4."""


def _call(address: str) -> None:
    """Raises OSError where an address with a host and port has nobody who listens, or one without http:// somebody who
    is no Ray cluster; ValueError where it is none."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    if not (parts.hostname and port):  # empty, auto or local
        return
    with socket.create_connection((parts.hostname, port), timeout=10) as connection:
        if not parts.scheme and os.environ.get("RAY_USE_TLS", "0").lower() in ("0", "false"):
            connection.sendall(_GREETING)
            if connection.recv(9)[3:4] != b"\4":
                raise OSError("what listens there is none; a dashboard's address begins with http://")

"""Whether every node of the cluster can read and write the storage."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from pyarrow import fs
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from datasets.reasons import in_a_line
from tune_jobs.errors import UsageError
from tune_jobs.resources import Request, alive, fits
from tune_jobs.storage import Store, StoreError, file_system, told

WAIT_S = 60
"""How long a node may take to say whether it sees the storage: it may have to start a Python process first."""


def check_storage_seen(storage: Path | Store, requests: Sequence[Request]) -> None:
    """Raise UsageError where trials may run on a node that cannot read and write the storage.

    A file is written there, and each such node asked to read it and to write one beside it.  A directory is taken to be
    seen by the node that this process is on.  Nodes that join the cluster later are not asked.
    """
    own = ray.get_runtime_context().get_node_id()
    asked = to_ask(ray.nodes(), requests, own if isinstance(storage, Path) else None)
    if not asked:
        return
    folder = str(storage) if isinstance(storage, Path) else storage.uri
    token = uuid.uuid4().hex
    reply = {node: f".seen-{token}-{node}" for node in asked}
    try:
        if isinstance(storage, Path):
            storage.mkdir(parents=True, exist_ok=True)
        _write(folder, f".seen-{token}", token)
        said = _ask(folder, token, reply)
    except BaseException:
        with contextlib.suppress(StoreError):  # what went wrong first is what is told
            _delete(folder, [f".seen-{token}", *reply.values()])
        raise
    _delete(folder, [f".seen-{token}", *reply.values()])
    refuse_unseen(storage, {asked[node]: reason for node, reason in said.items() if reason})


def to_ask(nodes: Sequence[Mapping[str, Any]], requests: Sequence[Request], own: str | None) -> dict[str, str]:
    """Of the nodes, as `ray.nodes()` gives them, those that may run a trial: id -> address.  `own` is left out."""
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in nodes
        if node["NodeID"] != own
        and any(fits(request, resources) for resources in alive([node]) for request in requests)
    }


def refuse_unseen(storage: Path | Store, unseen: Mapping[str, str]) -> None:
    """Raise UsageError where there are nodes that do not see the storage; `unseen` is their addresses and reasons."""
    if not unseen:
        return
    nodes = ", ".join(f"{address} ({reason})" for address, reason in unseen.items())
    if isinstance(storage, Store):
        needed = "each node needs the credentials and a way to the store"
    else:
        needed = "give one that all nodes share: an NFS path, s3://bucket/folder or gs://bucket/folder"
    raise UsageError(f"storage {storage}: trials may run on nodes that cannot use it: {nodes}; {needed}")


def look(folder: str, token: str, reply: str) -> str:
    """Read the token in the folder and write the reply beside it; why that cannot be done, empty where it can."""
    try:
        files, root = file_system(folder)
        with told(folder):
            if files.get_file_info(f"{root}/.seen-{token}").type == fs.FileType.NotFound:
                return "does not see what is written there elsewhere"
            _write(folder, reply, token)
    except StoreError as error:
        return str(error).removeprefix(f"{folder}: ")
    return ""


def _write(folder: str, name: str, text: str) -> None:
    files, root = file_system(folder)
    with told(folder), files.open_output_stream(f"{root}/{name}") as stream:
        stream.write(text.encode())


def _delete(folder: str, names: Sequence[str]) -> None:
    """Those of them that are there.  Raises StoreError where it is not allowed to."""
    files, root = file_system(folder)
    with told(f"{folder}: what was written there cannot be deleted"):
        for name in names:
            if files.get_file_info(f"{root}/{name}").type == fs.FileType.File:
                files.delete_file(f"{root}/{name}")


def _ask(folder: str, token: str, reply: Mapping[str, str]) -> dict[str, str]:
    """What each node says.  One that dies before it has said anything has no say."""
    remote = ray.remote(num_cpus=0, max_retries=0)(look)
    waiting = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            folder, token, name
        ): node
        for node, name in reply.items()
    }
    ready, late = ray.wait(list(waiting), num_returns=len(waiting), timeout=WAIT_S)
    said = {waiting[task]: f"did not answer within {WAIT_S} s" for task in late}
    living = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    for task in ready:
        try:
            said[waiting[task]] = ray.get(task)
        except RayError as error:
            if waiting[task] in living:
                said[waiting[task]] = in_a_line(error)[:200]
    return said

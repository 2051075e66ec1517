"""The device benchmark on a cluster: profiling's rows as Ray tasks, each alone on its device."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from datasets import Splits
from profiling import devices, rows
from profiling.asked import Benchmark
from profiling.devices import Case
from profiling.rows import Row
from tune_jobs.cluster import connect
from tune_jobs.environment import environment
from tune_jobs.errors import UsageError
from tune_jobs.interruption import sigterm_as_sigint
from tune_jobs.results.plain import plain
from tune_jobs.results.rundir import RunDir, write_text
from tune_jobs.sameness import differences

DEVICES = {"cpu": ("cpu",), "cuda": ("cuda:0",), "all": ("cpu", "cuda:0")}
"""What --device may be -> devices as a worker sees them: of GPUs, the one that it was given."""

ObjectRef: TypeAlias = "ray.ObjectRef[Any]"
Say = Callable[[str], None]
Tell = Callable[[Row, int, int], None]
"""A row has just been finished; so many are finished; so many there are."""


@dataclass(frozen=True)
class Kind:
    """Nodes that are alike as far as Ray knows; one of them is measured."""

    cpus: int
    gpus: int
    accelerator: str
    """Ray's name for its GPUs, as H100; empty where it has none."""

    def __str__(self) -> str:
        return f"{self.cpus} CPUs" + (f" {self.gpus} {self.accelerator or 'GPU'}" if self.gpus else "")

    def threads(self, device: str) -> int:
        """All its CPUs for a row on the CPU; for one on a GPU the share that falls to each."""
        return self.cpus if device == "cpu" else max(1, self.cpus // self.gpus)


@dataclass(frozen=True)
class Task:
    """One row to be measured, on one kind of node."""

    kind: Kind
    device: str
    case: Case

    @property
    def key(self) -> str:
        """The same for the same row in another execution of the run."""
        return json.dumps([str(self.kind), self.device, asdict(self.case)])


@dataclass(frozen=True)
class Outcome:
    """How a benchmark ended."""

    rows: list[Row]
    """Those that are finished, in the order they were asked for."""
    left: int
    """How many are not; 0 unless it was interrupted."""


def check_device(asked: str) -> None:
    """Raise UsageError for a device that is none."""
    if asked not in DEVICES:
        raise UsageError(f"--device {asked!r}: there are {', '.join(DEVICES)}")


def run(asked: Benchmark, device: str, run_dir: RunDir, data_dir: Path | None, say: Say, tell: Tell) -> Outcome:
    """Measure all rows that are not complete yet, on one node of each kind, and write the table.

    Rows that failed are tried again.  Nodes that have joined since are measured, too.

    Raises UsageError, ProfilingError, DataError or ModelError before anything is measured or written.
    """
    with sigterm_as_sigint():
        splits = asked.load(data_dir)
        document = json.loads(json.dumps(asdict(asked) | {"device": device, "data_sha256": splits.sha256}))
        _check_same(run_dir, document)
        connect(say)
        nodes = kinds(ray.nodes())
        tasks = plan(asked.cases, DEVICES[device], nodes)
        if not tasks:
            raise UsageError(f"--device {device}: no node of the cluster has one for these rows")
        trouble, told = _mirrored(run_dir, say, tell)
        with run_dir.locked(say, trouble):
            _check_same(run_dir, document)
            write_text(_question(run_dir), json.dumps(document, indent=2) + "\n")
            if not run_dir.environment.exists():
                write_text(run_dir.environment, json.dumps(environment() | _facts(splits), indent=2) + "\n")
            finished = _complete(run_dir)
            done = sum(task.key in finished for task in tasks)
            say(f"run {run_dir.name}: {len(tasks)} rows, {done} of them finished already, into {run_dir}")
            try:
                _measure_all(tasks, nodes, asked.dataset, splits, finished, run_dir, told)
            except KeyboardInterrupt:
                pass  # what is left says so
            finally:
                found = rows.with_speedups([finished[task.key] for task in tasks if task.key in finished])
                if found:
                    rows.write(found, run_dir.benchmark)
    return Outcome(found, len(tasks) - len(found))


def _mirrored(run_dir: RunDir, say: Say, tell: Tell) -> tuple[Say, Tell]:
    """For `RunDir.locked`, who is told that the object store or the lease on the run there is lost; and `tell`, after
    which a row is pushed there and, without a store to push to, the benchmark interrupted."""
    lost = threading.Event()

    def trouble(line: str) -> None:
        lost.set()
        say(line)

    def told(row: Row, finished: int, total: int) -> None:
        tell(row, finished, total)
        run_dir.push_soon()
        if lost.is_set():
            raise KeyboardInterrupt

    return trouble, told


def kinds(nodes: Iterable[Mapping[str, Any]]) -> dict[Kind, str]:
    """Each kind of living node with a CPU -> the id of the first of them.  `nodes` as `ray.nodes()` gives them."""
    found: dict[Kind, str] = {}
    for node in nodes:
        have = node["Resources"]
        if node["Alive"] and have.get("CPU", 0) >= 1:
            types = sorted(name.partition(":")[2] for name in have if name.startswith("accelerator_type:"))
            gpus = int(have.get("GPU", 0))
            found.setdefault(Kind(int(have["CPU"]), gpus, types[0] if gpus and types else ""), node["NodeID"])
    return found


def plan(cases: Sequence[Case], asked: Sequence[str], nodes: Iterable[Kind]) -> list[Task]:
    """The rows, node by node: those of the CPU first."""
    return [
        Task(kind, device, case)
        for kind in nodes
        for device in asked
        for case in cases
        if (device == "cpu" or kind.gpus) and devices.runs_on(case, torch.device(device))
    ]


def _measure_all(
    tasks: Sequence[Task],
    nodes: Mapping[Kind, str],
    dataset: str,
    splits: Splits,
    finished: dict[str, Row],
    run_dir: RunDir,
    tell: Tell,
) -> None:
    """Run what `finished` lacks, and put each row there and into the record as it comes."""
    shared = ray.put(splits)
    waiting = {_start(task, nodes[task.kind], shared, dataset): task for task in tasks if task.key not in finished}
    try:
        with run_dir.rows.open("a", encoding="utf-8") as record:
            if record.tell():
                record.write("\n")  # a line cut by a crash stays alone
            while waiting:
                (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
                task = waiting.pop(ready)
                row = _row(ready, task, splits, dataset)
                finished[task.key] = row
                line = {"task": task.key, "row": plain(asdict(row))}
                record.write(json.dumps(line, allow_nan=False) + "\n")
                record.flush()
                tell(row, sum(other.key in finished for other in tasks), len(tasks))
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _start(task: Task, node: str, splits: ObjectRef, dataset: str) -> ObjectRef:
    """Ask for what makes the row alone on its device: all CPUs of the node, or a whole GPU and its share of them."""
    threads = task.kind.threads(task.device)
    exclusive = _measure.options(
        name=f"{task.case.model} on {task.device}",
        num_cpus=threads,
        num_gpus=0 if task.device == "cpu" else 1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    return exclusive.remote(task.case, splits, dataset, task.device, threads, str(task.kind))


@ray.remote(max_calls=1, max_retries=1)  # a fresh process for each row: no memory and no caches of the one before
def _measure(case: Case, splits: Splits, dataset: str, device: str, threads: int, kind: str) -> Row:
    if device != "cpu" and not torch.cuda.is_available():
        raise RuntimeError("Ray counts a GPU on this node, PyTorch sees none")
    return devices.measure(case, splits, dataset, torch.device(device), threads, kind)


def _row(reference: ObjectRef, task: Task, splits: Splits, dataset: str) -> Row:
    """The task's row; of one that never came back, a row with the reason and nothing of a device."""
    try:
        row: Row = ray.get(reference)
        return row
    except ray.exceptions.RayTaskError as error:
        reason = f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:  # its process or its node died
        reason = f"{type(error).__name__}: {error}"
    row = devices.unmeasured(
        task.case, splits, dataset, torch.device("cpu"), task.kind.threads(task.device), str(task.kind)
    )
    return replace(
        row,
        compute=task.device,
        reason=" ".join(reason.split()),
        device_name="",
        device_memory_mib=math.nan,
        cpu="",
        cpu_cores=task.kind.cpus,
        memory_gib=math.nan,
    )


def _complete(run_dir: RunDir) -> dict[str, Row]:
    """Complete rows by their task's key, from the record.  A line that is not whole is passed over."""
    found: dict[str, Row] = {}
    lines = run_dir.rows.read_text(encoding="utf-8", errors="replace").splitlines() if run_dir.rows.exists() else []
    for line in lines:
        try:
            said = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut by a crash
        if not set(rows.COLUMNS) <= said["row"].keys():
            continue  # of an earlier version, which knew less: it is measured again
        row = rows.from_record(said["row"])
        if row.complete:
            found[said["task"]] = row
    return found


def _check_same(run_dir: RunDir, document: dict[str, Any]) -> None:
    """Raise UsageError where the name is taken by a search, or by a benchmark that asked something else."""
    if run_dir.experiment.exists():
        raise UsageError(f"run {run_dir.name} is a search; give the benchmark another --name")
    if not _question(run_dir).exists():
        return
    try:
        before = json.loads(_question(run_dir).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{_question(run_dir)}: cannot be read ({error})") from error
    if different := differences(before, document):
        raise UsageError(
            f"run {run_dir.name} exists with another benchmark ({'; '.join(different)}); give this one another --name"
        )


def _question(run_dir: RunDir) -> Path:
    return run_dir.path / "benchmark.json"


def _facts(splits: Splits) -> dict[str, Any]:
    images = {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)}
    return {"data_sha256": splits.sha256, "images": images}

"""What a training takes of a card's or of main memory, measured on the cluster."""

from __future__ import annotations

from typing import Any

import ray

from models import TrainConfig
from profiling import ProfilingError
from profiling.fresh import Shape
from tune_jobs.errors import UsageError
from tune_jobs.requests import Probe
from tune_jobs.resources import Request, alive


def measure(config: TrainConfig, shape: Shape, asked: Request, kind: str) -> Probe:
    """Run the probe as a Ray task with what a trial would have, of a card all where a fraction is to be measured.

    Raises UsageError where no node has a GPU, or PyTorch finds none there, or the probe itself does not fit.
    """
    if asked.gpu == "auto" and not any(node.get("GPU", 0) >= 1 for node in alive(ray.nodes())):
        raise UsageError("resources.gpu: auto measures on a GPU, and no node of the cluster has one")
    try:
        probe: Probe = ray.get(task(asked, kind).remote(config, shape, asked))
        return probe
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if not isinstance(cause, ProfilingError | UsageError):
            raise
        words = str(cause).strip().splitlines()[-1]
        raise UsageError(f"resources: auto, probing {config.model}, batch size {config.batch_size}: {words}") from error


def task(asked: Request, kind: str) -> Any:
    """The probe for Ray, whose worker ends with it where it has a GPU, and the CUDA context with the worker.

    Ray sees to that where options are given here, and not where they are given to `.options`.
    """
    return ray.remote(**_options(asked, kind))(_probe)


def _options(asked: Request, kind: str) -> dict[str, Any]:
    """Ray's options of the task: it runs where a trial could."""
    options: dict[str, Any] = {"num_cpus": asked.cpu, "resources": dict(asked.custom)}
    if asked.gpu:
        options["num_gpus"] = 1 if asked.gpu == "auto" else asked.gpu
    if asked.gpu and kind:
        options["accelerator_type"] = kind
    return options


def _probe(config: TrainConfig, shape: Shape, asked: Request) -> Probe:
    import psutil
    import torch

    from profiling import memory
    from tune_jobs import trial  # noqa: F401 - what a trial's process has loaded
    from tune_jobs.device import CONTEXT_MIB

    own_mib = psutil.Process().memory_info().rss / 2**20
    if not asked.gpu or not torch.cuda.is_available():
        if asked.gpu == "auto":
            raise UsageError("the node has a GPU in Ray's books, but PyTorch finds none there")
        peak = memory.measure(config, shape, torch.device("cpu"), asked.threads, evaluation=True)
        return Probe(own_mib + peak.main_memory_mib)
    device = torch.device("cuda")
    peak = memory.measure(config, shape, device, asked.threads, evaluation=True)
    total_mib = torch.cuda.get_device_properties(device).total_memory / 2**20
    card_mib = max(peak.card_memory_mib, peak.reserved_memory_mib + CONTEXT_MIB)  # as `Place` will reckon
    return Probe(own_mib + peak.main_memory_mib, card_mib, total_mib, torch.cuda.get_device_name(device))

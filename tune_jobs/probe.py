"""What a training takes of a card's or of main memory, measured on the cluster."""

from __future__ import annotations

from typing import Any

import ray

from models import TrainConfig
from profiling import ProfilingError
from profiling.memory import Shape
from tune_jobs.errors import UsageError
from tune_jobs.requests import Probe
from tune_jobs.resources import Request, alive


def measure(config: TrainConfig, shape: Shape, asked: Request) -> Probe:
    """Run the probe as a Ray task that has a card to itself, or the CPUs that a trial would have.

    Raises UsageError where no node has a GPU, or PyTorch finds none there, or the probe itself does not fit.
    """
    gpu = asked.gpu == "auto"
    if gpu and not any(node.get("GPU", 0) >= 1 for node in alive(ray.nodes())):
        raise UsageError("resources.gpu: auto measures on a GPU, and no node of the cluster has one")
    options: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": asked.cpu}
    try:
        used, total, on = ray.get(ray.remote(_probe).options(**options).remote(config, shape, asked.threads, gpu))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if not isinstance(cause, ProfilingError | UsageError):
            raise
        words = str(cause).strip().splitlines()[-1]
        raise UsageError(f"resources: auto, probing {config.model}, batch size {config.batch_size}: {words}") from error
    return Probe(used, total, on)


def _probe(config: TrainConfig, shape: Shape, threads: int, gpu: bool) -> tuple[float, float, str]:
    import psutil
    import torch

    from profiling import memory

    if not gpu:
        peak = memory.measure(config, shape, torch.device("cpu"), threads)
        own = psutil.Process().memory_info().rss / 2**20  # of a Ray worker with PyTorch, which a trial's process is too
        return own + peak.peak_memory_mib, psutil.virtual_memory().total / 2**20, "CPU"
    if not torch.cuda.is_available():
        raise UsageError("the node has a GPU in Ray's books, but PyTorch finds none there")
    device = torch.device("cuda")
    peak = memory.measure(config, shape, device, threads)
    total = torch.cuda.get_device_properties(device).total_memory / 2**20
    return peak.card_memory_mib, total, torch.cuda.get_device_name(device)

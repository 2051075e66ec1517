"""How long a trial will take, from what has been measured before, or a guess that says so."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import models
from datasets import Splits
from models import TrainConfig
from models.precision import choose_precision
from profiling import ProfilingError
from profiling import rows as device_rows
from tune_jobs.cost import work_macs
from tune_jobs.errors import UsageError
from tune_jobs.resources import Request
from tune_jobs.results import damage, table
from tune_jobs.results.rundir import RunDir

GUESSED_MACS_PER_S = {"cpu": 1.5e10, "cuda": 5e11}
"""Where nothing like it was measured.  A core of a Zen 4 does about the first on ResNet-18 in batches of 16, in bf16;
the second is what an order of magnitude more kernels a second gives, and was not measured."""

Basis = Literal["measured", "scaled", "guess"]


@dataclass(frozen=True)
class Known:
    """One measured training."""

    model: str
    batch_size: int | None
    image_size: int
    kind: str
    """cpu, cuda or mps."""
    work_macs: float
    """By `cost.work_macs`."""
    seconds: float
    """The whole trial as the driver saw it, or training alone where that is all there is."""
    precision: str | None
    """That it trained in; None where that was not written down."""
    source: str
    """`run <name>` or `benchmark <name>`."""
    channels: int | None = None
    """Of the images; None where that was not written down, as for `threads`."""
    threads: int | None = None
    layers: tuple[object, ...] | None = None
    """By `_layers`; None where that was not written down."""


@dataclass(frozen=True)
class Estimate:
    """How long one trial takes."""

    seconds: float
    basis: Basis
    """measured: the same model with the same layers, batch and image size, in the same precision on the same kind of
    device, on a CPU with as many threads, scaled by images and epochs alone.  scaled: another model, shape, precision
    or number of threads, by multiply-accumulates.  guess: nothing was measured."""
    sources: tuple[str, ...] = ()
    """The runs and benchmarks that it rests on; none for a guess."""


def known(storage: Path, cpu: str, splits: Splits) -> list[Known]:
    """What runs and benchmarks under the storage measured on this kind of CPU (GPUs: on any).

    A run that cannot be read is passed over: it can't tell anything.
    """
    found: list[Known] = []
    for path in sorted(storage.glob("*/trials.jsonl")):
        found += _of_run(path.parent, cpu, splits)
    for path in sorted(storage.glob("*/benchmark.parquet")):
        try:
            measured = device_rows.read(path)
        except ProfilingError:
            continue
        for row in measured:
            if row.complete and row.optimizer is not None and (row.kind != "cpu" or row.cpu == cpu):
                work = 3.0 * (row.macs or 0) * row.images
                seconds = row.train_time_ms / 1000
                name = f"benchmark {path.parent.name}"
                shape = row.batch_size, row.image_size
                of_model = {"model": row.model, "batch_size": row.batch_size}  # it has the layers of the defaults
                layers = _layers(of_model) if row.model in models.names() else None
                known_as = row.model, *shape, row.kind, work, seconds, row.precision, name
                found.append(Known(*known_as, threads=row.threads, layers=layers))
    return found


def _of_run(run: Path, cpu: str, splits: Splits) -> list[Known]:
    run_dir = RunDir(run)
    try:
        environment, experiment = run_dir.read_environment(), run_dir.read_experiment()
        trials = damage.read_whole(run_dir.ledger)
    except (OSError, UsageError):
        return []
    if environment.get("cpu") != cpu:
        return []
    images = environment.get("images", {}).get("train", 0)
    size = environment.get("image_size") or experiment.dataset.image_size or splits.image_size
    channels = environment.get("channels")
    found = []
    for row in table.rows(trials.values()):
        if row.state != "COMPLETE" or not row.wall_time_s > 0 or row.fused:  # whose time is that of several
            continue
        try:
            work, layers = work_macs(row.config, splits, images, size), _layers(row.config)
        except (ValueError, KeyError, TypeError):  # a config of another version, or facts that were damaged
            continue
        batch_size, kind = row.config.get("batch_size"), row.device or "cpu"
        model, name = row.config["model"], f"run {run.name}"
        seconds = row.wall_time_s if row.attempts == 1 else row.train_time_s  # the wall time is the last attempt's
        known_as = model, batch_size, size, kind, work, seconds, row.precision, name
        found.append(Known(*known_as, channels, row.threads, layers))
    return found


def estimate(point: Mapping[str, Any], request: Request, splits: Splits, measured: Sequence[Known]) -> Estimate:
    """How long a trial of this config takes on what it asks for."""
    kind = "cuda" if request.gpu and models.is_network(point["model"]) else "cpu"
    work = work_macs(point, splits)
    same = [one for one in measured if one.kind == kind and one.model == point["model"] and one.work_macs > 0]
    shape, layers = (point.get("batch_size"), splits.image_size, splits.channels), _layers(point)
    shaped = [
        one
        for one in same
        if (one.batch_size, one.image_size, one.channels or splits.channels) == shape and one.layers in (None, layers)
    ]
    precisions = _precisions(point, kind)
    alike = [
        one
        for one in shaped
        if (one.precision is None or one.precision in precisions)
        and (kind != "cpu" or one.threads in (None, request.threads) or not models.is_network(one.model))
    ]
    others = _networks(measured, kind, point)
    for candidates, basis in ((alike, "measured"), (shaped, "scaled"), (same, "scaled"), (others, "scaled")):
        if candidates:
            pace = statistics.median(one.seconds / one.work_macs for one in candidates)
            sources = tuple(dict.fromkeys(one.source for one in candidates))
            return Estimate(work * pace, "measured" if basis == "measured" else "scaled", sources)
    return Estimate(work / GUESSED_MACS_PER_S[kind], "guess")


def _layers(config: Mapping[str, Any]) -> tuple[object, ...] | None:
    """What tells a network's layers from those of others of its model; None of an svm, which has none."""
    if not models.is_network(config["model"]):
        return None
    return models.shape_key(TrainConfig(**config))


def _precisions(point: Mapping[str, Any], kind: str) -> frozenset[str]:
    """Those that the training may have on such a device; of a GPU it is not known which it will be."""
    if not models.is_network(point["model"]):
        return frozenset(("fp64",))
    default = TrainConfig(model=point["model"])
    return _of_amp(point.get("amp", default.amp), point.get("amp_dtype", default.amp_dtype), kind)


@functools.cache
def _of_amp(amp: bool, amp_dtype: Literal["auto", "bf16", "fp16"], kind: str) -> frozenset[str]:
    config = TrainConfig(model="mlp", amp=amp, amp_dtype=amp_dtype)
    if kind == "cpu":
        return frozenset((choose_precision(config, torch.device("cpu")),))
    if not amp:
        return frozenset(("fp32",))
    return frozenset(("bf16", "fp16")) if amp_dtype == "auto" else frozenset((amp_dtype,))


def _networks(measured: Iterable[Known], kind: str, point: Mapping[str, Any]) -> list[Known]:
    """Other networks for a network; an svm's time says nothing of them, nor theirs of it."""
    if not models.is_network(point["model"]):
        return []
    return [one for one in measured if one.kind == kind and models.is_network(one.model) and one.work_macs > 0]

"""What each trial of an experiment asks for, with `auto` measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import models
from models import TrainConfig
from profiling.memory import Shape
from tune_jobs.errors import UsageError
from tune_jobs.resources import Request, Resources
from tune_jobs.results.rundir import write_text
from tune_jobs.space import Point, Space

MARGIN = 1.1
"""Of what the probe saw: evaluation runs in larger batches, and allocators round up."""
STEP = 100
"""Fractions of a card are rounded up to hundredths of it."""


@dataclass(frozen=True)
class Probe:
    """What a few training steps took, on one kind of card or, for main memory, on one node."""

    used_mib: float
    """On a card with the CUDA context and the allocator's reserve; of main memory the whole process."""
    total_mib: float
    """What the card, or the node, has."""
    on: str
    """The card's name, or `CPU`."""


Measure = Callable[[TrainConfig, Shape, Request], Probe]
"""Runs the probe where the request (with a whole GPU for `gpu: auto`) can be served.  Raises UsageError."""


class Requests:
    """Config -> the request of its trial."""

    def __init__(
        self, resources: Resources, space: Space, shape: Shape, cache: Path | None = None, data_mib: float = 0.0
    ) -> None:
        """`data_mib` is what the images take on a card, where they lie there from the start.

        `cache` keeps what was measured, for each kind of card and version of PyTorch; one file in the home by default.
        """
        self._resources = resources
        self._shape = shape
        self._points = space.shapes()
        self._data_mib = data_mib
        self.cards = ""
        """The kinds of cards that the cluster has, as Ray calls them: what was measured on others does not count."""
        self._probes: dict[str, Probe] = {}
        self._cache = cache or Path("~/.cache/tune_jobs/memory.json").expanduser()

    def of(self, config: Mapping[str, Any]) -> Request:
        """What a trial of this config asks for.  Raises UsageError where that was never measured.

        Of a batch size between those that were probed, the one of the largest probed for its model.
        """
        asked = self._resources.of(config["model"])
        if asked.measured:
            return asked
        if not models.is_network(config["model"]):
            return _of_svm(asked)
        probes = self._probes.get(self._key(config, asked))
        if probes is None:
            own = [self._probes.get(self._key(point, asked)) for point in self._points_of(config["model"])]
            known = [probe for probe in own if probe is not None]
            if not known:
                raise UsageError(f"resources: what {config['model']} needs was not measured yet")
            probes = max(known, key=lambda probe: probe.used_mib)
        return _filled(asked, probes, self._resident_mib(config))

    def distinct(self) -> list[Request]:
        """The different requests that trials of the space make."""
        return list({str(request): request for request in map(self.of, self._points)}.values())

    def unmeasured(self) -> list[Point]:
        """A point for each distinct probe that is still to be run."""
        if not all(self._resources.of(point["model"]).measured for point in self._points):
            self._load()
        missing: dict[str, Point] = {}
        for point in self._points:
            asked = self._resources.of(point["model"])
            key = self._key(point, asked)
            if not asked.measured and models.is_network(point["model"]) and key not in self._probes:
                missing[key] = point
        return list(missing.values())

    def measure(self, run: Measure, say: Callable[[str], None]) -> None:
        """Run the probes that are missing, say what each gave, and keep it."""
        for point in self.unmeasured():
            asked = self._resources.of(point["model"])
            probe = run(_heaviest(point), self._shape, asked)
            self._probes[self._key(point, asked)] = probe
            self._save()
            got = _filled(asked, probe, self._resident_mib(point))
            say(
                f"measured: {_words(point)} takes {probe.used_mib:.0f} of {probe.total_mib:.0f} MiB on {probe.on}, "
                f"so it asks for {got}"
            )

    def _key(self, point: Mapping[str, Any], asked: Request) -> str:
        return _key(point, self._shape, asked, self.cards)

    def _resident_mib(self, config: Mapping[str, Any]) -> float:
        """The probe trains on a few images; a trial may have all of them on the card."""
        return 0.0 if config.get("input") == "stream" else self._data_mib

    def _points_of(self, model: str) -> list[Point]:
        return [point for point in self._points if point["model"] == model]

    def _load(self) -> None:
        if self._cache.exists():
            try:
                stored = json.loads(self._cache.read_text(encoding="utf-8"))
                self._probes |= {key: Probe(**probe) for key, probe in stored.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise UsageError(f"{self._cache}: is damaged ({error}); remove it, and it is measured again") from error

    def _save(self) -> None:
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._cache, json.dumps({key: asdict(probe) for key, probe in self._probes.items()}, indent=1))


def at_least(resources: Resources, space: Space) -> list[Request]:
    """What the models of the space ask for before anything is measured: of a card that is to be measured, all of it."""
    asked = map(resources.of, space.models())
    return [
        request.model_copy(
            update={
                "gpu": 1.0 if request.gpu == "auto" else request.gpu,
                "memory_mib": None if request.memory_mib == "auto" else request.memory_mib,
            }
        )
        for request in asked
    ]


def _heaviest(point: Mapping[str, Any]) -> TrainConfig:
    """The config probed: with adam, whose state is the largest of the optimizers'."""
    return TrainConfig(**point).model_copy(update={"optimizer": "adam", "epochs": 1})


def _key(point: Mapping[str, Any], shape: Shape, asked: Request, cards: str) -> str:
    """Equal for configs that take the same memory: model with its own fields, batch, precision, images, threads."""
    import torch

    config = TrainConfig(**point)
    own = [config.batch_size, config.amp, config.amp_dtype, *models.shape_key(config)]
    where = f"gpu {cards}" if asked.gpu == "auto" else f"memory {asked.threads}"
    return json.dumps([where, *own, *asdict(shape).values(), torch.__version__])


def _filled(asked: Request, probe: Probe, data_mib: float) -> Request:
    """The request with what was measured in place of auto."""
    if asked.gpu == "auto":
        fraction = math.ceil((probe.used_mib + data_mib) * MARGIN / probe.total_mib * STEP) / STEP
        return asked.model_copy(update={"gpu": min(1.0, fraction)})
    return asked.model_copy(update={"memory_mib": float(math.ceil(probe.used_mib * MARGIN))})


def _of_svm(asked: Request) -> Request:
    """An svm computes on the CPU; what main memory libsvm takes is not probed."""
    if asked.memory_mib == "auto":
        raise UsageError("resources.memory_mib: auto is for networks; give svm its own under by_model")
    return asked.model_copy(update={"gpu": 0.0})


def _words(point: Mapping[str, Any]) -> str:
    return f"{point['model']}, batch size {point['batch_size']}"

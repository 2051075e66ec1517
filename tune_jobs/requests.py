"""What each trial of an experiment asks for, with `auto` measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import models
from datasets import DataError, Splits, cache
from models import TrainConfig
from profiling.fresh import Shape
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment
from tune_jobs.resources import MIB, Request, Resources
from tune_jobs.results.rundir import write_text
from tune_jobs.space import Point, Space

PROBE = 3
"""Raised whenever the probe takes another amount of memory: what was measured before does not count then."""
MARGIN = 1.1
"""Of what the probe saw: allocators round up, and a longer training leaves more holes in what they took."""
STEP = 100
"""Fractions of a card are rounded up to hundredths of it."""


@dataclass(frozen=True)
class Probe:
    """What a few training steps took, on one kind of card or on a CPU."""

    main_mib: float
    """Of main memory: a trial's whole process without its images."""
    card_mib: float = 0.0
    """Of the card, with the CUDA context and the allocator's reserve; 0 on a CPU."""
    total_mib: float = 0.0
    """What the card has; 0 on a CPU."""
    on: str = "CPU"
    """The card's name, or `CPU`."""


Measure = Callable[[TrainConfig, Shape, Request, str], Probe]
"""Runs the probe where the request (with a whole GPU for `gpu: auto`) can be served, on a card of this kind, as Ray
calls it; empty for any.  Raises UsageError."""


class Requests:
    """Config -> the request of its trial."""

    def __init__(
        self, resources: Resources, space: Space, shape: Shape, cache: Path | None = None, data_mib: float = 0.0
    ) -> None:
        """`data_mib` is what the images take: in main memory, and on a card where they lie there from the start.

        `cache` keeps what was measured, for each kind of card and version of PyTorch; one file in the user's cache
        folder by default.  Where it cannot be read or written, the same is measured again the next time.
        """
        self._resources = resources
        self._shape = shape
        self._points = space.shapes()
        self._data_mib = data_mib
        self.cards: Sequence[str] = ("",)
        """The kinds of cards that the cluster has, as Ray calls them, at least one: a trial may come to any of them, so
        that each is measured, and the largest fraction asked for."""
        self._probes: dict[str, Probe] = {}
        self._cache = cache or _users_cache()
        self._trouble = ""
        """Why the cache is not used."""

    def of(self, config: Mapping[str, Any]) -> Request:
        """What a trial of this config asks for.  Raises UsageError where that was never measured.

        Of a batch size between those that were probed, the one of the largest probed for its model.
        """
        asked = self._resources.of(config["model"])
        if asked.measured:
            return asked
        if not models.is_network(config["model"]):
            return _of_svm(asked)
        probes = self._known(config, asked)
        if not probes:
            probes = [probe for point in self._points_of(config["model"]) for probe in self._known(point, asked)]
        if not probes:
            raise UsageError(f"resources: what {config['model']} needs was not measured yet")
        return self._filled(asked, probes, config)

    def distinct(self) -> list[Request]:
        """The different requests that trials of the space make."""
        return list({str(request): request for request in map(self.of, self._points)}.values())

    def unmeasured(self) -> list[tuple[Point, str]]:
        """A point and a kind of card for each distinct probe that is still to be run."""
        if not all(self._resources.of(point["model"]).measured for point in self._points):
            self._load()
        missing: dict[str, tuple[Point, str]] = {}
        for point in self._points:
            asked = self._resources.of(point["model"])
            if asked.measured or not models.is_network(point["model"]):
                continue
            for kind in self._kinds(asked):
                key = _key(point, self._shape, asked, kind)
                if key not in self._probes:
                    missing[key] = point, kind
        return list(missing.values())

    def measure(self, run: Measure, say: Callable[[str], None]) -> None:
        """Run the probes that are missing, say what each gave, and keep it."""
        for point, kind in self.unmeasured():
            asked = self._resources.of(point["model"])
            probe = run(_heaviest(point), self._shape, asked, kind)
            self._probes[_key(point, self._shape, asked, kind)] = probe
            self._save()
            got = self._filled(asked, self._known(point, asked), point)
            say(f"measured: {_words(point)} takes {_taken(asked, probe)}, so it asks for {got}")
        if self._trouble:
            say(f"note: what was measured is not kept ({self._trouble})")
            self._trouble = ""

    def _kinds(self, asked: Request) -> Sequence[str]:
        return self.cards if asked.gpu else ("",)

    def _known(self, point: Mapping[str, Any], asked: Request) -> list[Probe]:
        """What was measured of this shape, on each kind of card."""
        found = [self._probes.get(_key(point, self._shape, asked, kind)) for kind in self._kinds(asked)]
        return [probe for probe in found if probe is not None]

    def _filled(self, asked: Request, probes: Sequence[Probe], config: Mapping[str, Any]) -> Request:
        """The request with the most that was measured in place of auto.

        The probe trains on a few images; a trial has all of them in main memory, and may have them on the card.
        """
        measured: dict[str, float] = {}
        if asked.gpu == "auto":
            on_card_mib = 0.0 if config.get("input") == "stream" else self._data_mib
            fraction = max((probe.card_mib + on_card_mib) * MARGIN / probe.total_mib for probe in probes)
            measured["gpu"] = min(1.0, math.ceil(fraction * STEP) / STEP)
        if asked.memory_mib == "auto":
            main_mib = max(probe.main_mib for probe in probes) + self._data_mib
            measured["memory_mib"] = float(math.ceil(main_mib * MARGIN))
        return asked.model_copy(update=measured)

    def _points_of(self, model: str) -> list[Point]:
        return [point for point in self._points if point["model"] == model]

    def _load(self) -> None:
        if self._cache is None:
            return
        try:
            stored = json.loads(self._cache.read_text(encoding="utf-8"))
            self._probes |= {key: Probe(**probe) for key, probe in stored.items()}
        except FileNotFoundError:
            return
        except OSError as error:
            self._trouble = f"{self._cache}: {error.strerror}"
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{self._cache}: is damaged ({error}); remove it, and it is measured again") from error

    def _save(self) -> None:
        if self._cache is None:
            self._trouble = "there is no home folder"
            return
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._cache, json.dumps({key: asdict(probe) for key, probe in self._probes.items()}, indent=1))
        except OSError as error:
            self._trouble = f"{error.filename or self._cache}: {error.strerror}"


def _users_cache() -> Path | None:
    """None for who has no home."""
    try:
        return cache.folder() / "probes.json"
    except DataError:
        return None


def requests_of(experiment: Experiment, space: Space, splits: Splits) -> Requests:
    """What the trials ask for, as far as it can be told without a cluster."""
    shape = Shape(splits.channels, len(splits.classes), splits.image_size)
    data_mib = sum(part.images.nbytes for part in (splits.train, splits.val, splits.test)) / MIB
    return Requests(experiment.resources, space, shape, data_mib=data_mib)


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
    """The config probed, with what takes most memory of all that is not in `_key`: adam's state, weight decay's
    gradients of dead taps, an augmentation, and a CUDA graph, which keeps memory of its own."""
    most = {
        "optimizer": "adam",
        "weight_decay": 1e-4,
        "augment": "rotate_shift",
        "input": "resident",
        "deterministic": False,
    }
    return TrainConfig(**point).model_copy(update=most)


def _key(point: Mapping[str, Any], shape: Shape, asked: Request, kind: str) -> str:
    """Equal for configs that take the same memory: model with its own fields, batch, precision, images, threads.

    On a CPU with the precision that this one would take, for all nodes.
    """
    import torch

    from models.precision import choose_precision

    config = TrainConfig(**point)
    own = [config.batch_size, config.amp, config.amp_dtype, *models.shape_key(config)]
    on_cpu = [asked.threads, choose_precision(config, torch.device("cpu"))] if not asked.gpu else []
    where = f"gpu {kind}" if asked.gpu else "cpu"
    return json.dumps([PROBE, where, *on_cpu, *own, *asdict(shape).values(), torch.__version__])


def _taken(asked: Request, probe: Probe) -> str:
    """What was measured of what was to be, in words."""
    card = [f"{probe.card_mib:.0f} of {probe.total_mib:.0f} MiB on {probe.on}"] if asked.gpu == "auto" else []
    main = [f"{probe.main_mib:.0f} MiB of main memory"] if asked.memory_mib == "auto" else []
    return " and ".join(card + main)


def _of_svm(asked: Request) -> Request:
    """An svm computes on the CPU; what main memory libsvm takes is not probed."""
    if asked.memory_mib == "auto":
        raise UsageError("resources.memory_mib: auto is for networks; give svm its own under by_model")
    return asked.model_copy(update={"gpu": 0.0})


def _words(point: Mapping[str, Any]) -> str:
    return f"{point['model']}, batch size {point['batch_size']}"

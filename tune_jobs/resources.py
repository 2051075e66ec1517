"""What a trial asks of the cluster, and whether any node can give it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema, field_validator

import models
from datasets.config import refuse_truth_values
from tune_jobs.errors import UsageError

FINEST = 0.0001
"""Ray counts resources in steps of this."""
MIB = 2**20


def _check_gpu(value: object) -> float | str:
    if value == "auto":
        return "auto"
    allowed = f"auto, a fraction of one GPU from {FINEST} to 1 in steps of {FINEST}, or a whole number of GPUs"
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e6:
        raise ValueError(allowed)
    if (value > 1 and value != int(value)) or abs(value / FINEST - round(value / FINEST)) > 1e-6:
        raise ValueError(allowed)
    return float(value)


def _check_memory(value: object) -> float | str:
    if value == "auto":
        return "auto"
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= 1e9:
        raise ValueError("auto, or a number of MiB of at least 1")
    return float(value)


def _check_fuse(value: object) -> object:
    if value is True or value is False or value == "auto":
        return value
    raise ValueError("true, false or auto")


_AUTO = {"const": "auto"}
_GPU_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "integer", "minimum": 0, "maximum": 1e6},
            _AUTO,
        ]
    }
)
_MEMORY_SCHEMA = WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "maximum": 1e9}, _AUTO]})
_AS_IT_IS = PlainSerializer(lambda value: value)
Cpu = Annotated[float, Field(ge=FINEST, le=1e6, multiple_of=FINEST)]
Gpu = Annotated[float | Literal["auto"], PlainValidator(_check_gpu), _AS_IT_IS, _GPU_SCHEMA]
Memory = Annotated[float | Literal["auto"], PlainValidator(_check_memory), _AS_IT_IS, _MEMORY_SCHEMA]
Fuse = Annotated[
    bool | Literal["auto"],
    PlainValidator(_check_fuse),
    PlainSerializer(lambda value: value),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": "auto"}]}),
]
Custom = dict[str, Annotated[float, Field(gt=0, le=1e9, multiple_of=FINEST)]]


class Request(BaseModel):
    """One trial's request."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    _numbers = field_validator("cpu", "gpu", "memory_mib", "custom", mode="before")(refuse_truth_values)

    cpu: Cpu = 1
    """CPU cores; the trial computes with as many threads (at least one)."""
    gpu: Gpu = 0
    """A fraction of one GPU, or whole GPUs, of which a trial trains on the first; 0 trains on the CPU; auto measures
    the fraction that a trial needs."""
    memory_mib: Memory | None = None
    """MiB of main memory that Ray keeps for the trial; null counts none; auto measures it."""
    custom: Custom = {}
    """Custom resources of the Ray cluster: name -> amount."""

    @field_validator("custom")
    @classmethod
    def _check_custom(cls, value: Custom) -> Custom:
        for name in value:
            if name in _RAYS_OWN:
                raise ValueError(f"{name!r} is no custom resource; give cpu, gpu or memory_mib")
        return value

    @property
    def threads(self) -> int:
        return max(1, int(self.cpu))

    @property
    def shares(self) -> bool:
        """Whether others may compute on the same card, or for want of one on the same core; auto is yet to show it."""
        if self.gpu == "auto":
            return True
        return self.gpu < 1 if self.gpu else self.cpu < 1

    @property
    def measured(self) -> bool:
        """Whether every amount is a number: none is left to be measured."""
        return "auto" not in (self.gpu, self.memory_mib)

    def bundle(self) -> dict[str, float]:
        """As Ray is asked for it: resource -> amount, memory in bytes.  Only where `measured`."""
        asked = {"CPU": self.cpu} | self.custom
        if self.gpu:
            asked["GPU"] = _number(self.gpu)
        if self.memory_mib is not None:
            asked["memory"] = float(int(_number(self.memory_mib) * MIB))
        return asked

    def __str__(self) -> str:
        parts = [f"cpu {_amount(self.cpu)}"]
        parts += [f"gpu {_amount(self.gpu)}"] if self.gpu else []
        parts += [f"memory {_amount(self.memory_mib)} MiB"] if self.memory_mib is not None else []
        return ", ".join([*parts, *(f"{name} {_amount(amount)}" for name, amount in self.custom.items())])


_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")


def _number(amount: float | str) -> float:
    assert not isinstance(amount, str), "an amount that was never measured"
    return amount


def _amount(amount: float | str) -> str:
    return amount if isinstance(amount, str) else f"{amount:.10g}"


class Override(BaseModel):
    """What one model asks for instead; null leaves the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    _numbers = field_validator("*", mode="before")(refuse_truth_values)

    cpu: Cpu | None = None
    """CPU cores."""
    gpu: Gpu | None = None
    """A fraction of one GPU, whole GPUs, 0 or auto."""
    memory_mib: Memory | None = None
    """Main memory, or auto."""
    custom: Custom | None = None
    """Custom resources, in place of all those of the other models."""


class Resources(Request):
    """The `resources:` section: a request for every trial, and exceptions by model."""

    by_model: dict[str, Override] = {}
    """What trials of one model ask for instead, as `svm: {gpu: 0}`; what is left out or null is as for the others."""
    fuse: Fuse = False
    """Whether trials of small models of one shape that share a card (gpu below 1), or without one a core (cpu below
    1), are trained as one, in one process; auto measures where that is faster."""

    @field_validator("by_model")
    @classmethod
    def _check_models(cls, value: dict[str, Override]) -> dict[str, Override]:
        for name in value:
            if name not in models.names():
                raise ValueError(f"{name!r} is not a model; there are {', '.join(models.names())}")
        return value

    def of(self, model: str) -> Request:
        """What a trial of this model asks for."""
        asked = self.model_dump(exclude={"by_model", "fuse"})
        if model in self.by_model:
            asked |= self.by_model[model].model_dump(exclude_none=True)
        return Request(**asked)


def alive(nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """The resources of the nodes that live; `nodes` as `ray.nodes()` gives them."""
    return [node["Resources"] for node in nodes if node["Alive"]]


def card_kinds(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The kinds of GPUs that living nodes have, as Ray calls them; one empty name where Ray has none for them."""
    return sorted({_card_kind(node) for node in alive(nodes) if node.get("GPU")}) or [""]


def _card_kind(node: Mapping[str, float]) -> str:
    """Ray has at most one kind of accelerator on a node."""
    return next((name.partition(":")[2] for name in node if name.startswith("accelerator_type:")), "")


def fits(request: Request, resources: Mapping[str, float]) -> int:
    """How many such trials run at once on a node with these resources, empty as it is.

    A fraction of a GPU is one of a single card: two thirds of a card do not fit on two halves.
    """
    asked = request.bundle()
    if any(resources.get(name, 0) < amount for name, amount in asked.items()):
        return 0
    counts = [int(resources[name] / amount + 1e-9) for name, amount in asked.items() if name != "GPU"]
    if "GPU" in asked:
        gpu = asked["GPU"]
        counts.append(int(resources["GPU"] * int(1 / gpu + 1e-9) + 1e-9 if gpu <= 1 else resources["GPU"] / gpu))
    return min(counts)


def slots(request: Request, nodes: Iterable[Mapping[str, Any]]) -> int:
    """How many trials with this request run at once on these nodes, empty as they are; at least one."""
    return max(1, sum(fits(request, node) for node in alive(nodes)))


def unservable(requests: Iterable[Request], nodes: Sequence[Mapping[str, Any]]) -> list[Request]:
    """The distinct requests that no node could ever serve: Ray would wait for them for ever."""
    distinct = {str(request): request for request in requests}
    return [request for request in distinct.values() if not any(fits(request, node) for node in alive(nodes))]


def check_servable(requests: Iterable[Request], nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError for a request that no node could ever serve: what was asked, what there is, what would fit.

    `nodes` as `ray.nodes()` gives them.
    """
    for request in unservable(requests, nodes):
        have = "; ".join(in_words(node) for node in alive(nodes)) or "none is alive"
        raise UsageError(
            f"resources: a trial asks for {request}, which no node can serve (nodes have: {have})"
            f"{_would_fit(request, nodes)}"
        )


def in_words(node: Mapping[str, float]) -> str:
    """A node's resources, as a request is written."""
    kind = f" ({_card_kind(node)})" if node.get("GPU") and _card_kind(node) else ""
    parts = [f"cpu {node.get('CPU', 0):g}, gpu {node.get('GPU', 0):g}{kind}"]
    parts += [f"memory {node['memory'] / MIB:.0f} MiB"] if "memory" in node else []
    own = [name for name in node if name not in _RAYS_OWN and ":" not in name]
    return ", ".join([*parts, *(f"{name} {node[name]:g}" for name in own)])


def _would_fit(request: Request, nodes: Iterable[Mapping[str, Any]]) -> str:
    """The same request cut down to each node's size, for the one that can give most of it."""
    asked = request.bundle()
    candidates = [{name: min(amount, node.get(name, 0)) for name, amount in asked.items()} for node in alive(nodes)]
    candidates = [given for given in candidates if given["CPU"] >= FINEST]
    if not candidates:
        return ""
    most = max(candidates, key=lambda given: sum(given[name] / amount for name, amount in asked.items()))
    fit = Request(
        cpu=most["CPU"],
        gpu=most.get("GPU", 0),
        memory_mib=most.get("memory", 0) // MIB or None,
        custom={name: most[name] for name in request.custom if most[name]},
    )
    return f"; {fit} would fit"


def grown(request: Request, nodes: Sequence[Mapping[str, Any]], *, main_memory: bool) -> Request | None:
    """What a trial that ran out of memory asks for next: twice as much of the GPU, or of main memory where it has no
    GPU or it was main memory that ran out.

    A trial on a CPU that named no memory asks for twice its share by cores of the smallest node that fits it.
    None where that is no more than it had, or no node has it.
    """
    if request.gpu and not main_memory:
        gpu = _number(request.gpu)
        more = request.model_copy(update={"gpu": min(1.0, 2 * gpu) if gpu < 1 else gpu})
    elif request.memory_mib is not None:
        more = request.model_copy(update={"memory_mib": 2 * _number(request.memory_mib)})
    else:
        shares = [node["memory"] / node["CPU"] for node in alive(nodes) if fits(request, node) and "memory" in node]
        if not shares:
            return None
        more = request.model_copy(update={"memory_mib": float(int(2 * min(shares) * request.cpu / MIB))})
    return None if more == request or unservable([more], nodes) else more

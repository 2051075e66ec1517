"""What a trial asks of the cluster, and whether any node can give it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

import models
from tune_jobs.errors import UsageError


def _check_gpu(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError("a fraction up to 1 of one GPU, or a whole number of GPUs")
    return value


FINEST = 0.0001
"""Ray counts resources in steps of this."""
Cpu = Annotated[float, Field(ge=FINEST, le=1e6, multiple_of=FINEST)]
Gpu = Annotated[float, Field(ge=0, le=1e6, multiple_of=FINEST), AfterValidator(_check_gpu)]


class Request(BaseModel):
    """One trial's request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: Cpu = 1
    """CPU cores; the trial computes with as many threads (at least one)."""
    gpu: Gpu = 0
    """A fraction of one GPU, or whole GPUs; 0 trains on the CPU."""

    @property
    def threads(self) -> int:
        return max(1, int(self.cpu))

    def __str__(self) -> str:
        return f"cpu {self.cpu:g}" + (f", gpu {self.gpu:g}" if self.gpu else "")


class Override(BaseModel):
    """What one model asks for instead; null leaves the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: Cpu | None = None
    gpu: Gpu | None = None


class Resources(Request):
    """The `resources:` section: a request for every trial, and exceptions by model."""

    by_model: dict[str, Override] = {}
    """Model name -> what it asks for instead."""

    @field_validator("by_model")
    @classmethod
    def _check_models(cls, value: dict[str, Override]) -> dict[str, Override]:
        for name in value:
            if name not in models.names():
                raise ValueError(f"{name!r} is not a model; there are {', '.join(models.names())}")
        return value

    def of(self, model: str) -> Request:
        """What a trial of this model asks for."""
        asked = {"cpu": self.cpu, "gpu": self.gpu}
        if model in self.by_model:
            asked |= self.by_model[model].model_dump(exclude_none=True)
        return Request(**asked)


def slots(request: Request, nodes: Iterable[Mapping[str, Any]]) -> int:
    """How many trials with this request run at once on these nodes, empty as they are; at least one."""
    count = 0
    for node in nodes:
        if node["Alive"]:
            have = node["Resources"]
            fit = [have.get("CPU", 0) / request.cpu] + ([have.get("GPU", 0) / request.gpu] if request.gpu else [])
            count += int(min(fit))
    return max(1, count)


def check_servable(requests: Iterable[Request], nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise UsageError where no node could ever serve a request: Ray would wait for it for ever.

    `nodes` as `ray.nodes()` gives them.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    for request in dict.fromkeys(requests):
        if not any(node.get("CPU", 0) >= request.cpu and node.get("GPU", 0) >= request.gpu for node in alive):
            have = "; ".join(f"cpu {node.get('CPU', 0):g}, gpu {node.get('GPU', 0):g}" for node in alive)
            raise UsageError(f"resources: a trial asks for {request}, which no node can serve (nodes have: {have})")

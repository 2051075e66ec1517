"""Trials that share a card, or a core, and are of one shape are trained as one: `resources.fuse`.

The process that trains them is an actor beside their workers, made by the first that needs it, and ends by itself when
none does.  It asks Ray for nothing: it computes with what its trials' workers were given, which leave it alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from datasets import Splits
from models import TrainConfig, build
from models.checkpoint import State, seed_of
from models.result import Fitted
from models.training import Checkpoint, Report
from tune_jobs.resources import Fuse, Request, fits

if TYPE_CHECKING:
    from tune_jobs.fusing.fuser import Told

DEATHS = 2
"""After so many deaths of the process that trained it a trial is trained by its own worker."""
_NAMESPACE = "tune_jobs"
_JOIN_S = 20.0
"""So long is tried to come to one that does not end just then."""


class FuserLostError(RuntimeError):
    """The process that trained this trial, and others with it, has died."""


class TrialFuser:
    """A Fuser in a process of its own.  Its calls wait in an event loop: thousands may."""

    def __init__(self, splits: Sequence[Splits], request: Request, most: int, always: bool, cards: list[str]) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(cards)  # before PyTorch looks
        from tune_jobs.fusing.fuser import Fuser

        self._fuser = Fuser(splits, request, most, always)
        self._is_serving = False

    async def serve(self) -> None:
        """Returns at once where it serves already; else never, and the process ends with it."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            await asyncio.to_thread(self._fuser.serve)
        finally:
            ray.actor.exit_actor()

    async def join(self, config: TrainConfig, fold: int, pid: int, start: State | None) -> int | None:
        return self._fuser.join(config, fold, pid, start)

    async def next(self, ticket: int) -> Told:
        return await asyncio.wrap_future(self._fuser.next(ticket))

    async def state(self, ticket: int) -> State:
        return self._fuser.state(ticket)

    async def leave(self, ticket: int) -> None:
        self._fuser.leave(ticket)


class Fusing:
    """How the trials of one worker are trained together with those of others."""

    def __init__(self, request: Request, splits: Sequence[Splits], fold: int, folder: str, fuse: Fuse) -> None:
        """`folder`: of the run's checkpoints, which only its own trials have."""
        self._request, self._splits, self._fold = request, splits, fold
        self._always = fuse is True
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._cards: list[str] = context.get_accelerator_ids().get("GPU", []) if request.gpu else []
        place = [folder, context.get_job_id(), self._node, *self._cards]
        self._name = f"fuser-{hashlib.sha256(repr(place).encode()).hexdigest()[:16]}"

    def fit(self, config: TrainConfig, report: Report, checkpoint: Checkpoint, start: State | None) -> Fitted | None:
        """As `models.training.fit`; None where the trial is to be trained by its own worker.

        Raises FuserLostError besides.
        """
        if config.seed is None:
            seed = secrets.randbits(31) if start is None else seed_of(start)
            config = config.model_copy(update={"seed": seed})
        fuser, ticket = self._join(config, start)
        try:
            while True:
                told: Told = ray.get(fuser.next.remote(ticket))
                if told.alone:
                    return None
                if told.error is not None:
                    raise told.error
                assert told.metrics is not None
                if told.result is None:
                    checkpoint(told.metrics.epoch, lambda: ray.get(fuser.state.remote(ticket)))
                report(told.metrics)
                if told.result is not None:
                    return Fitted(self._model(config, told.weights or {}), told.result)
        except RayActorError as error:
            raise FuserLostError("the process that trained it with others has died") from error
        finally:
            fuser.leave.remote(ticket)

    def _join(self, config: TrainConfig, start: State | None) -> tuple[Any, int]:
        until_s = time.monotonic() + _JOIN_S
        while time.monotonic() < until_s:
            fuser = self._fuser()
            fuser.serve.remote()
            try:
                ticket = ray.get(fuser.join.remote(config, self._fold, os.getpid(), start))
            except RayActorError:
                ticket = None
            if ticket is not None:
                return fuser, ticket
            time.sleep(0.2)  # it is about to end; its name is free then
        raise FuserLostError("no process to train it with others could be started")

    def _fuser(self) -> Any:
        try:
            return ray.get_actor(self._name, _NAMESPACE)
        except ValueError:
            options = ray.remote(TrialFuser).options(
                name=self._name,
                namespace=_NAMESPACE,
                get_if_exists=True,
                lifetime="detached",  # or it would die with the worker that happens to have made it
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._node, soft=False),
            )
            return options.remote(self._splits, self._request, self._most(), self._always, self._cards)

    def _most(self) -> int:
        """How many trials with such a request share the device."""
        node = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == self._node)
        on_node = max(1, fits(self._request, node))
        assert self._request.gpu != "auto"
        return min(on_node, int(1 / self._request.gpu + 1e-9)) if self._request.gpu else on_node

    def _model(self, config: TrainConfig, weights: dict[str, Any]) -> Any:
        splits = self._splits[min(self._fold, len(self._splits) - 1)]
        model = build(config, splits.channels, len(splits.classes), splits.image_size)
        model.load_state_dict(weights)
        return model.eval()

"""Trials that share a card, or a core, and are of one shape are trained as one: `resources.fuse`.

The process that trains them is an actor beside their workers, made by the first that needs it, and ends by itself when
none does.  It asks Ray for nothing: it computes with what its trials' workers were given, which leave it alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, OutOfMemoryError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from datasets import Splits
from models import TrainConfig, build
from models.checkpoint import State, seed_of
from models.result import Fitted
from models.training import Checkpoint, Report
from tune_jobs.fusing.seats import Coming
from tune_jobs.resources import Fuse, Request, fits

if TYPE_CHECKING:
    from tune_jobs.fusing.seats import Told

DEATHS = 2
"""After so many deaths of the process that trained it a trial is trained by its own worker."""
_NAMESPACE = "tune_jobs"
_TRIES = 20
"""So often, once a second, is tried to come to one that does not end just then."""
_START_S = 300.0
"""So long a process may take to start, images and all."""
_LOOK_S = 5.0
_LOST = (RayActorError, OutOfMemoryError, ActorUnschedulableError)
"""How Ray says that an actor has died or cannot be: the second, that its monitor of main memory ended it."""
_ALONE: set[tuple[str, TrainConfig]] = set()
"""What is not fused where, as far as this worker was told; it takes one trial after another."""
_GIVEN_UP: set[str] = set()
"""Those that could not be started."""


class FuserLostError(RuntimeError):
    """The process that trained this trial, and others with it, has died."""


class AgainError(RuntimeError):
    """Those that were trained together did not fit into memory, and are to come again."""


class TrialFuser:
    """A Fuser in a process of its own.  Its calls wait in an event loop.

    It ends by itself, at once and with all that waits for it: when nobody is there, when something failed that is no
    trial's fault, and when it hangs.  Ray would have an actor that is asked to end wait for its calls.
    """

    def __init__(self, splits: Sequence[Splits], request: Request, always: bool, cards: list[str]) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(cards)  # before PyTorch looks
        from tune_jobs.fusing.fuser import Fuser

        self._fuser = Fuser(splits, request, always)
        self._self = ray.get_runtime_context().current_actor
        for work in (self._serve, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def _serve(self) -> None:
        try:
            self._fuser.serve()
        except BaseException:  # noqa: BLE001 - the process ends with it
            traceback.print_exc()  # into Ray's log of this worker
            sys.stderr.flush()
            os._exit(1)
        ray.kill(self._self)  # else the driver would be told that a worker has died
        time.sleep(_LOOK_S)
        os._exit(0)

    def _watch(self) -> None:
        while not self._fuser.hangs():
            time.sleep(_LOOK_S)
        sys.stderr.write("an epoch does not end\n")
        sys.stderr.flush()
        os._exit(1)

    async def join(self, coming: Coming) -> int | None:
        return self._fuser.join(coming)

    async def next(self, ticket: int) -> Told:
        return await asyncio.wrap_future(self._fuser.next(ticket))

    async def state(self, ticket: int) -> State:
        return await asyncio.to_thread(self._fuser.state, ticket)  # a copy off a card takes a while

    async def leave(self, ticket: int) -> None:
        self._fuser.leave(ticket)


class Fusing:
    """How the trials of one worker are trained together with those of others."""

    def __init__(self, request: Request, splits: Sequence[Splits], fold: int, folder: str, fuse: Fuse) -> None:
        """`folder`: of the run's checkpoints, which only its own trials have."""
        self._request, self._splits = request, splits
        self._part = min(fold, len(splits) - 1)
        self._always = fuse is True
        self._seed: int | None = None
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._cards: list[str] = context.get_accelerator_ids().get("GPU", []) if request.gpu else []
        place = [folder, context.get_job_id(), self._node, *self._cards]
        self._name = f"fuser-{hashlib.sha256(repr(place).encode()).hexdigest()[:16]}"

    def seeded(self, config: TrainConfig, start: State | None) -> TrainConfig:
        """The config with the seed that the trial has in all its attempts here."""
        if config.seed is not None:
            return config
        if start is not None:
            self._seed = seed_of(start)
        elif self._seed is None:
            self._seed = secrets.randbits(31)
        return config.model_copy(update={"seed": self._seed})

    def fit(self, config: TrainConfig, report: Report, checkpoint: Checkpoint, start: State | None) -> Fitted | None:
        """As `models.training.fit`; None where the trial is to be trained by its own worker.

        Raises AgainError where it is to be tried again from the last checkpoint, FuserLostError besides.
        """
        config = self.seeded(config, start)
        alike = config.model_copy(update=dict.fromkeys(("lr", "momentum", "weight_decay", "epochs", "seed"), 1))
        if (self._name, alike) in _ALONE or self._name in _GIVEN_UP:
            return None
        fuser, ticket = self._join(config, start)
        try:
            while True:
                told: Told = ray.get(fuser.next.remote(ticket))
                if told.alone:
                    if told.of_shape:
                        _ALONE.add((self._name, alike))
                    return None
                if told.again:
                    raise AgainError
                if told.error is not None:
                    raise told.error
                assert told.metrics is not None
                if told.result is None:
                    checkpoint(told.metrics.epoch, lambda: ray.get(fuser.state.remote(ticket)))
                report(told.metrics)
                if told.result is not None:
                    return Fitted(self._model(config, told.weights or {}), told.result)
        except _LOST as error:
            raise FuserLostError("the process that trained it with others has died") from error
        finally:
            fuser.leave.remote(ticket)

    def _join(self, config: TrainConfig, start: State | None) -> tuple[Any, int]:
        coming = Coming(
            config, self._part, start, self._request, self._most(), os.getpid(), psutil.Process().create_time()
        )
        for _ in range(_TRIES):
            try:
                fuser = self._fuser()
                ticket = ray.get(fuser.join.remote(coming), timeout=_START_S)
            except (*_LOST, ValueError) as error:  # the name is of one that has just died
                if isinstance(error, RayActorError) and error.actor_init_failed:
                    break  # it would fail again
                ticket = None
            except GetTimeoutError:
                break
            if ticket is not None:
                return fuser, ticket
            time.sleep(1)  # it is about to end; its name is free then
        _GIVEN_UP.add(self._name)
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
            return options.remote(self._splits, self._request, self._always, self._cards)

    def _most(self) -> int:
        """How many trials with such a request share the device."""
        node = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == self._node)
        on_node = max(1, fits(self._request, node))
        assert self._request.gpu != "auto"
        return min(on_node, int(1 / self._request.gpu + 1e-9)) if self._request.gpu else on_node

    def _model(self, config: TrainConfig, weights: dict[str, Any]) -> Any:
        splits = self._splits[self._part]
        model = build(config, splits.channels, len(splits.classes), splits.image_size)
        model.load_state_dict(weights)
        return model.eval()

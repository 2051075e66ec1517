"""What trains the trials that share a device as one: who is trained with whom, and who waits for whom.  No Ray here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import Any

import pytest
import torch

from datasets import DatasetConfig, Splits, load_splits
from datasets.config import SplitSizes
from models import ModelError, TrainConfig
from models.checkpoint import CheckpointError
from models.result import DivergedError, EpochMetrics
from models.stacked import Stack
from models.training import fit
from tune_jobs.fusing import fuser as fusers
from tune_jobs.fusing.fuser import Fuser, Told
from tune_jobs.resources import Request

CPU = torch.device("cpu")
SHARED = Request(cpu=0.25)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(DatasetConfig(name="digits", split=SplitSizes(train=60, val=20, test=20)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fusers, "SETTLE_S", 0.1)
    monkeypatch.setattr(fusers, "PATIENCE_S", 0.3)
    monkeypatch.setattr(fusers, "IDLE_S", 0.5)
    monkeypatch.setattr(fusers, "_LOOK_S", 0.02)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which a place on a CPU sets
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds of those that were trained together, one list an epoch of a stack."""
    seen: list[list[int]] = []

    class Noted(Stack):
        def epoch(self) -> list[EpochMetrics | DivergedError]:
            seen.append(sorted(member.config.seed or 0 for member in self.members))
            return super().epoch()

    monkeypatch.setattr(fusers, "Stack", Noted)
    return seen


class Served:
    """A Fuser with its thread."""

    def __init__(self, splits: Splits, most: int = 4, always: bool = True) -> None:
        self.fuser = Fuser([splits], SHARED, most, always)
        self.thread = threading.Thread(target=self.fuser.serve, daemon=True)
        self.thread.start()

    def join(self, pid: int | None = None, start: dict[str, Any] | None = None, **fields: Any) -> int:
        config = TrainConfig(**{"model": "mlp", "epochs": 2, "batch_size": 16, "amp": False} | fields)
        ticket = self.fuser.join(config, 0, os.getpid() if pid is None else pid, start)
        assert ticket is not None
        return ticket

    def next(self, ticket: int) -> Told:
        return self.fuser.next(ticket).result(timeout=30)

    def end(self) -> None:
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()


Serve = Callable[..., Served]


@pytest.fixture
def serve(splits: Splits) -> Iterator[Serve]:
    begun: list[Served] = []

    def one(**own: Any) -> Served:
        begun.append(Served(splits, **own))
        return begun[-1]

    yield one
    for served in begun:
        for ticket in list(served.fuser._seats):
            served.fuser.leave(ticket)
        served.end()


def waiting(served: Served, *tickets: int) -> list[Future[Told]]:
    return [served.fuser.next(ticket) for ticket in tickets]


def told(*futures: Future[Told]) -> list[Told]:
    return [future.result(timeout=30) for future in futures]


def test_trials_of_one_shape_are_trained_together_to_their_end(
    serve: Serve, splits: Splits, compositions: list[list[int]]
) -> None:
    served = serve()
    tickets = [served.join(seed=seed, lr=lr) for seed, lr in ((1, 1e-3), (2, 1e-2), (3, 3e-3))]
    first = told(*waiting(served, *tickets))
    assert [of.metrics.epoch for of in first if of.metrics] == [1, 1, 1]
    assert all(of.result is None and of.error is None and not of.alone for of in first)
    last = told(*waiting(served, *tickets))
    assert compositions == [[1, 2, 3]] * 2
    for ticket, of, seed, lr in zip(tickets, last, (1, 2, 3), (1e-3, 1e-2, 3e-3), strict=True):
        assert of.metrics is not None
        assert of.result is not None
        assert of.weights is not None
        wanted = fit(
            TrainConfig(model="mlp", epochs=2, batch_size=16, amp=False, seed=seed, lr=lr), splits, CPU, lambda _: None
        )
        assert of.metrics.epoch == 2
        assert (of.result.fused, of.result.seed) == (3, seed)
        assert of.result.val_loss == pytest.approx(wanted.result.val_loss, rel=1e-3)
        assert of.weights.keys() == wanted.model.state_dict().keys()
        served.fuser.leave(ticket)


def test_those_of_other_shapes_take_turns(serve: Serve, compositions: list[list[int]]) -> None:
    served = serve()
    tickets = [served.join(seed=seed, hidden_units=10 + seed % 2) for seed in (1, 2, 3, 4)]
    told(*waiting(served, *tickets))
    told(*waiting(served, *tickets))
    assert sorted(compositions[:2]) == sorted(compositions[2:]) == [[1, 3], [2, 4]]


def test_none_runs_ahead_of_what_its_company_has_reported(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusers, "PATIENCE_S", 60)
    served = serve()
    one, other = served.join(seed=1), served.join(seed=2)
    told(*waiting(served, one, other))
    (early,) = waiting(served, one)
    with pytest.raises(Late):
        early.result(timeout=0.5)
    assert all(of.result is not None for of in told(early, *waiting(served, other)))


def test_one_whose_worker_is_gone_silent_is_gone_on_without(serve: Serve, compositions: list[list[int]]) -> None:
    """A trial that a scheduler stopped, which nobody tells its worker.  Should it come back, it goes on."""
    served = serve()
    one, silent = served.join(seed=1, epochs=4), served.join(seed=2, epochs=4)
    told(*waiting(served, one, silent))
    told(*waiting(served, one))
    assert compositions == [[1, 2], [1]]
    both = told(*waiting(served, one, silent))
    assert [of.metrics.epoch for of in both if of.metrics] == [3, 2]
    assert [of.metrics.epoch for of in told(*waiting(served, one, silent)) if of.metrics] == [4, 3]
    assert compositions[2:] == [[1, 2], [1, 2]]


def test_one_that_leaves_is_gone_on_without_at_once(
    serve: Serve, compositions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusers, "PATIENCE_S", 60)
    served = serve()
    one, other = served.join(seed=1), served.join(seed=2)
    told(*waiting(served, one, other))
    served.fuser.leave(other)
    assert served.next(one).result is not None
    assert compositions == [[1, 2], [1]]


def test_one_whose_worker_has_died_is_gone_on_without_at_once(
    serve: Serve, compositions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusers, "PATIENCE_S", 60)
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    served = serve()
    one, other = served.join(seed=1), served.join(seed=2, pid=worker.pid)
    told(*waiting(served, one, other))
    worker.communicate()
    assert served.next(one).result is not None
    assert compositions == [[1, 2], [1]]


def test_those_that_come_together_wait_for_each_other(
    serve: Serve, compositions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until as many are there as share the device, or for a while."""
    monkeypatch.setattr(fusers, "SETTLE_S", 60)
    served = serve(most=3)
    early = waiting(served, *(served.join(seed=seed) for seed in (1, 2)))
    with pytest.raises(Late):
        early[0].result(timeout=0.5)
    told(*early, *waiting(served, served.join(seed=3)))
    assert compositions == [[1, 2, 3]]


def test_one_that_comes_later_is_trained_with_those_there(serve: Serve, compositions: list[list[int]]) -> None:
    served = serve()
    first = served.join(seed=1, epochs=3)
    told(*waiting(served, first))
    later = served.join(seed=2)
    told(*waiting(served, first, later))
    assert compositions == [[1], [1, 2]]


@pytest.mark.parametrize("fields", [{"model": "resnet18"}, {"model": "stabilized"}, {"deterministic": True}], ids=str)
def test_what_cannot_be_stacked_is_left_to_its_worker(serve: Serve, fields: dict[str, Any]) -> None:
    served = serve()
    assert served.next(served.join(**fields)) == Told(alone=True)


@pytest.mark.parametrize(("found", "alone"), [(1.0, True), (1.09, True), (1.1, False), (3.0, False)])
def test_where_it_is_to_be_faster_it_is_measured_once_a_shape(
    found: float, alone: bool, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def gain(config: TrainConfig, precision: str, images: object, trainings: int, at_once: int) -> float:
        asked.append((trainings, at_once))
        return found

    monkeypatch.setattr(fusers, "gain", gain)
    served = serve(most=8, always=False)
    tickets = [served.join(seed=seed) for seed in (1, 2)]
    assert [of.alone for of in told(*waiting(served, *tickets))] == [alone] * 2
    assert asked == [(8, 2)], "eight quarters of a core are two cores"


def test_a_state_goes_on_where_it_came_from(serve: Serve, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stack in a stack, whatever is faster; of a training alone, alone."""
    served = serve()
    ticket = served.join(seed=1, epochs=3)
    first = served.next(ticket)
    state = served.fuser.state(ticket)
    served.fuser.leave(ticket)
    monkeypatch.setattr(fusers, "gain", lambda *_: 0.0)
    other = serve(always=False)
    again = other.next(other.join(seed=1, epochs=3, start=state))
    assert first.metrics is not None
    assert again.metrics is not None
    assert (first.metrics.epoch, again.metrics.epoch) == (1, 2)

    states: list[dict[str, Any]] = []
    config = TrainConfig(model="mlp", epochs=3, batch_size=16, amp=False)
    fit(config, splits, CPU, lambda _: None, lambda _, of: states.append(of()))
    assert served.next(served.join(epochs=3, start=states[0])) == Told(alone=True)


def test_an_error_of_one_is_told_to_it_alone(serve: Serve, compositions: list[list[int]]) -> None:
    served = serve()
    ticket = served.join(seed=1, epochs=3)
    served.next(ticket)
    of_another = served.fuser.state(ticket)
    served.fuser.leave(ticket)
    compositions.clear()
    good, other, diverging, fp16 = (
        served.join(seed=5),
        served.join(seed=6, epochs=3, start=of_another),
        served.join(seed=7, optimizer="sgd", lr=1e30),
        served.join(seed=8, amp=True, amp_dtype="fp16"),
    )
    outcomes = told(*waiting(served, good, other, diverging, fp16))
    assert outcomes[0].metrics is not None
    assert [type(of.error) for of in outcomes] == [type(None), CheckpointError, DivergedError, ModelError]
    assert compositions == [[5, 7]]


def test_a_stack_that_does_not_fit_is_halved_and_goes_on_from_where_it_was(
    serve: Serve, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No epoch is lost or told twice."""
    seen: list[int] = []

    class Small(Stack):
        def epoch(self) -> list[EpochMetrics | DivergedError]:
            seen.append(len(self.members))
            outcomes = super().epoch()
            if len(self.members) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return outcomes

    served = serve()
    tickets = [served.join(seed=seed, epochs=3) for seed in (1, 2)]
    epochs = [told(*waiting(served, *tickets))]
    monkeypatch.setattr(fusers, "Stack", Small)
    tickets += [served.join(seed=seed, epochs=2) for seed in (3, 4)]
    epochs += [told(*waiting(served, *tickets)), told(*waiting(served, *tickets))]
    assert seen == [4, 2, 2, 2, 2]
    assert [[of.metrics.epoch for of in each if of.metrics] for each in epochs] == [[1, 1], [2, 2, 1, 1], [3, 3, 2, 2]]
    for of, seed in zip(epochs[-1], (1, 2, 3, 4), strict=True):
        config = TrainConfig(model="mlp", epochs=3 if seed < 3 else 2, batch_size=16, amp=False, seed=seed)
        assert of.result is not None
        assert of.result.val_loss == pytest.approx(fit(config, splits, CPU, lambda _: None).result.val_loss, rel=1e-3)


def test_a_single_one_that_does_not_fit_is_told_so(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(Stack):
        def epoch(self) -> list[EpochMetrics | DivergedError]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fusers, "Stack", Large)
    served = serve()
    assert [type(of.error) for of in told(*waiting(served, served.join(seed=1), served.join(seed=2)))] == [
        torch.OutOfMemoryError
    ] * 2


def test_it_ends_when_nobody_has_been_there_for_a_while(serve: Serve) -> None:
    served = serve()
    ticket = served.join(epochs=1)
    assert served.next(ticket).result is not None
    served.fuser.leave(ticket)
    served.end()
    assert served.fuser.join(TrainConfig(model="mlp"), 0, os.getpid(), None) is None

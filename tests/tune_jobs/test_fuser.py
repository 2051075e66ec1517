"""What trains the trials that share a device as one: who is trained with whom, and who waits for whom.  No Ray here."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import Any

import psutil
import pytest
import torch

from datasets import DatasetConfig, Splits, load_splits
from datasets.config import SplitSizes
from models import ModelError, TrainConfig
from models.checkpoint import CheckpointError, State
from models.result import DivergedError, EpochMetrics
from models.stacked import Stack
from models.training import fit
from tune_jobs.device import Place
from tune_jobs.fusing import fuser as fusers
from tune_jobs.fusing import seats
from tune_jobs.fusing.fuser import Fuser
from tune_jobs.fusing.seats import Coming, Told
from tune_jobs.resources import Request

CPU = torch.device("cpu")
SHARED = Request(cpu=0.25)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(DatasetConfig(name="digits", split=SplitSizes(train=60, val=20, test=20)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(seats, "SETTLE_S", 0.3)
    monkeypatch.setattr(seats, "PATIENCE_S", 1.0)
    monkeypatch.setattr(fusers, "IDLE_S", 60)
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
        self.fuser = Fuser([splits], SHARED, always)
        self.most = most
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.fuser.serve()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def join(self, worker: int | None = None, start: dict[str, Any] | None = None, **fields: Any) -> int:
        config = TrainConfig(**{"model": "mlp", "epochs": 2, "batch_size": 16, "amp": False} | fields)
        ticket = self.fuser.join(coming(config, self.most, worker, start))
        assert ticket is not None
        return ticket

    def next(self, ticket: int) -> Told:
        return self.fuser.next(ticket).result(timeout=30)

    def end(self) -> None:
        """Its patience is up."""
        fusers.IDLE_S = 0.1
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()


def coming(config: TrainConfig, most: int = 4, worker: int | None = None, start: State | None = None) -> Coming:
    process = psutil.Process(worker)
    return Coming(config, 0, start, SHARED, most, process.pid, process.create_time())


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
    monkeypatch.setattr(seats, "PATIENCE_S", 60)
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


@pytest.mark.parametrize("end", ["leaves", "dies"])
def test_one_that_leaves_or_whose_worker_has_died_is_gone_on_without_at_once(
    end: str, serve: Serve, compositions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "PATIENCE_S", 60)
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    served = serve()
    one, other = served.join(seed=1), served.join(seed=2, worker=worker.pid)
    told(*waiting(served, one, other))
    if end == "leaves":
        served.fuser.leave(other)
    else:
        worker.communicate()
    assert served.next(one).result is not None
    assert compositions == [[1, 2], [1]]
    worker.communicate()


def test_those_that_come_together_wait_for_each_other(
    serve: Serve, compositions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until as many are there as share the device, or for a while."""
    monkeypatch.setattr(seats, "SETTLE_S", 60)
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
    assert served.next(served.join(**fields)) == Told(alone=True, of_shape=True)


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


def test_a_stack_that_does_not_fit_comes_again_in_parts(
    serve: Serve, compositions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same ones stay together: with others a stack would have to be made anew for each epoch."""

    class Small(Stack):
        def epoch(self) -> list[EpochMetrics | DivergedError]:
            compositions.append(sorted(member.config.seed or 0 for member in self.members))
            outcomes = super().epoch()
            if len(self.members) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return outcomes

    monkeypatch.setattr(fusers, "Stack", Small)
    served = serve(most=5)
    tickets = [served.join(seed=seed) for seed in range(1, 6)]
    assert told(*waiting(served, *tickets)) == [Told(again=True)] * 5
    for ticket in tickets:
        served.fuser.leave(ticket)
    tickets = [served.join(seed=seed) for seed in range(1, 6)]
    for epoch in (1, 2):
        found = told(*waiting(served, *tickets))
        assert [of.metrics.epoch for of in found if of.metrics] == [epoch] * 5
    assert compositions == [[1, 2, 3, 4, 5], [1, 2, 3], [4, 5], [1, 2, 3], [4, 5]]
    assert len(served.fuser._stacks) == 2


def test_a_single_one_that_does_not_fit_is_left_to_its_worker(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside others that may fill the card; its own share is its own."""

    class Large(Stack):
        def epoch(self) -> list[EpochMetrics | DivergedError]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fusers, "Stack", Large)
    served = serve()
    assert served.next(served.join()) == Told(alone=True)


@pytest.mark.parametrize("what", ["gain", "Member"])
def test_one_that_does_not_fit_before_it_is_trained_is_left_to_its_worker(
    what: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fusers, what, full)
    served = serve(always=what != "gain")
    assert served.next(served.join()) == Told(alone=True, of_shape=what == "gain")


@pytest.mark.parametrize("what", ["gain", "Member", "Stack"])
def test_what_is_no_trials_fault_ends_it(what: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told: their calls end with the process, and another is begun."""

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(fusers, what, broken)
    served = serve(always=what != "gain")
    waits = served.fuser.next(served.join())
    served.end()
    assert "illegal memory access" in str(served.error)
    assert not waits.done()


def test_an_epoch_that_does_not_end_after_a_worker_was_ended_hangs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one is that takes longer than a trial may."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Stack):
        def epoch(self) -> list[EpochMetrics | DivergedError]:
            begun.set()
            assert go_on.wait(30)
            return super().epoch()

    monkeypatch.setattr(fusers, "Stack", Slow)
    monkeypatch.setattr(fusers, "HUNG_S", 0.1)
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    served = serve()
    assert not served.fuser.hangs()
    served.fuser.next(served.join(seed=1, worker=worker.pid))
    assert begun.wait(30)
    assert not served.fuser.hangs()
    worker.communicate()
    served.fuser.hangs()
    time.sleep(0.2)
    assert served.fuser.hangs()
    go_on.set()
    served.end()
    assert not served.fuser.hangs()


def test_a_process_of_the_same_number_is_not_the_worker() -> None:
    own = coming(TrainConfig(model="mlp"))
    assert own.is_there()
    assert not dataclasses.replace(own, born_s=own.born_s - 3600).is_there()


def test_what_it_takes_of_the_device_is_what_those_here_were_given(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it lets go of the images when none is here."""
    shares: list[float] = []
    monkeypatch.setattr(Place, "share", lambda _, requests: shares.append(sum(one.cpu for one in requests)))
    served = serve()
    one, other = served.join(seed=1), served.join(seed=2)
    told(*waiting(served, one, other))
    assert shares[-1] == 0.5
    assert served.fuser._images
    served.fuser.leave(one)
    end = time.monotonic() + 30
    while shares[-1] != 0.25 and time.monotonic() < end:
        time.sleep(0.02)
    assert shares[-1] == 0.25
    served.fuser.leave(other)
    served.end()
    assert not served.fuser._images
    assert not served.fuser._stacks


def test_memory_that_others_may_have_filled_is_freed_before_a_stack_is_halved(
    serve: Serve, compositions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; where that did not help, it is halved."""
    served = serve()
    other = served.join(seed=9, hidden_units=7, epochs=5)
    served.next(other)
    full = iter([True, True, False, False])

    class Full(Stack):
        def epoch(self) -> list[EpochMetrics | DivergedError]:
            compositions.append(sorted(member.config.seed or 0 for member in self.members))
            if next(full):
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().epoch()

    monkeypatch.setattr(fusers, "Stack", Full)
    for attempt in (1, 2, 3):
        tickets = [served.join(seed=seed, epochs=1) for seed in (1, 2)]
        found = told(*waiting(served, *tickets))
        assert [of.again for of in found] == [attempt < 3] * 2
        for ticket in tickets:
            served.fuser.leave(ticket)
    assert compositions == [[9], [1, 2], [1, 2], [1], [2]]


def test_a_ticket_that_is_not_known_comes_again(serve: Serve) -> None:
    """Its worker was taken for one that had ended."""
    served = serve()
    ticket = served.join()
    served.fuser.leave(ticket)
    assert served.next(ticket) == Told(again=True)


def test_one_that_came_without_knowing_it_is_forgotten(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusers, "LOST_S", 0.2)
    served = serve()
    served.join()
    served.end()
    assert served.error is None


def test_it_ends_when_nobody_has_been_there_for_a_while(serve: Serve) -> None:
    served = serve()
    ticket = served.join(epochs=1)
    assert served.next(ticket).result is not None
    served.fuser.leave(ticket)
    served.end()
    assert served.fuser.join(coming(TrainConfig(model="mlp"))) is None
    assert served.error is None

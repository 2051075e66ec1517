"""A trial's share of a card; a card of the test's own stands in for the GPU that is not here."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from tune_jobs import cluster, device
from tune_jobs.device import CudaCard, Place, is_out_of_memory
from tune_jobs.resources import MIB, Request


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Place hides from its process is seen again by the other tests."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")


class FakeCard:
    device = torch.device("cpu")
    total_mib = 1000.0

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def limit(self, fraction: float) -> None:
        self.calls.append(("limit", fraction))

    def start_counting(self) -> None:
        self.calls.append(("start", 0))

    def peak_mib(self) -> float:
        return 240.0


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCard]:
    threads = torch.get_num_threads()
    card = FakeCard()
    monkeypatch.setattr(device, "find_card", lambda: card)
    yield card
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("gpu", "limit"), [(0.25, 0.25), (1, 1), (2, 1)])
def test_place_limits_the_process_to_its_share_of_the_card(card: FakeCard, gpu: float, limit: float) -> None:
    place = Place(Request(gpu=gpu))
    assert card.calls == [("limit", limit), ("start", 0)]
    assert place.peak_mib() == 240


def test_place_without_a_gpu_asked_for_leaves_the_card_alone(card: FakeCard) -> None:
    place = Place(Request())
    assert card.calls == []
    assert place.device == torch.device("cpu")


def test_out_of_memory_says_what_was_asked_and_used(card: FakeCard) -> None:
    line = Place(Request(gpu=0.25)).out_of_memory(torch.OutOfMemoryError("tried to\nallocate 2 GiB"))
    assert line == (
        "out of memory: asked for cpu 1, gpu 0.25 of 1000 MiB, 240 MiB in use at most (tried to allocate 2 GiB)"
    )
    assert card.total_mib == 1000


def test_is_out_of_memory_tells_it_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not go together"))


def test_peak_of_a_process_on_the_cpu_counts_from_where_it_started() -> None:
    place = Place(Request(cpu=torch.get_num_threads()))
    before = place.peak_mib()
    if before is None:
        pytest.skip("this system does not tell a process's peak")
    block = torch.ones(200 * MIB // 4)
    after = place.peak_mib()
    assert after is not None
    assert 150 < after - before < 400, block.shape
    del block
    again = Place(Request(cpu=torch.get_num_threads())).peak_mib()
    assert again is not None
    assert again < after - 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_card_limit_is_kept_and_running_out_is_told() -> None:
    card = CudaCard()
    card.limit(0.01)
    try:
        with pytest.raises(torch.OutOfMemoryError) as error:
            torch.empty(int(0.02 * card.total_mib * MIB), dtype=torch.uint8, device=card.device)
        assert is_out_of_memory(error.value)
    finally:
        card.limit(1.0)


def test_a_mac_has_one_gpu_and_ray_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no Mac here: PyTorch's answer is put in, and what is asked of ray.init is looked at."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(cluster, "canonicalize_bootstrap_address", lambda _: None)

    def init(**asked: Any) -> SimpleNamespace:
        told.append(asked)
        return SimpleNamespace(dashboard_url="")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    for there in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: there)
        assert device.local_gpus() == there
        assert device.choose_device(0.5).type == ("mps" if there else "cpu")
        assert not cluster._join()
    assert [asked.get("num_gpus") for asked in told] == [1, None]

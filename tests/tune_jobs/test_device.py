"""A trial's share of a card; a card of the test's own stands in for the GPU that is not here."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from models.out_of_memory import is_of_main_memory, is_out_of_memory
from tests.conftest import ROOT
from tune_jobs import cluster, device
from tune_jobs.device import CONTEXT_MIB, CudaCard, Place
from tune_jobs.environment import environment
from tune_jobs.resources import MIB, Request


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Place hides from its process is seen again by the other tests."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")


class FakeCard:
    device = torch.device("cpu")
    total_mib = 16 * CONTEXT_MIB

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


def taken(request: Request) -> Place:
    place = Place(request)
    place.take()
    return place


@pytest.mark.parametrize(
    ("gpu", "limit"), [(0.25, 3 / 16), (0.5, 7 / 16), (0.0625, 1 / 32), (0.01, 0.005), (1, 1), (2, 1)]
)
def test_place_limits_the_process_to_its_share_of_the_card_less_the_context(
    card: FakeCard, gpu: float, limit: float
) -> None:
    place = taken(Request(gpu=gpu))
    assert card.calls == [("limit", limit), ("start", 0)]
    assert place.peak_mib() == 240


def test_place_that_computes_for_several_has_what_they_ask_for_together(card: FakeCard) -> None:
    place = taken(Request(gpu=0.25))
    place.share([Request(gpu=0.25), Request(gpu=0.5)])
    assert card.calls[2:] == [("limit", 11 / 16)]
    assert torch.get_num_threads() == 2
    place.share([Request(gpu=0.5, cpu=0.25)] * 3)  # of requests that came and went, more than there is for a moment
    assert card.calls[3:] == [("limit", 1)]
    assert torch.get_num_threads() == 1


def test_card_s_limit_is_a_float_whatever_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch refuses a whole number."""
    given: list[float] = []
    monkeypatch.setattr("torch.cuda.memory._lazy_init", lambda: None)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch._C._cuda_setMemoryFraction", lambda fraction, _: given.append(fraction), raising=False)
    object.__new__(CudaCard).limit(1)
    assert given == [1.0]


def test_environment_has_no_card_whose_driver_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts it all the same."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert environment()["gpus"] == []


def test_place_without_a_gpu_asked_for_leaves_the_card_alone(card: FakeCard) -> None:
    place = taken(Request())
    assert card.calls == []
    assert place.device == torch.device("cpu")


def test_out_of_memory_says_what_was_asked_and_used(card: FakeCard) -> None:
    place = taken(Request(gpu=0.25))
    line = place.out_of_memory(torch.OutOfMemoryError("tried to\nallocate 2 GiB"))
    assert line == (
        "out of memory: asked for cpu 1, gpu 0.25 of 8192 MiB, 240 MiB in use at most (tried to allocate 2 GiB)"
    )
    line = place.out_of_memory(MemoryError("no room"))
    found = re.fullmatch(r"out of memory: asked for cpu 1, gpu 0.25, (\d+) MiB in use at most \(no room\)", line)
    assert found is not None, line
    assert int(found[1]) != 240  # this process's main memory, not the card's
    assert card.calls == [("limit", 3 / 16), ("start", 0)]


def test_is_out_of_memory_tells_it_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    lacking: Exception
    for lacking in (error.value, MemoryError()):
        assert is_out_of_memory(lacking)
        assert is_of_main_memory(lacking)
    for lacking in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 4 GB)"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        torch.cuda.DeferredCudaCallError("CUDA call failed lazily: CUDA error: out of memory"),
    ):
        assert is_out_of_memory(lacking)
        assert not is_of_main_memory(lacking)
    assert not is_out_of_memory(RuntimeError("shapes do not go together"))
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))


def test_peak_of_a_process_on_the_cpu_counts_from_where_it_started() -> None:
    place = taken(Request(cpu=torch.get_num_threads()))
    before = place.peak_mib()
    if before is None:
        pytest.skip("this system does not tell a process's peak")
    block = torch.ones(200 * MIB // 4)
    after = place.peak_mib()
    assert after is not None
    assert 150 < after - before < 400, block.shape
    del block
    again = taken(Request(cpu=torch.get_num_threads())).peak_mib()
    assert again is not None
    assert again < after - 100


def test_peak_of_earlier_trials_is_not_told_as_this_one_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot count it anew, in a worker that trains one after another."""
    monkeypatch.setattr("profiling.resident.forget_peak", lambda: False)
    place = taken(Request(cpu=torch.get_num_threads()))
    assert place.peak_mib() is None
    line = place.out_of_memory(MemoryError("no room"))
    assert re.fullmatch(r"out of memory: asked for cpu \d+ \(no room\)", line)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.gpu
@needs_cuda
def test_place_with_its_context_stays_within_its_share() -> None:
    """What the card has less of when a process of a quarter has taken all that it may."""
    free_mib = torch.cuda.mem_get_info()[0] / MIB  # with this process's own context
    told = run_alone(
        "place = Place(Request(gpu=0.25)); place.take()\n"
        "blocks = []\n"
        "try:\n"
        "    while True:\n"
        "        blocks.append(torch.empty(64 * 2**20, dtype=torch.uint8, device=place.device))\n"
        "except torch.OutOfMemoryError as error:\n"
        "    print(torch.cuda.mem_get_info()[0] / 2**20, place.peak_mib(), place.out_of_memory(error))\n"
    )
    left, peak, line = told.split(maxsplit=2)
    total_mib = CudaCard().total_mib
    assert 0.25 * total_mib - 2 * CONTEXT_MIB < float(peak) <= 0.25 * total_mib - CONTEXT_MIB
    assert float(peak) < free_mib - float(left) <= 0.25 * total_mib
    assert line.startswith(f"out of memory: asked for cpu 1, gpu 0.25 of {total_mib:.0f} MiB, ")


@pytest.mark.gpu
@needs_cuda
def test_place_without_a_gpu_asked_for_sees_none_on_a_machine_that_has_one() -> None:
    assert run_alone("Place(Request()).take(); print(torch.cuda.device_count())") == "0"
    assert int(run_alone("Place(Request(gpu=1)).take(); print(torch.cuda.device_count())")) > 0


def run_alone(code: str) -> str:
    """What a process of its own prints."""
    imports = "import torch\nfrom tune_jobs.device import Place\nfrom tune_jobs.resources import Request\n"
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", imports + code]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.mark.gpu
@needs_cuda
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
    monkeypatch.setattr(cluster, "canonicalize_bootstrap_address", lambda _: None)

    def init(**asked: Any) -> SimpleNamespace:
        told.append(asked)
        return SimpleNamespace(dashboard_url="")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    for there in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: there)
        assert cluster.this_machine()["Resources"].get("GPU", 0) == there
        assert device.choose_device(0.5).type == ("mps" if there else "cpu")
        assert not cluster._join()
    assert [asked.get("num_gpus") for asked in told] == [1, None]

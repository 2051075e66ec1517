"""`auto`: probes stand in for the cards that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from datasets import Splits
from models import TrainConfig
from models.evaluation import images_at_once
from profiling import fresh, memory, steps
from profiling.fresh import Shape
from tune_jobs.device import CONTEXT_MIB, CudaCard, Place
from tune_jobs.errors import UsageError
from tune_jobs.probe import _options, _probe, task
from tune_jobs.requests import Probe, Requests, _heaviest
from tune_jobs.resources import MIB, Request, Resources
from tune_jobs.space import Space, parse

SHAPE = Shape(1, 10, 28)
SPACE = {"model": {"grid": ["mlp", "svm"]}, "batch_size": {"grid": [16, 64]}, "hidden_units": {"grid": [10, 20]}}


def space(declared: dict[str, Any] | None = None, method: str = "grid") -> Space:
    return parse(declared or SPACE, {}, method)


class FakeCard:
    """A card of 1,000 MiB, or of 500 where it is a T4, on which a batch of n images takes 2 n MiB; 64 + n MiB of main
    memory."""

    def __init__(self) -> None:
        self.probed: list[TrainConfig] = []

    def __call__(self, config: TrainConfig, shape: Shape, asked: Request, kind: str) -> Probe:  # noqa: ARG002
        assert shape == SHAPE
        self.probed.append(config)
        return Probe(64.0 + config.batch_size, 2.0 * config.batch_size, 500 if kind == "T4" else 1000, kind or "Fake")


def test_auto_probes_each_shape_once_and_rounds_up(tmp_path: Path) -> None:
    card, said = FakeCard(), list[str]()
    requests = Requests(Resources(gpu="auto"), space(), SHAPE, tmp_path / "cache.json")
    requests.measure(card, said.append)
    assert sorted((c.batch_size, c.hidden_units) for c in card.probed) == [(16, 10), (16, 20), (64, 10), (64, 20)]
    assert {config.optimizer for config in card.probed} == {"adam"}  # whose state is the largest
    assert requests.of({"model": "mlp", "batch_size": 16, "hidden_units": 10}).gpu == 0.04  # 32 × 1.1 of 1,000, up
    assert requests.of({"model": "mlp", "batch_size": 64, "hidden_units": 10}).gpu == 0.15
    assert requests.of({"model": "svm", "C": 1.0}).gpu == 0
    assert said[0] == "measured: mlp, batch size 16 takes 32 of 1000 MiB on Fake, so it asks for cpu 1, gpu 0.04"
    assert {str(request) for request in requests.distinct()} == {"cpu 1", "cpu 1, gpu 0.04", "cpu 1, gpu 0.15"}

    again = Requests(Resources(gpu="auto"), space(), SHAPE, tmp_path / "cache.json")
    again.measure(card, said.append)
    assert len(card.probed) == len(said) == 4
    assert again.distinct() == requests.distinct()


def test_auto_between_what_was_probed_takes_the_largest(tmp_path: Path) -> None:
    declared = {"model": "mlp", "batch_size": {"int": [16, 64]}}
    requests = Requests(Resources(gpu="auto"), space(declared, "random"), SHAPE, tmp_path / "cache.json")
    with pytest.raises(UsageError, match="what mlp needs was not measured yet"):
        requests.of({"model": "mlp", "batch_size": 16})
    requests.measure(FakeCard(), lambda _: None)
    assert requests.of({"model": "mlp", "batch_size": 16}).gpu == 0.04
    assert requests.of({"model": "mlp", "batch_size": 40}).gpu == 0.15


def test_auto_more_than_a_card_asks_for_a_whole_one(tmp_path: Path) -> None:
    requests = Requests(Resources(gpu="auto"), space({"model": "mlp", "batch_size": 900}), SHAPE, tmp_path / "c.json")
    requests.measure(FakeCard(), lambda _: None)
    assert requests.distinct() == [Request(gpu=1)]


def test_auto_memory_by_model(tmp_path: Path) -> None:
    resources = Resources.model_validate({"by_model": {"mlp": {"memory_mib": "auto", "cpu": 2}}})
    said: list[str] = []
    declared = {"model": {"grid": ["mlp", "svm"]}, "batch_size": {"grid": [16, 64]}}
    requests = Requests(resources, space(declared), SHAPE, tmp_path / "cache.json")
    requests.measure(FakeCard(), said.append)
    assert requests.of({"model": "mlp", "batch_size": 64}) == Request(cpu=2, memory_mib=141)
    assert requests.of({"model": "svm"}) == Request()
    assert said == [
        "measured: mlp, batch size 16 takes 80 MiB of main memory, so it asks for cpu 2, memory 88 MiB",
        "measured: mlp, batch size 64 takes 128 MiB of main memory, so it asks for cpu 2, memory 141 MiB",
    ]
    with pytest.raises(UsageError, match="auto is for networks; give svm its own under by_model"):
        Requests(Resources(memory_mib="auto"), space(), SHAPE, tmp_path / "cache.json").of({"model": "svm"})


def test_auto_damaged_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text('{"a": 1}')
    requests = Requests(Resources(gpu="auto"), space(), SHAPE, tmp_path / "cache.json")
    with pytest.raises(UsageError, match=r"is damaged .*; remove it"):
        requests.measure(FakeCard(), lambda _: None)


def test_auto_cache_that_cannot_be_written_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    for _ in range(2):
        card = FakeCard()
        requests = Requests(Resources(gpu="auto"), space(), SHAPE)
        requests.measure(card, said.append)
        assert len(card.probed) == 4
        assert requests.of({"model": "mlp", "batch_size": 16, "hidden_units": 10}).gpu == 0.04
    note = f"note: what was measured is not kept ({tmp_path / 'file' / 'tune_jobs'}: Not a directory)"
    assert [said[4], said[9], len(said)] == [note, note, 10]


def test_auto_without_a_home_is_measured_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    said: list[str] = []
    Requests(Resources(gpu="auto"), space(), SHAPE).measure(FakeCard(), said.append)
    assert said[4:] == ["note: what was measured is not kept (there is no home folder)"]


def test_auto_is_kept_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Requests(Resources(gpu="auto"), space(), SHAPE).measure(FakeCard(), lambda _: None)
    assert (tmp_path / "tune_jobs" / "probes.json").is_file()


def test_numbers_are_taken_as_they_are_and_nothing_is_probed(tmp_path: Path) -> None:
    requests = Requests(Resources(gpu=0.5), space(), SHAPE, tmp_path / "cache.json")
    card = FakeCard()
    requests.measure(card, lambda _: None)
    assert card.probed == []
    assert requests.distinct() == [Request(gpu=0.5)]


def test_auto_counts_the_images_that_lie_on_the_card_and_is_kept_for_the_kind_of_card(tmp_path: Path) -> None:
    declared = {"model": "mlp", "batch_size": 16, "input": {"grid": ["resident", "stream"]}}
    card = FakeCard()
    for kinds, probes in ((["H100"], 1), (["H100"], 1), (["A100", "H100"], 2)):
        requests = Requests(Resources(gpu="auto"), space(declared), SHAPE, tmp_path / "cache.json", data_mib=100)
        requests.cards = kinds
        requests.measure(card, lambda _: None)
        assert len(card.probed) == probes
    assert requests.of({"model": "mlp", "batch_size": 16, "input": "stream"}).gpu == 0.04
    assert requests.of({"model": "mlp", "batch_size": 16, "input": "resident"}).gpu == 0.15  # 132 × 1.1 of 1,000, up


def test_auto_on_several_kinds_of_cards_asks_for_what_fits_on_each(tmp_path: Path) -> None:
    requests = Requests(Resources(gpu="auto"), space({"model": "mlp", "batch_size": 64}), SHAPE, tmp_path / "c.json")
    requests.cards = ["H100", "T4"]
    said: list[str] = []
    assert [kind for _, kind in requests.unmeasured()] == ["H100", "T4"]
    requests.measure(FakeCard(), said.append)
    assert said == [
        "measured: mlp, batch size 64 takes 128 of 1000 MiB on H100, so it asks for cpu 1, gpu 0.15",
        "measured: mlp, batch size 64 takes 128 of 500 MiB on T4, so it asks for cpu 1, gpu 0.29",
    ]
    assert requests.distinct() == [Request(gpu=0.29)]


def test_auto_of_a_card_and_of_main_memory_are_measured_at_once(tmp_path: Path) -> None:
    resources = Resources(gpu="auto", memory_mib="auto")
    declared = {"model": "mlp", "batch_size": 64}
    requests = Requests(resources, space(declared), SHAPE, tmp_path / "c.json", data_mib=100)
    card, said = FakeCard(), list[str]()
    requests.measure(card, said.append)
    assert len(card.probed) == 1
    assert said == [
        "measured: mlp, batch size 64 takes 128 of 1000 MiB on Fake and 128 MiB of main memory, so it asks for cpu 1, "
        "gpu 0.26, memory 251 MiB"
    ]
    assert requests.distinct() == [Request(gpu=0.26, memory_mib=251)]


def test_probe_asks_ray_for_what_a_trial_would_and_a_card_of_the_kind() -> None:
    auto = Request(cpu=2, gpu="auto", custom={"tape": 1})
    assert _options(auto, "T4") == {"num_cpus": 2, "num_gpus": 1, "resources": {"tape": 1}, "accelerator_type": "T4"}
    assert _options(Request(gpu=0.5, memory_mib="auto"), "") == {"num_cpus": 1, "num_gpus": 0.5, "resources": {}}
    assert _options(Request(cpu=0.5, memory_mib="auto"), "T4") == {"num_cpus": 0.5, "resources": {}}


def test_probe_of_main_memory_counts_a_whole_process_and_a_large_batch_of_evaluation() -> None:
    """The two networks differ in 100 MiB of weights; with adam's state and the best epoch's in four times as much; and
    a checkpoint of all that is there twice while it is made."""
    narrow, wide = (TrainConfig(model="mlp", batch_size=2, optimizer="adam", hidden_units=n) for n in (8, 33_000))
    small, large = (_probe(config, SHAPE, Request(memory_mib="auto")) for config in (narrow, wide))
    assert (small.card_mib, small.total_mib, small.on) == (0, 0, "CPU")
    assert small.main_mib > 150  # PyTorch and Ray alone
    assert 1000 < large.main_mib - small.main_mib < 1500


def test_measure_evaluates_where_asked_to() -> None:
    """Of 1,020 images, where training sees 2 at once: after a small batch that is what a trial takes most for."""
    config = TrainConfig(model="simple_cnn", batch_size=2)
    without, with_it = (
        memory.measure(config, SHAPE, torch.device("cpu"), 1, evaluation=asked).peak_memory_mib
        for asked in (False, True)
    )
    assert images_at_once(28) == 1020
    assert with_it - without > 50  # 32 channels of 28 × 28 in two bytes come to 49


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_probe_on_a_card_counts_its_context_and_a_trial_fits_into_what_it_found(tmp_path: Path) -> None:
    auto = Resources(gpu="auto")
    requests = Requests(auto, space({"model": "resnet18", "batch_size": 32}), SHAPE, tmp_path / "c.json")
    requests.measure(lambda config, shape, asked, _: _probe(config, shape, asked), lambda _: None)
    (request,) = requests.distinct()
    own = _probe(TrainConfig(model="resnet18", batch_size=32, optimizer="adam"), SHAPE, auto)
    assert CONTEXT_MIB < own.card_mib < own.total_mib
    assert isinstance(request.gpu, float)
    assert own.card_mib <= request.gpu * own.total_mib
    place = Place(request)
    place.take()
    try:
        torch.empty(int((own.card_mib - CONTEXT_MIB) * MIB), dtype=torch.uint8, device=place.device)
    finally:
        CudaCard().limit(1.0)


def test_auto_memory_is_measured_anew_where_the_precision_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = FakeCard()
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    for speed, probes in ((2.0, 1), (2.0, 1), (0.5, 2)):
        monkeypatch.setattr("models.precision.bf16_speed", lambda speed=speed: speed)
        requests = Requests(Resources(memory_mib="auto"), space({"model": "mlp"}), SHAPE, tmp_path / "cache.json")
        requests.measure(card, lambda _: None)
        assert len(card.probed) == probes


def test_probe_s_process_takes_a_card_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch refuses `cuda` alone there, which is how Ray's one card is called."""
    taken: list[int] = []
    monkeypatch.setattr(torch._C, "_cuda_setDevice", taken.append, raising=False)
    for name in ("cuda", "cuda:1"):
        fresh.make_current(torch.device(name))
    assert taken == [0, 1]


def test_probe_s_worker_ends_with_it_where_it_has_a_card() -> None:
    """Else its CUDA context stays on the card, beside the trials."""
    assert task(Request(gpu="auto"), "")._max_calls == 1
    assert task(Request(gpu=0.5), "")._max_calls == 1
    assert task(Request(), "")._max_calls == 0


def test_probe_trains_with_all_that_takes_memory() -> None:
    """A step of a batch that is not full, an augmentation, weight decay: beside a CUDA graph each has its own."""
    seen: list[tuple[int, TrainConfig]] = []

    def run(config: TrainConfig, splits: Splits, *_: object) -> None:
        seen.append((len(splits.train), config))

    asked = {"model": "mlp", "batch_size": 8, "input": "stream", "deterministic": True, "optimizer": "sgd"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "run", run)
        memory._train(_heaviest(asked), Shape(1, 10, 8), torch.device("cpu"), evaluation=True)
    ((images, config),) = seen
    assert images == memory.STEPS * 8 + 7
    assert (config.input, config.deterministic, config.augment) == ("resident", False, "rotate_shift")
    assert config.weight_decay > 0

"""`auto`: probes stand in for the cards that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models import TrainConfig
from profiling.memory import Shape
from tune_jobs.errors import UsageError
from tune_jobs.requests import Probe, Requests
from tune_jobs.resources import Request, Resources
from tune_jobs.space import Space, parse

SHAPE = Shape(1, 10, 28)
SPACE = {"model": {"grid": ["mlp", "svm"]}, "batch_size": {"grid": [16, 64]}, "hidden_units": {"grid": [10, 20]}}


def space(declared: dict[str, Any] | None = None, method: str = "grid") -> Space:
    return parse(declared or SPACE, {}, method)


class FakeCard:
    """A card of 1,000 MiB on which a batch of n images takes 2 n MiB."""

    def __init__(self) -> None:
        self.probed: list[TrainConfig] = []

    def __call__(self, config: TrainConfig, shape: Shape, asked: Request) -> Probe:  # noqa: ARG002
        assert shape == SHAPE
        self.probed.append(config)
        return Probe(2.0 * config.batch_size, 1000, "Fake")


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
    requests = Requests(resources, space(), SHAPE, tmp_path / "cache.json")
    requests.measure(FakeCard(), lambda _: None)
    assert requests.of({"model": "mlp", "batch_size": 64, "hidden_units": 10}) == Request(cpu=2, memory_mib=141)
    assert requests.of({"model": "svm"}) == Request()
    with pytest.raises(UsageError, match="auto is for networks; give svm its own under by_model"):
        Requests(Resources(memory_mib="auto"), space(), SHAPE, tmp_path / "cache.json").of({"model": "svm"})


def test_auto_damaged_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text('{"a": 1}')
    requests = Requests(Resources(gpu="auto"), space(), SHAPE, tmp_path / "cache.json")
    with pytest.raises(UsageError, match=r"is damaged .*; remove it"):
        requests.measure(FakeCard(), lambda _: None)


def test_numbers_are_taken_as_they_are_and_nothing_is_probed(tmp_path: Path) -> None:
    requests = Requests(Resources(gpu=0.5), space(), SHAPE, tmp_path / "cache.json")
    card = FakeCard()
    requests.measure(card, lambda _: None)
    assert card.probed == []
    assert requests.distinct() == [Request(gpu=0.5)]


def test_auto_counts_the_images_that_lie_on_the_card_and_is_kept_for_the_kind_of_card(tmp_path: Path) -> None:
    declared = {"model": "mlp", "batch_size": 16, "input": {"grid": ["resident", "stream"]}}
    card = FakeCard()
    for kind, probes in (("H100", 1), ("H100", 1), ("T4", 2)):
        requests = Requests(Resources(gpu="auto"), space(declared), SHAPE, tmp_path / "cache.json", data_mib=100)
        requests.cards = kind
        requests.measure(card, lambda _: None)
        assert len(card.probed) == probes
    assert requests.of({"model": "mlp", "batch_size": 16, "input": "stream"}).gpu == 0.04
    assert requests.of({"model": "mlp", "batch_size": 16, "input": "resident"}).gpu == 0.15  # 132 × 1.1 of 1,000, up

"""A recorded step gives the numbers of an eager one.  On a CPU a replay calls the step's body again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets import DatasetConfig, Splits, load_splits
from models import TrainConfig, build, graph, training
from models.graph import WARM_UP_STEPS, can_be_recorded, undone
from models.optimizer import on_device
from models.result import EpochMetrics, Fitted
from models.step import Step
from models.taps import LiveNetwork
from models.training import fit

Run = tuple[Fitted, list[EpochMetrics]]
Bits = Callable[[Run], dict[str, str]]
Train = Callable[..., Run]

CPU = torch.device("cpu")
CUDA = torch.device("cuda")

CASES: list[dict[str, Any]] = [
    {"model": "mlp", "amp": False},
    {"model": "baseline", "amp_dtype": "bf16", "optimizer": "sgd", "nesterov": True, "lr_schedule": "cosine"},
    {"model": "stabilized", "amp": False, "lr_schedule": "onecycle"},
    {"model": "stabilized", "amp_dtype": "bf16", "augment": "rotate_shift", "optimizer": "sgd", "momentum": 0.0},
    {"model": "stabilized", "amp": False, "augment": "rotate_shift", "optimizer": "adamw", "weight_decay": 0.1},
    {"model": "resnet18", "amp": False, "weight_decay": 0.1, "epochs": 1},
]


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_recorded_steps_give_the_numbers_of_eager_ones(
    fields: dict[str, Any], replays: list[int], small: Splits, train: Train, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 images in batches of 16: three are replayed, the last one of 12 is eager."""
    fields = {"epochs": 2, "batch_size": 16} | fields
    recorded = bits(train(small, **fields))
    assert len(replays) == 3 * fields["epochs"]
    monkeypatch.setattr(training, "can_be_recorded", lambda *_: False)
    assert bits(train(small, **fields)) == recorded
    assert len(replays) == 3 * fields["epochs"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_recorded_training_goes_on_from_a_checkpoint(
    optimizer: str, replays: list[int], small: Splits, bits: Bits
) -> None:
    config = TrainConfig(model="stabilized", optimizer=optimizer, epochs=3, batch_size=16, lr_schedule="cosine")
    states: dict[int, dict[str, Any]] = {}
    reports: list[EpochMetrics] = []
    whole = bits(
        (fit(config, small, CPU, reports.append, lambda epoch, state: states.update({epoch: state()})), reports)
    )
    later: list[EpochMetrics] = []
    fitted = fit(config, small, CPU, later.append, start=states[1])
    assert bits((fitted, reports[:1] + later)) == whole
    assert len(replays) == 3 * (3 + 2)


def test_a_capture_that_fails_is_warned_of_and_trained_without(
    small: Splits, train: Train, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"model": "stabilized", "epochs": 2, "batch_size": 16}
    eager = bits(train(small, **fields))

    def failing(body: Callable[[], None], _: list[dict[str, Any]]) -> Callable[[], None]:
        body()
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(graph, "record", failing)
    monkeypatch.setattr(training, "can_be_recorded", lambda *_: True)
    with pytest.warns(UserWarning, match="without a CUDA graph, which failed: operation not permitted when stream"):
        assert bits(train(small, **fields)) == eager


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_steps_undone_leave_no_trace_in_the_optimizer_of_a_gpu(optimizer: str, small: Splits) -> None:
    """Before the first step, and behind a checkpoint's; with a rate in a tensor, as CUDA graphs ask for."""
    config = TrainConfig(model="stabilized", optimizer=optimizer, weight_decay=0.1, lr_schedule="onecycle", amp=False)

    def trained(undone_before: tuple[int, ...]) -> tuple[list[float], list[Tensor]]:
        torch.manual_seed(1)
        network = build(config, 1, 10, 8)
        assert isinstance(network, nn.Module)
        live = LiveNetwork(
            network, config, 1, 8, torch.device("meta"), precision="fp32", images=len(small.train)
        )  # convolutions in the way of a GPU
        step = Step(network, live.idle, config, "fp32", CPU, steps=4)
        step.close()
        step.optimizer = on_device(network, config, CPU)
        for group in step.optimizer.param_groups:
            group["lr"] = torch.tensor(config.lr)
        step._set_rate()
        pixels, labels = small.train.images.float() / 255, small.train.labels
        losses = []
        for index, batch in enumerate(torch.arange(32).split(8)):
            if index in undone_before:
                if index:
                    step.load_state_dict(copy.deepcopy(step.state_dict()))
                with undone(step):
                    for _ in range(WARM_UP_STEPS):
                        step.move(pixels[32:48], labels[32:48])
                    step.optimizer.zero_grad()
            losses.append(float(step(pixels[batch], labels[batch])))
        return losses, list(network.state_dict().values())

    losses, weights = trained(())
    for undone_before in ((0,), (0, 2)):
        again, others = trained(undone_before)
        assert again == losses
        assert all(torch.equal(*pair) for pair in zip(weights, others, strict=True))


def test_can_be_recorded() -> None:
    config = TrainConfig(model="mlp", batch_size=16)
    assert can_be_recorded(config, "bf16", CUDA, 16)
    assert can_be_recorded(config, "fp32", CUDA, 60)
    assert not can_be_recorded(config, "bf16", CUDA, 15)
    assert not can_be_recorded(config, "fp16", CUDA, 60)
    assert not can_be_recorded(config, "bf16", CPU, 60)
    assert not can_be_recorded(config, "fp32", torch.device("mps"), 60)
    assert not can_be_recorded(config.model_copy(update={"input": "stream"}), "bf16", CUDA, 60)
    assert not can_be_recorded(config.model_copy(update={"deterministic": True}), "bf16", CUDA, 60)


# --- on a GPU -----------------------------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_cuda_graph_trains_as_eager_steps_do(
    fields: dict[str, Any], small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning of a failed capture would fail this test."""
    config = TrainConfig(**{"epochs": 2, "batch_size": 16, "lr": 1e-4} | fields)
    recorded: list[EpochMetrics] = []
    eager: list[EpochMetrics] = []
    fit(config, small, CUDA, recorded.append)
    monkeypatch.setattr(training, "can_be_recorded", lambda *_: False)
    fit(config, small, CUDA, eager.append)
    losses = [[metrics.train_loss for metrics in reports] for reports in (recorded, eager)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4 if not config.amp else 2e-2)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("model", ["stabilized", "resnet18"])
def test_cuda_graph_learns_with_dropout_and_a_schedule(model: str) -> None:
    digits = load_splits(DatasetConfig(name="digits", image_size=8))
    config = TrainConfig(model=model, epochs=4, batch_size=32, lr_schedule="onecycle")
    assert fit(config, digits, CUDA, lambda _: None).result.test_accuracy > 0.85


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")],
    ids=["its", "of"],
)
def test_a_capture_that_runs_out_of_memory_fails_the_trial_which_then_asks_for_more(
    error: RuntimeError, small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(body: Callable[[], None], _: list[dict[str, Any]]) -> Callable[[], None]:
        raise error

    monkeypatch.setattr(graph, "record", failing)
    monkeypatch.setattr(training, "can_be_recorded", lambda *_: True)
    with pytest.raises(RuntimeError, match=str(error)):
        train(small, model="mlp", epochs=1, batch_size=16)


def test_captures_of_each_card_have_a_stream_of_that_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is launched inside another card's stream is not captured, and a replay of nothing trains nothing."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda card: f"of card {card}")
    graph._side_stream.cache_clear()
    try:
        assert [graph._side_stream(card) for card in (0, 1, 0)] == ["of card 0", "of card 1", "of card 0"]
    finally:
        graph._side_stream.cache_clear()

"""A training taken up from a checkpoint is the undisturbed one to the last digit; a wrong checkpoint is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from datasets import Split, Splits
from models import TrainConfig, evaluation, training
from models.checkpoint import CheckpointError, State, origin
from models.precision import choose_precision
from models.result import EpochMetrics, Fitted
from models.training import fit

Run = tuple[Fitted, list[EpochMetrics]]
Bits = Callable[[Run], dict[str, str]]

CPU = torch.device("cpu")


def written_and_read(state: State) -> State:
    """As it comes back from a file, with nothing in it that would run."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    read: State = torch.load(file, weights_only=True)
    return read


def disturb() -> None:
    torch.manual_seed(123)
    torch.rand(7)
    fit(TrainConfig(model="stabilized", epochs=1, seed=9, augment="rotate_shift"), _other, CPU, lambda _: None)


_generator = torch.Generator().manual_seed(0)
_part = Split(
    torch.randint(256, (8, 1, 8, 8), generator=_generator, dtype=torch.uint8),
    torch.randint(2, (8,), generator=_generator),
)
_other = Splits(_part, _part, _part, ("a", "b"), 8, (0.5,), (0.3,), "other")


def run_with_checkpoints(config: TrainConfig, splits: Splits) -> tuple[Run, dict[int, State]]:
    """A training, and its states by epoch; each was read after the training had gone on."""
    reports: list[EpochMetrics] = []
    states: dict[int, State] = {}

    def checkpoint(epoch: int, state: Callable[[], State]) -> None:
        assert len(reports) == epoch - 1  # it comes before the epoch's report
        states[epoch] = state()

    fitted = fit(config, splits, CPU, reports.append, checkpoint)
    return (fitted, reports), {epoch: written_and_read(state) for epoch, state in states.items()}


CASES: list[dict[str, Any]] = [
    {"model": "mlp", "amp": False},
    {"model": "mlp", "amp_dtype": "bf16", "optimizer": "adamw", "weight_decay": 0.1, "lr_schedule": "cosine"},
    {"model": "stabilized", "amp": False, "augment": "rotate_shift", "lr_schedule": "onecycle"},
    {"model": "stabilized", "amp_dtype": "bf16", "optimizer": "sgd", "lr_schedule": "onecycle", "nesterov": True},
    {"model": "stabilized", "amp": False, "input": "stream", "augment": "rotate_shift", "weight_decay": 0.01},
    {"model": "high_vision", "amp_dtype": "bf16", "optimizer": "sgd", "momentum": 0.0, "deterministic": True},
    {"model": "resnet18", "amp": False, "epochs": 3, "weight_decay": 0.01},
    {"model": "resnet18", "amp_dtype": "bf16", "epochs": 2, "optimizer": "sgd", "weight_decay": 0.01},
]


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_fit_goes_on_from_every_epoch_as_if_undisturbed(fields: dict[str, Any], small: Splits, bits: Bits) -> None:
    config = TrainConfig(**{"epochs": 4, "batch_size": 16, "lr": 0.01} | fields)
    run, states = run_with_checkpoints(config, small)
    assert list(states) == list(range(1, config.epochs))
    whole = bits(run)
    for epoch, state in states.items():
        disturb()
        reports: list[EpochMetrics] = []
        again: list[int] = []
        fitted = fit(config, small, CPU, reports.append, lambda epoch, _: again.append(epoch), state)  # noqa: B023
        assert [metrics.epoch for metrics in reports] == list(range(epoch + 1, config.epochs + 1))
        assert again == list(range(epoch + 1, config.epochs))
        assert bits((fitted, run[1][:epoch] + reports)) == whole
        seconds = [metrics.epoch_time_s for metrics in run[1][:epoch] + reports]
        assert fitted.result.train_time_s == pytest.approx(sum(seconds), rel=1e-12)


def test_fit_without_checkpoints_gives_the_same_numbers(small: Splits, bits: Bits) -> None:
    config = TrainConfig(model="stabilized", epochs=3, batch_size=16)
    reports: list[EpochMetrics] = []
    fitted = fit(config, small, CPU, reports.append)
    assert bits(run_with_checkpoints(config, small)[0]) == bits((fitted, reports))


@pytest.mark.parametrize("best", [1, 2, 3, 4])
def test_fit_keeps_the_best_epoch_whether_before_or_behind_the_checkpoint(
    best: int, small: Splits, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = evaluation.evaluate
    epoch = 0

    def scripted(*arguments: Any) -> tuple[float, float]:
        nonlocal epoch
        epoch += 1
        return real(*arguments)[0], 0.9 if epoch == best else 0.5

    monkeypatch.setattr(training, "evaluate", scripted)
    config = TrainConfig(model="stabilized", epochs=4, batch_size=16)
    run, states = run_with_checkpoints(config, small)
    assert run[0].result.best_epoch == best
    for done, state in states.items():
        epoch = done
        reports: list[EpochMetrics] = []
        fitted = fit(config, small, CPU, reports.append, start=state)
        assert bits((fitted, run[1][:done] + reports)) == bits(run)


def test_fit_with_a_drawn_seed_goes_on_with_it(small: Splits, bits: Bits) -> None:
    config = TrainConfig(model="stabilized", epochs=2, batch_size=16, seed=None)
    run, states = run_with_checkpoints(config, small)
    reports: list[EpochMetrics] = []
    fitted = fit(config, small, CPU, reports.append, start=states[1])
    assert fitted.result.seed == run[0].result.seed
    assert bits((fitted, run[1][:1] + reports)) == bits(run)


def test_checkpoint_is_not_offered_by_one_epoch_or_the_svm(small: Splits) -> None:
    for config in (TrainConfig(model="mlp", epochs=1), TrainConfig(model="svm", epochs=3)):
        assert run_with_checkpoints(config, small)[1] == {}


def test_checkpoint_need_not_be_read(small: Splits) -> None:
    offered: list[int] = []
    config = TrainConfig(model="mlp", epochs=3)
    fit(config, small, CPU, lambda _: None, lambda epoch, _: offered.append(epoch))
    assert offered == [1, 2]


# --- refused ------------------------------------------------------------------------------------------------------

CONFIG = TrainConfig(model="baseline", epochs=3, batch_size=16, amp=False)


@pytest.fixture
def state(small: Splits) -> State:
    return run_with_checkpoints(CONFIG, small)[1][2]


def refused(config: TrainConfig, splits: Splits, start: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        fit(config, splits, CPU, lambda _: pytest.fail("an epoch was trained"), start=start)
    message = str(caught.value)
    assert message.startswith("checkpoint: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": "modernist"}, "model"),
        ({"lr": 0.5}, "lr"),
        ({"epochs": 2}, "epochs"),
        ({"epochs": 9}, "epochs"),
        ({"seed": 1}, "seed"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"amp": True, "amp_dtype": "bf16"}, "amp"),
    ],
)
def test_start_of_another_config_is_refused_by_name(
    fields: dict[str, Any], named: str, state: State, small: Splits
) -> None:
    assert f"a training with {named} " in refused(CONFIG.model_copy(update=fields), small, state)


def test_start_of_fields_that_are_not_read_does_not_matter(state: State, small: Splits) -> None:
    other = CONFIG.model_copy(update={"C": 7.0, "momentum": 0.1, "hidden_units": 3})
    assert isinstance(fit(other, small, CPU, lambda _: None, start=state).model, nn.Module)


def test_start_of_other_images_is_refused(state: State, small: Splits, make_splits: Callable[..., Splits]) -> None:
    assert "images" in refused(CONFIG, make_splits(60, 20, 20, split_seed=3), state)
    assert "image_size" in refused(CONFIG, replace(small, image_size=12), state)


FAST_IN_BF16, WITHOUT_BF16 = {"avx512_bf16": True}, {"avx512_bf16": False}


@pytest.mark.parametrize("began", ["fp32", "bf16"])
def test_fit_goes_on_in_the_precision_it_began_in(
    began: str, small: Splits, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine that takes it up would have chosen the other one."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: FAST_IN_BF16)
    monkeypatch.setattr("models.precision.bf16_speed", lambda: 2.0 if began == "bf16" else 0.5)
    config = CONFIG.model_copy(update={"amp": True})
    run, states = run_with_checkpoints(config, small)
    monkeypatch.setattr("models.precision.bf16_speed", lambda: 0.5 if began == "bf16" else 2.0)
    reports = run[1][:1]
    fitted = fit(config, small, CPU, reports.append, start=states[1])
    assert fitted.result.precision == began
    assert bits((fitted, reports)) == bits(run)
    assert choose_precision(config, CPU) != began


def test_start_of_a_precision_that_the_device_does_not_have_is_refused(
    small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: FAST_IN_BF16)
    monkeypatch.setattr("models.precision.bf16_speed", lambda: 2.0)
    config = CONFIG.model_copy(update={"amp": True})
    state = run_with_checkpoints(config, small)[1][1]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: WITHOUT_BF16)
    assert "precision 'bf16', not 'fp32'" in refused(config, small, state)


def test_origin_of_float32_on_a_card_says_that_it_is_without_tf32(small: Splits) -> None:
    """A state from before was of other numbers."""
    cuda, config = torch.device("cuda"), TrainConfig(model="mlp", seed=1)
    assert origin(config, small, "fp32", cuda, [])["tf32"] is False
    assert "tf32" not in origin(config, small, "bf16", cuda, [])
    assert "tf32" not in origin(config, small, "fp32", CPU, [])


def test_start_of_float32_from_before_channels_last_is_refused_and_of_bf16_is_not(small: Splits) -> None:
    config = CONFIG.model_copy(update={"amp": False})
    state = run_with_checkpoints(config, small)[1][1]
    del state["origin"]["memory_format"]
    assert "memory_format None, not 'channels_last'" in refused(config, small, state)
    config = CONFIG.model_copy(update={"amp": True, "amp_dtype": "bf16"})
    assert "memory_format" not in run_with_checkpoints(config, small)[1][1]["origin"]


def test_start_of_other_convolutions_is_refused(
    make_splits: Callable[..., Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their weights are laid out otherwise, and round otherwise."""
    config = TrainConfig(model="baseline", epochs=2, seed=3, amp=False)
    splits = make_splits(16, 4, 4, image_size=8)
    plain = run_with_checkpoints(config, splits)[1][1]
    assert "convolutions" not in plain["origin"]
    for rule in ("SPARED_FROM", "SPARED_SHARE"):
        monkeypatch.setattr(f"models.fast_convolutions.{rule}", float("-inf"))
    fast = run_with_checkpoints(config, splits)[1][1]
    assert fast["origin"]["convolutions"] == "0 Winograd's, 3 Winograd's"
    assert "convolutions None, not" in refused(config, splits, plain)
    monkeypatch.undo()
    assert "convolutions \"0 Winograd's, 3 Winograd's\", not None" in refused(config, splits, fast)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_moments_that_lie_otherwise_in_memory_are_taken_by_their_place(
    optimizer: str, small: Splits, bits: Bits
) -> None:
    """The fused kernels go through memory, whatever the strides say."""
    config = TrainConfig(model="stabilized", optimizer=optimizer, epochs=2, seed=3, amp=False)
    run, states = run_with_checkpoints(config, small)
    moved = 0
    for kept in states[1]["optimizer"]["state"].values():
        for name, value in kept.items():
            kept[name] = value.contiguous()
            moved += kept[name].stride() != value.stride()
    assert moved
    reports = run[1][:1]
    assert bits((fit(config, small, CPU, reports.append, start=states[1]), reports)) == bits(run)


def test_start_of_an_svm_is_refused(state: State, small: Splits) -> None:
    assert "svm" in refused(TrainConfig(model="svm"), small, state)


@pytest.mark.parametrize("start", [{}, {"format": 1}, [], "a path", {"format": 0, "origin": {}}], ids=repr)
@pytest.mark.parametrize("seed", [42, None])
def test_start_that_is_no_state_is_refused(start: object, seed: int | None, small: Splits) -> None:
    refused(CONFIG.model_copy(update={"seed": seed}), small, start)


KEYS = ["network", "best_weights", "epochs", "order", "randomness", "global", "optimizer", "scaler"]


@pytest.mark.parametrize("key", [*KEYS, "origin", "format"])
def test_start_with_a_key_lost_or_of_nothing_is_refused(key: str, state: State, small: Splits) -> None:
    if key != "scaler":
        refused(CONFIG, small, state | {key: None})
    refused(CONFIG, small, {name: value for name, value in state.items() if name != key})


def damaged(change: Callable[[State], Any]) -> Callable[[State], State]:
    def changed(state: State) -> State:
        state = copy.deepcopy(state)
        change(state)
        return state

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        damaged(lambda state: state["network"].pop("0.bias")),
        damaged(lambda state: state["network"].update({"0.bias": torch.zeros(3)})),
        damaged(lambda state: state["best_weights"].pop("0.bias")),
        damaged(lambda state: state["epochs"].pop(0)),
        damaged(lambda state: state["epochs"].clear()),
        damaged(lambda state: state["epochs"].append(state["epochs"][0] | {"epoch": 3})),
        damaged(lambda state: state["epochs"][0].pop("val_loss")),
        damaged(lambda state: state["optimizer"]["state"].pop(0)),
        damaged(lambda state: state["optimizer"]["state"].clear()),
        damaged(lambda state: state["optimizer"]["state"][0].pop("exp_avg")),
        damaged(lambda state: state["optimizer"]["state"][0].update({"exp_avg": torch.zeros(2)})),
        damaged(lambda state: state["optimizer"]["param_groups"][0]["params"].pop()),
        damaged(lambda state: state.update({"order": torch.zeros(3, dtype=torch.uint8)})),
    ],
)
def test_start_with_a_part_damaged_is_refused(damage: Callable[[State], State], state: State, small: Splits) -> None:
    refused(CONFIG, small, damage(state))

"""Training: repeatable to the last digit, equal to a plain loop, chosen on validation alone."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import Tensor, nn

import models
from datasets import DatasetConfig, Split, Splits, load_splits
from datasets.transforms import AUGMENTATIONS, Transform
from models import ModelError, TrainConfig, training
from models.evaluation import LOSSES, evaluate
from models.precision import choose_precision, full_float32, memory_format
from models.result import DivergedError, EpochMetrics, Fitted
from models.step import Step
from models.training import fit

Run = tuple[Fitted, list[EpochMetrics]]
Train = Callable[..., Run]
Bits = Callable[[Run], dict[str, str]]
Array = np.ndarray[Any, Any]
Arrays = Callable[[models.Model], dict[str, Array]]

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def digits() -> Splits:
    """All 1,797 digits, 8×8."""
    return load_splits(DatasetConfig(name="digits", image_size=8))


@pytest.fixture
def as_trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Grows by the (logits, labels) of every step of training, as the cross entropy is given them."""
    seen: list[tuple[Tensor, Tensor]] = []
    real = LOSSES["cross_entropy"]

    def recording(logits: Tensor, labels: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append((logits.detach().clone(), labels.clone()))
        return real(logits, labels)

    monkeypatch.setitem(LOSSES, "cross_entropy", recording)
    return seen


def network_of(fitted: Fitted) -> nn.Module:
    assert isinstance(fitted.model, nn.Module)
    return fitted.model


# --- repeatable ---------------------------------------------------------------------------------------------------

REPEATED: list[dict[str, Any]] = [
    {"model": "mlp", "amp": False},
    {"model": "mlp", "amp_dtype": "bf16"},
    {"model": "baseline", "amp": False, "augment": "rotate_shift"},
    {"model": "high_vision", "amp_dtype": "bf16"},
    {"model": "stabilized", "amp": False, "augment": "rotate_shift"},
    {"model": "stabilized", "amp_dtype": "bf16", "deterministic": True},
    {"model": "stabilized", "amp": False, "input": "stream"},
    {"model": "resnet18", "amp": False, "epochs": 1},
    {"model": "svm"},
]


@pytest.mark.parametrize("fields", REPEATED, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_fit_repeats_to_the_last_digit_whatever_ran_before(
    fields: dict[str, Any], small: Splits, train: Train, bits: Bits
) -> None:
    fields = {"epochs": 2, "batch_size": 16} | fields
    first = bits(train(small, **fields))
    assert bits(train(small, **fields)) == first

    torch.manual_seed(123)
    torch.rand(7)
    np.random.default_rng().random()
    other = {"model": "stabilized", "seed": 9, "deterministic": True, "amp_dtype": "bf16", "augment": "rotate_shift"}
    train(small, **{"epochs": 1, "input": "stream"} | other)
    train(small, model="mlp", amp=False, optimizer="sgd", epochs=1)
    assert bits(train(small, **fields)) == first


@pytest.mark.parametrize(("model", "size"), [("resnet18", 8), ("resnet18", 16), ("resnet50", 8)])
@pytest.mark.parametrize("amp", [False, True], ids=["fp32", "bf16"])
def test_fit_of_convolutions_down_to_one_pixel_has_no_weights_from_stray_memory(
    amp: bool, model: str, size: int, make_splits: Callable[..., Splits], train: Train, arrays: Arrays
) -> None:
    """At up to 16 pixels, 3×3 kernels of stride 2 meet one pixel: eight of nine taps touch padding alone.

    oneDNN's bf16 weight gradient leaves those taps' gradients unwritten.  Their true gradient is 0, so that sgd
    without weight decay leaves them as they were built.
    """
    fields: dict[str, Any] = {"epochs": 1, "optimizer": "sgd", "lr": 1e-4, "batch_size": 4, "amp": amp}
    torch.manual_seed(42)
    built = arrays(models.build(TrainConfig(model=model), 1, 10, size))
    stray = [torch.full((512, 512, 3, 3), 1e30) for _ in range(4)]  # what freed memory may hold
    del stray
    fitted, _ = train(make_splits(8, 4, 4, image_size=size), model=model, amp_dtype="bf16", **fields)
    trained = arrays(fitted.model)
    name = "layer4.0.conv1.weight" if model == "resnet18" else "layer4.0.conv2.weight"
    outer = np.ones((3, 3), dtype=bool)
    outer[1, 1] = False
    assert np.array_equal(trained[name][..., outer], built[name][..., outer])
    assert not np.array_equal(trained[name][..., 1, 1], built[name][..., 1, 1])


def test_fit_other_seed_gives_other_weights_and_other_order(
    small: Splits, train: Train, as_trained: list[tuple[Tensor, Tensor]]
) -> None:
    for seed in (1, 2):
        train(small, model="mlp", epochs=1, batch_size=60, seed=seed, amp=False)
    (first_logits, first_labels), (second_logits, second_labels) = as_trained
    assert not torch.equal(first_labels, second_labels)
    assert torch.equal(first_labels.sort().values, second_labels.sort().values)
    assert not torch.equal(first_logits, second_logits)


def test_fit_visits_every_image_once_an_epoch_in_a_new_order(
    small: Splits, train: Train, as_trained: list[tuple[Tensor, Tensor]]
) -> None:
    train(small, model="mlp", epochs=2, batch_size=16, amp=False)
    assert [len(labels) for _, labels in as_trained] == [16, 16, 16, 12] * 2
    first, second = (torch.cat([labels for _, labels in as_trained[k : k + 4]]) for k in (0, 4))
    assert not torch.equal(first, second)
    for order in (first, second):
        assert torch.equal(order.sort().values, small.train.labels.sort().values)


@pytest.mark.parametrize("augment", ["none", "rotate_shift"])
@pytest.mark.parametrize("model", ["mlp", "baseline", "stabilized"])
def test_stream_and_resident_give_the_same_numbers(
    model: str, augment: str, small: Splits, train: Train, bits: Bits
) -> None:
    fields = {"model": model, "augment": augment, "epochs": 2, "batch_size": 16, "amp": False}
    assert bits(train(small, **fields, input="stream")) == bits(train(small, **fields, input="resident"))


def test_fit_seed_null_draws_one_and_records_it(small: Splits, train: Train, bits: Bits) -> None:
    fields = {"model": "stabilized", "epochs": 2, "batch_size": 16, "augment": "rotate_shift"}
    drawn, again = train(small, **fields, seed=None), train(small, **fields, seed=None)
    seed = drawn[0].result.seed
    assert isinstance(seed, int)
    assert seed >= 0
    assert again[0].result.seed != seed  # by chance once in 2**31
    assert bits(again) != bits(drawn)
    assert bits(train(small, **fields, seed=seed)) == bits(drawn)


def test_fit_records_the_seed_it_was_given_and_none_for_the_svm(small: Splits, train: Train) -> None:
    largest = 2**63 - 1
    assert train(small, model="mlp", epochs=1, seed=largest)[0].result.seed == largest
    assert train(small, model="mlp", epochs=1, seed=0)[0].result.seed == 0
    assert train(small, model="svm", seed=5)[0].result.seed is None


@pytest.mark.parametrize("model", ["mlp", "svm"])
@pytest.mark.parametrize("input_", ["resident", "stream"])
def test_fit_leaves_the_data_as_they_were(model: str, input_: str, small: Splits, train: Train) -> None:
    before = copy.deepcopy([(part.images, part.labels) for part in (small.train, small.val, small.test)])
    train(small, model=model, epochs=2, augment="rotate_shift", input=input_)
    for part, (images, labels) in zip((small.train, small.val, small.test), before, strict=True):
        assert torch.equal(part.images, images)
        assert torch.equal(part.labels, labels)


def test_fit_of_pickled_splits_is_the_same(small: Splits, train: Train, bits: Bits) -> None:
    fields = {"model": "baseline", "epochs": 1, "augment": "rotate_shift"}
    assert bits(train(pickle.loads(pickle.dumps(small)), **fields)) == bits(train(small, **fields))


# --- the deterministic switch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_holds_inside_and_is_put_back(before: bool, wanted: bool, small: Splits) -> None:
    inside: list[bool] = []
    torch.use_deterministic_algorithms(before)
    try:
        config = TrainConfig(model="mlp", epochs=2, deterministic=wanted)
        fit(config, small, CPU, lambda _: inside.append(torch.are_deterministic_algorithms_enabled()))
        assert inside == [wanted, wanted]
        assert torch.are_deterministic_algorithms_enabled() is before
        bad = TrainConfig(model="mlp", optimizer="sgd", lr=1e10, deterministic=wanted)
        with pytest.raises(DivergedError):
            fit(bad, small, CPU, lambda _: None)
        assert torch.are_deterministic_algorithms_enabled() is before
    finally:
        torch.use_deterministic_algorithms(False)


def test_deterministic_puts_back_the_warn_only_mode(small: Splits, train: Train) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        train(small, model="mlp", epochs=1)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


# --- TF32 ---------------------------------------------------------------------------------------------------------


def test_cuda_float32_is_without_tf32_inside_and_put_back(
    small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch keeps the switches on a machine without a GPU too."""

    def switches() -> list[str]:
        return [torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision]  # type: ignore[attr-defined]

    inside: list[list[str]] = []
    before = switches()
    assert before[0] == "tf32"
    fit(TrainConfig(model="mlp", epochs=1), small, CPU, lambda _: inside.append(switches()))
    monkeypatch.setattr(training, "full_float32", lambda _: full_float32(torch.device("cuda")))
    fit(TrainConfig(model="mlp", epochs=1), small, CPU, lambda _: inside.append(switches()))
    assert inside == [before, ["ieee", "ieee"]]
    assert switches() == before
    with pytest.raises(DivergedError):
        train(small, model="mlp", optimizer="sgd", lr=1e10)
    assert switches() == before
    assert torch.backends.cudnn.allow_tf32  # which PyTorch refuses to say where its older and newer switches differ


# --- losses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_loss_manual_is_cross_entropy_and_its_gradient(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 10, generator=generator) * scale
    labels = torch.randint(10, (64,), generator=generator)
    values, gradients = [], []
    for loss in ("manual", "cross_entropy"):
        leaf = logits.clone().requires_grad_()
        value = LOSSES[loss](leaf, labels)
        value.backward()
        assert leaf.grad is not None
        values.append(value.detach())
        gradients.append(leaf.grad)
    assert values[0].isfinite()
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


def test_loss_cross_entropy_and_mse_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(32, 7, generator=generator) * 3
    labels = torch.randint(7, (32,), generator=generator)
    z = logits.numpy().astype(np.float64)
    shares = np.exp(z - z.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    one_hot = np.eye(7)[labels.numpy()]
    assert LOSSES["mse"](logits, labels).item() == pytest.approx(((shares - one_hot) ** 2).mean(), rel=1e-5)
    assert LOSSES["cross_entropy"](logits, labels).item() == pytest.approx(
        -np.log((shares * one_hot).sum(1)).mean(), rel=1e-5
    )


def test_fit_with_the_manual_loss_trains_as_with_cross_entropy(small: Splits, train: Train, arrays: Arrays) -> None:
    fields = {"model": "mlp", "epochs": 3, "batch_size": 16, "amp": False, "optimizer": "sgd", "lr": 0.05}
    written_out, built_in = (train(small, **fields, loss=loss) for loss in ("manual", "cross_entropy"))
    for mine, theirs in zip(written_out[1], built_in[1], strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert mine.val_loss == pytest.approx(theirs.val_loss, rel=1e-5)
    for name, array in arrays(built_in[0].model).items():
        np.testing.assert_allclose(arrays(written_out[0].model)[name], array, rtol=1e-4, atol=1e-6)


# --- against a plain loop -----------------------------------------------------------------------------------------


def normalised(splits: Splits, part: Split) -> Tensor:
    """For images stored at the size that is trained on, in NumPy's double precision."""
    assert part.images.shape[-1] == splits.image_size
    pixels = part.images.numpy().astype(np.float64) / 255
    return torch.from_numpy(((pixels - splits.mean[0]) / splits.std[0]).astype(np.float32))


def scheduled_lr(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0, in closed form."""

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    if config.lr_schedule == "cosine":
        return between(config.lr, 0, step / steps)
    if config.lr_schedule == "onecycle":  # up from 1/25 over 30 % of the steps, then down to 1/25/10,000
        top = 0.3 * steps - 1
        if step <= top:
            return between(config.lr / 25, config.lr, step / top)
        return between(config.lr, config.lr / 25 / 1e4, (step - top) / (steps - 1 - top))
    return config.lr


def plain_loop(config: TrainConfig, splits: Splits) -> list[tuple[float, float, float, dict[str, Array]]]:
    """(train loss, val loss, val accuracy, weights) after each epoch."""
    assert config.seed is not None
    torch.manual_seed(config.seed)
    network = models.build(config, 1, 10, splits.image_size)
    assert isinstance(network, nn.Module)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            network.parameters(), lr=config.lr, momentum=config.momentum, nesterov=config.nesterov,
            weight_decay=config.weight_decay, foreach=False, fused=False,
        )  # fmt: skip
    elif config.optimizer == "adam":
        optimizer = torch.optim.Adam(
            network.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False, fused=False
        )
    else:
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False, fused=False
        )
    images, labels = normalised(splits, splits.train), splits.train.labels
    order = torch.Generator().manual_seed(config.seed)
    n = len(labels)
    steps = config.epochs * math.ceil(n / config.batch_size)
    step = 0
    history = []
    for _ in range(config.epochs):
        network.train()
        permutation = torch.randperm(n, generator=order)
        total = 0.0
        for start in range(0, n, config.batch_size):
            batch = permutation[start : start + config.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = scheduled_lr(config, step, steps)
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(network(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            step += 1
            total += loss.item() * len(batch)
        network.eval()
        with torch.no_grad():
            logits = network(normalised(splits, splits.val))
        val_loss = nn.CrossEntropyLoss()(logits, splits.val.labels).item()
        accuracy = (logits.argmax(1) == splits.val.labels).double().mean().item()
        weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        history.append((total / n, val_loss, accuracy, weights))
    return history


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.0},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8, "nesterov": True},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    {"optimizer": "adam", "lr": 0.003},
    {"optimizer": "adam", "lr": 0.003, "weight_decay": 0.05},
    {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.5},
]


def as_the_plain_loop(run: Run, config: TrainConfig, splits: Splits, arrays: Arrays) -> None:
    fitted, reports = run
    history = plain_loop(config, splits)
    assert [report.epoch for report in reports] == list(range(1, config.epochs + 1))
    for report, (train_loss, val_loss, accuracy, _) in zip(reports, history, strict=True):
        assert report.train_loss == pytest.approx(train_loss, rel=1e-5)
        assert report.val_loss == pytest.approx(val_loss, rel=1e-5)
        assert report.val_accuracy == accuracy
    accuracies = [accuracy for _, _, accuracy, _ in history]
    assert fitted.result.best_epoch == 1 + accuracies.index(max(accuracies))
    weights = history[fitted.result.best_epoch - 1][3]
    mine = arrays(fitted.model)
    assert mine.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_allclose(mine[name], array, rtol=1e-4, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("fields", OPTIMIZERS, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_fit_is_a_plain_loop(
    fields: dict[str, Any], lr_schedule: str, small: Splits, train: Train, arrays: Arrays
) -> None:
    fields = {"model": "mlp", "epochs": 3, "batch_size": 16, "amp": False, "lr_schedule": lr_schedule} | fields
    as_the_plain_loop(train(small, **fields), TrainConfig(**fields), small, arrays)


@pytest.mark.parametrize("input_", ["resident", "stream"])
@pytest.mark.parametrize("model", ["baseline", "stabilized"])
def test_fit_is_a_plain_loop_with_batch_norm_and_dropout(
    model: str, input_: str, small: Splits, train: Train, arrays: Arrays
) -> None:
    fields: dict[str, Any] = {"model": model, "epochs": 3, "batch_size": 16, "amp": False, "optimizer": "sgd"}
    fields |= {"lr": 0.01, "input": input_}
    as_the_plain_loop(train(small, **fields), TrainConfig(**fields), small, arrays)


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("batch_size", [60, 59, 40])
def test_fit_schedules_of_one_and_two_steps_move_the_weights(
    lr_schedule: str, batch_size: int, small: Splits, train: Train, arrays: Arrays
) -> None:
    fitted, _ = train(small, model="mlp", epochs=1, batch_size=batch_size, lr_schedule=lr_schedule, amp=False)
    torch.manual_seed(42)
    built = arrays(models.build(TrainConfig(model="mlp"), 1, 10, 8))
    assert all(not np.array_equal(array, built[name]) for name, array in arrays(fitted.model).items())


# --- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("input_", ["resident", "stream"])
@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (9, 4, [4, 4]),
        (9, 8, [8]),
        (3, 2, [2]),
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (4, 100, [4]),
        (2, 2, [2]),
        (3, 1, [1, 1, 1]),
        (1, 32, [1]),
        (1, 1, [1]),
    ],
)
def test_batches_leave_out_a_last_one_of_one_image(
    n: int,
    batch_size: int,
    sizes: list[int],
    input_: str,
    make_splits: Callable[..., Splits],
    train: Train,
    as_trained: list[tuple[Tensor, Tensor]],
) -> None:
    splits = make_splits(n, 4, 4)
    _, reports = train(splits, model="mlp", epochs=2, batch_size=batch_size, input=input_, amp=False)
    assert [len(labels) for _, labels in as_trained] == sizes * 2
    # The reported training loss is the mean over the images that were trained on.
    for report, steps in zip(reports, (as_trained[: len(sizes)], as_trained[len(sizes) :]), strict=True):
        losses = torch.cat([nn.functional.cross_entropy(*step, reduction="none") for step in steps])
        assert report.train_loss == pytest.approx(losses.mean().item(), rel=1e-5)


def test_batches_a_last_one_of_one_image_does_not_reach_batch_norm(
    make_splits: Callable[..., Splits], train: Train
) -> None:
    fitted, _ = train(make_splits(9, 4, 4), model="resnet18", epochs=1, batch_size=4, amp=False)
    assert int(network_of(fitted).state_dict()["bn1.num_batches_tracked"]) == 2


def test_batch_size_above_the_set_is_one_batch_of_all(small: Splits, train: Train, bits: Bits) -> None:
    fields = {"model": "stabilized", "epochs": 2, "amp": False}
    assert bits(train(small, **fields, batch_size=10_000)) == bits(train(small, **fields, batch_size=60))


def test_augment_changes_training_and_not_evaluation(small: Splits, train: Train, bits: Bits) -> None:
    # With such a learning rate the weights stay as they were built, so that only the images can differ.
    fields = {"model": "baseline", "epochs": 2, "amp": False, "optimizer": "sgd", "lr": 1e-30}
    plain, augmented = train(small, **fields), train(small, **fields, augment="rotate_shift")
    assert {k: v for k, v in bits(plain).items() if not k.startswith("epoch")} == {
        k: v for k, v in bits(augmented).items() if not k.startswith("epoch")
    }
    for before, after in zip(plain[1], augmented[1], strict=True):
        assert (before.val_loss, before.val_accuracy) == (after.val_loss, after.val_accuracy)
        assert before.train_loss != after.train_loss
    # Drawn anew each epoch; without it the two epochs differ in the order of a sum alone.
    assert plain[1][0].train_loss == pytest.approx(plain[1][1].train_loss, rel=1e-6)
    assert augmented[1][0].train_loss != pytest.approx(augmented[1][1].train_loss, rel=1e-6)


def test_augment_draws_depend_on_the_seed_alone(small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[list[float]] = []

    def drawing(images: Tensor, generator: torch.Generator) -> Tensor:
        draws.append(torch.rand(3, generator=generator).tolist())
        return images

    monkeypatch.setitem(AUGMENTATIONS, "rotate_shift", drawing)
    found = []
    for seed, model in ((1, "mlp"), (1, "stabilized"), (2, "mlp")):
        draws.clear()
        train(small, model=model, epochs=2, batch_size=30, augment="rotate_shift", seed=seed)
        found.append(list(draws))
    assert [len(each) for each in found] == [4, 4, 4]
    assert found[0] == found[1]
    assert not any(mine == theirs for mine, theirs in zip(found[0], found[2], strict=True))
    assert len({tuple(each) for each in found[0]}) == 4  # anew each step


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, 2**63 - 1])
def test_augment_draws_are_not_those_of_the_order_of_images(
    seed: int, small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[Tensor] = []

    def drawing(images: Tensor, generator: torch.Generator) -> Tensor:
        draws.append(torch.rand(8, generator=generator))
        return images

    monkeypatch.setitem(AUGMENTATIONS, "rotate_shift", drawing)
    train(small, model="mlp", epochs=1, augment="rotate_shift", seed=seed)
    assert not torch.equal(draws[0], torch.rand(8, generator=torch.Generator().manual_seed(seed)))


# --- choosing and testing -----------------------------------------------------------------------------------------


def test_test_part_is_evaluated_once_at_the_end(small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {part.images.data_ptr(): name for name, part in vars(small).items() if isinstance(part, Split)}
    assert sorted(parts.values()) == ["test", "train", "val"]
    evaluated: list[str] = []

    def counting(network: nn.Module, part: Split, *arguments: Any) -> tuple[float, float]:
        evaluated.append(parts[part.images.data_ptr()])
        return evaluate(network, part, *arguments)

    monkeypatch.setattr(training, "evaluate", counting)
    for input_ in ("resident", "stream"):
        evaluated.clear()
        train(small, model="mlp", epochs=4, input=input_)
        assert evaluated == ["val"] * 4 + ["test"]


@pytest.mark.parametrize("model", ["mlp", "svm"])
def test_test_part_has_no_influence(
    model: str, small: Splits, make_splits: Callable[..., Splits], train: Train, bits: Bits
) -> None:
    other = make_splits(30, 10, 10, split_seed=7).test
    wrong = replace(small, test=Split(other.images, (other.labels + 1) % 10))
    fields = {"model": model, "epochs": 8, "lr": 0.01, "batch_size": 16}
    run, wrong_run = train(small, **fields), train(wrong, **fields)
    assert run[0].result.test_accuracy >= 0.5 > wrong_run[0].result.test_accuracy
    tested = {"result.test_accuracy", "result.test_loss"}
    mine, theirs = bits(run), bits(wrong_run)
    assert {k: v for k, v in mine.items() if k not in tested} == {k: v for k, v in theirs.items() if k not in tested}


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.5, 0.7, 0.7, 0.6], 2), ([0.9, 0.1, 0.2, 0.3], 1), ([0.1, 0.2, 0.3, 0.4], 4), ([0.0, 0.0, 0.0, 0.0], 1)],
)
def test_best_epoch_is_the_first_of_the_highest_validation_accuracy(
    accuracies: list[float], best: int, small: Splits, train: Train, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the losses say: here each later epoch has a lower one."""
    snapshots: list[dict[str, Array]] = []

    def scripted(network: nn.Module, part: Split, *_: Any) -> tuple[float, float]:
        snapshots.append(arrays(network))
        epoch = len(snapshots)
        return (9.0, 0.25) if epoch > len(accuracies) else (1.0 / epoch, accuracies[epoch - 1])

    monkeypatch.setattr(training, "evaluate", scripted)
    fitted, reports = train(small, model="stabilized", epochs=len(accuracies), batch_size=16)
    result = fitted.result
    assert (result.best_epoch, result.val_accuracy, result.val_loss) == (best, accuracies[best - 1], 1.0 / best)
    assert (result.epochs, result.test_accuracy, result.test_loss) == (len(accuracies), 0.25, 9.0)
    assert [report.val_accuracy for report in reports] == accuracies
    assert len(snapshots) == len(accuracies) + 1
    returned, tested = arrays(fitted.model), snapshots[-1]
    for name, array in snapshots[best - 1].items():  # batch norm's averages among them
        np.testing.assert_array_equal(returned[name], array, err_msg=name)
        np.testing.assert_array_equal(tested[name], array, err_msg=name)
    name = "0.weight"
    assert len({snapshot[name].tobytes() for snapshot in snapshots[:-1]}) == len(accuracies)


@pytest.mark.parametrize(("model", "loss"), [("baseline", "cross_entropy"), ("stabilized", "manual"), ("mlp", "mse")])
def test_best_epochs_weights_come_back_and_give_the_result(model: str, loss: str, small: Splits, train: Train) -> None:
    """Validated on what the untrained network says, so that learning is punished and the best epoch is early."""
    torch.manual_seed(42)
    untrained = models.build(TrainConfig(model=model), 1, 10, 8)
    assert isinstance(untrained, nn.Module)
    with torch.no_grad():
        said = untrained.eval()(normalised(small, small.train)).argmax(1)
    splits = replace(small, val=Split(small.train.images, said))
    fields = {"lr": 0.02, "lr_schedule": "onecycle", "epochs": 12, "batch_size": 16, "amp": False}
    fitted, reports = train(splits, model=model, loss=loss, **fields)
    result, network = fitted.result, network_of(fitted)
    best = reports[result.best_epoch - 1]
    assert result.best_epoch < result.epochs == len(reports)
    assert best.val_accuracy > reports[-1].val_accuracy  # so that the last weights would not do
    assert (result.val_accuracy, result.val_loss) == (best.val_accuracy, best.val_loss)
    assert not network.training
    transform = Transform.of(splits, CPU)
    network.to(memory_format=memory_format("fp32", CPU))  # to the last digit
    assert evaluate(network, splits.val, transform, loss, "fp32", CPU) == (result.val_loss, result.val_accuracy)
    assert evaluate(network, splits.test, transform, loss, "fp32", CPU) == (result.test_loss, result.test_accuracy)


def test_evaluate_is_the_mean_over_all_images_in_several_batches(digits: Splits) -> None:
    torch.manual_seed(0)
    network = models.build(TrainConfig(model="stabilized"), 1, 10, 8)
    assert isinstance(network, nn.Module)
    assert len(digits.train) > 1024  # the most images in a batch
    before = copy.deepcopy(network.state_dict())
    loss, accuracy = evaluate(network.train(), digits.train, Transform.of(digits, CPU), "cross_entropy", "fp32", CPU)
    with torch.no_grad():
        logits = network.eval()(normalised(digits, digits.train))
    assert accuracy == (logits.argmax(1) == digits.train.labels).sum().item() / len(digits.train)
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, digits.train.labels).item(), rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# --- the result ---------------------------------------------------------------------------------------------------


def test_train_time_is_the_sum_of_the_epochs_without_evaluation(
    small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only a step of training (1/4 s) and an evaluation (1,000 s) move on."""
    now = 5.0
    real_step, real_evaluate = Step.__call__, evaluate

    def step(self: Step, images: Tensor, labels: Tensor) -> Tensor:
        nonlocal now
        now += 0.25
        return real_step(self, images, labels)

    def evaluating(*arguments: Any) -> tuple[float, float]:
        nonlocal now
        now += 1000
        return real_evaluate(*arguments)

    monkeypatch.setattr(Step, "__call__", step)
    monkeypatch.setattr(training, "evaluate", evaluating)
    monkeypatch.setattr(training, "clock", lambda _: now)
    fitted, reports = train(small, model="mlp", epochs=3, batch_size=16)
    assert [report.epoch_time_s for report in reports] == [1.0, 1.0, 1.0]
    assert fitted.result.train_time_s == 3.0


@pytest.mark.parametrize("model", ["mlp", "svm"])
def test_train_time_is_the_sum_of_the_reported_ones(model: str, small: Splits, train: Train) -> None:
    fitted, reports = train(small, model=model, epochs=3)
    assert fitted.result.train_time_s == pytest.approx(sum(report.epoch_time_s for report in reports), rel=1e-12)
    assert all(report.epoch_time_s > 0 for report in reports)


def test_result_says_how_it_was_had(small: Splits, train: Train) -> None:
    fitted, _ = train(small, model="baseline", epochs=2, amp=False)
    result = fitted.result
    assert (result.precision, result.device, result.threads, result.epochs) == ("fp32", "cpu", 1, 2)
    assert result.params == sum(p.numel() for p in network_of(fitted).parameters())
    assert {p.device.type for p in network_of(fitted).parameters()} == {"cpu"}
    assert {p.dtype for p in network_of(fitted).parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_result_precision_is_the_one_that_ran(
    precision: str, small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    monkeypatch.setattr("models.precision.bf16_speed", lambda: 2.0 if precision == "bf16" else 0.5)
    dtypes: set[torch.dtype] = set()
    real = models.MODELS["baseline"]

    def spied(*arguments: Any) -> models.Model:
        network = real(*arguments)
        assert isinstance(network, nn.Module)
        # More than one image: what a model is asked about its shapes is no training.
        network.register_forward_hook(lambda *of: dtypes.add(of[-1].dtype) if len(of[-1]) > 1 else None)
        return network

    monkeypatch.setitem(models.MODELS, "baseline", spied)
    fitted, reports = train(small, model="baseline", epochs=1)
    assert fitted.result.precision == precision
    assert dtypes == {torch.float32 if precision == "fp32" else torch.bfloat16}
    assert {p.dtype for p in network_of(fitted).parameters()} == {torch.float32}
    assert all(p.is_contiguous() for p in network_of(fitted).parameters())
    assert math.isfinite(reports[0].train_loss)


# --- divergence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(
    ("fields", "epochs"),
    [
        ({"lr": 1e10}, {1}),
        # The decay multiplies every weight by −999 a step, four steps an epoch.
        ({"lr": 1.0, "weight_decay": 1000.0, "momentum": 0.0}, {2, 3, 4}),
    ],
    ids=["at once", "later"],
)
def test_diverging_run_raises_with_the_epoch(
    fields: dict[str, float], epochs: set[int], amp: bool, small: Splits
) -> None:
    reports: list[EpochMetrics] = []
    config = TrainConfig(model="mlp", optimizer="sgd", batch_size=16, epochs=6, amp=amp, amp_dtype="bf16", **fields)
    with pytest.raises(DivergedError, match=r"^the (training|validation) loss is (nan|inf) in epoch \d$") as caught:
        fit(config, small, CPU, reports.append)
    assert caught.value.epoch in epochs
    assert str(caught.value).endswith(f" {caught.value.epoch}")
    assert [report.epoch for report in reports] == list(range(1, caught.value.epoch))
    assert all(math.isfinite(report.train_loss + report.val_loss) for report in reports)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bad_epoch", [1, 3])
def test_divergence_of_the_validation_loss_alone_raises(
    value: float, bad_epoch: int, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = iter([1.0] * (bad_epoch - 1) + [value])
    monkeypatch.setattr(training, "evaluate", lambda *_: (next(evaluated), 0.5))
    reports: list[EpochMetrics] = []
    with pytest.raises(DivergedError, match=f"^the validation loss is {value} in epoch {bad_epoch}$") as caught:
        fit(TrainConfig(model="mlp", epochs=4), small, CPU, reports.append)
    assert caught.value.epoch == bad_epoch
    assert [report.epoch for report in reports] == list(range(1, bad_epoch))


def test_divergence_of_the_training_loss_raises_before_evaluation(
    small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "cross_entropy", lambda logits, _: logits.sum() * math.nan)
    monkeypatch.setattr(training, "evaluate", lambda *_: pytest.fail("a diverged network was evaluated"))
    with pytest.raises(DivergedError, match=r"^the training loss is nan in epoch 1$"):
        fit(TrainConfig(model="mlp", epochs=4), small, CPU, lambda _: None)


def test_divergence_of_the_test_loss_alone_is_recorded_and_decides_nothing(
    small: Splits, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To fail a run by its test part would be to choose by it."""
    evaluated = iter([1.0, math.inf])
    monkeypatch.setattr(training, "evaluate", lambda *_: (next(evaluated), 0.5))
    result = train(small, model="mlp", epochs=1)[0].result
    assert (result.val_loss, result.test_loss) == (1.0, math.inf)


def test_diverged_error_survives_pickling() -> None:
    """Ray carries errors between processes so."""
    error = pickle.loads(pickle.dumps(DivergedError(3, "training", math.inf)))
    assert isinstance(error, DivergedError)
    assert (error.epoch, str(error)) == (3, "the training loss is inf in epoch 3")


# --- precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "fp16"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((8, 6), "bf16"), ((9, 0), "bf16"),
     ((10, 0), "bf16"), ((12, 0), "bf16")],
)  # fmt: skip
def test_choose_precision_on_cuda(capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def get(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return capability

    monkeypatch.setattr(torch.cuda, "get_device_capability", get)
    second = torch.device("cuda", 1)
    assert choose_precision(TrainConfig(model="mlp"), second) == expected
    assert asked == [second]
    assert choose_precision(TrainConfig(model="mlp", amp_dtype="fp16"), second) == "fp16"
    assert choose_precision(TrainConfig(model="mlp", amp_dtype="bf16"), second) == "bf16"


@pytest.mark.parametrize(
    ("capabilities", "speed", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, 1.9, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, 8.0, "bf16"),
        ({"avx512_bf16": True, "amx_bf16": True}, 1.2, "bf16"),
        ({"avx512_bf16": True, "amx_bf16": False}, 1.1, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": False}, 0.5, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": True}, 0.5, "fp32"),
    ],
)
def test_choose_precision_on_a_cpu_with_bf16_by_its_speed(
    capabilities: dict[str, bool], speed: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr("models.precision.bf16_speed", lambda: speed)
    assert choose_precision(TrainConfig(model="mlp"), CPU) == expected
    assert choose_precision(TrainConfig(model="mlp", amp_dtype="bf16"), CPU) == "bf16"


@pytest.mark.parametrize(
    "capabilities",
    [
        {"avx512_bf16": False, "amx_bf16": False, "avx512_f": True, "avx2": True},
        {"avx2": True, "amx_tile": True},
        {"amx_int8": True},
        {},
    ],
)
def test_choose_precision_on_a_cpu_without_bf16_measures_nothing(
    capabilities: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a CPU can take a hundred times as long over a product in bf16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr("models.precision.bf16_speed", lambda: pytest.fail("measured"))
    assert choose_precision(TrainConfig(model="mlp"), CPU) == "fp32"
    assert choose_precision(TrainConfig(model="mlp", amp_dtype="bf16"), CPU) == "bf16"


def test_choose_precision_elsewhere_is_fp32() -> None:
    assert choose_precision(TrainConfig(model="mlp"), torch.device("mps")) == "fp32"


@pytest.mark.parametrize("amp_dtype", ["auto", "bf16", "fp16"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_choose_precision_without_amp_is_fp32(amp_dtype: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr("models.precision.bf16_speed", lambda: 2.0)
    config = TrainConfig(model="mlp", amp=False, amp_dtype=amp_dtype)
    assert choose_precision(config, torch.device(device)) == "fp32"


def test_fp16_on_a_cpu_is_refused_by_name(small: Splits) -> None:
    config = TrainConfig(model="mlp", amp_dtype="fp16")
    for act in (lambda: choose_precision(config, CPU), lambda: fit(config, small, CPU, lambda _: None)):
        with pytest.raises(ModelError, match=r"^amp_dtype: fp16 needs a GPU; .*auto or bf16$"):
            act()


# --- the svm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kernel": "rbf", "C": 0.3, "gamma": 0.01},
        {"kernel": "rbf", "gamma": "auto"},
        {"kernel": "poly", "degree": 2, "gamma": 0.02},
        {"kernel": "linear", "C": 0.05},
    ],
    ids=lambda fields: "-".join(str(value) for value in fields.values()) or "defaults",
)
def test_svm_is_sklearns_on_the_normalised_images(fields: dict[str, Any], digits: Splits, train: Train) -> None:
    splits = replace(
        digits, train=Split(digits.train.images[:300], digits.train.labels[:300])
    )  # mean and std stay those of the whole part
    fitted, reports = train(splits, model="svm", **fields)
    features = {name: normalised(splits, getattr(splits, name)).flatten(1).numpy() for name in ("train", "val", "test")}
    own = SVC(**{"kernel": "rbf", "C": 1.0, "gamma": "scale", "degree": 3} | fields)
    own.fit(features["train"], splits.train.labels.numpy())
    assert isinstance(fitted.model, SVC)
    predicted = own.predict(features["test"])
    assert np.array_equal(fitted.model.predict(features["test"]), predicted)
    result = fitted.result
    assert result.test_accuracy == (predicted == splits.test.labels.numpy()).mean()
    assert result.val_accuracy == (own.predict(features["val"]) == splits.val.labels.numpy()).mean()
    assert 0.5 < result.val_accuracy <= 1
    assert len(reports) == 1
    assert (reports[0].epoch, reports[0].val_accuracy) == (1, result.val_accuracy)
    assert all(math.isnan(loss) for loss in (reports[0].train_loss, reports[0].val_loss))
    assert all(math.isnan(loss) for loss in (result.val_loss, result.test_loss))
    assert (result.best_epoch, result.epochs, result.params, result.seed) == (1, 1, None, None)
    assert (result.precision, result.device) == ("fp64", "cpu")


def test_svm_macs_are_its_support_vectors_times_features_and_a_networks_none(small: Splits, train: Train) -> None:
    fitted, _ = train(small, model="svm")
    assert isinstance(fitted.model, SVC)
    assert fitted.result.macs == fitted.model.support_vectors_.shape[0] * 64
    assert train(small, model="mlp", epochs=1)[0].result.macs is None


def test_svm_sees_images_resized_as_the_networks_do(digits: Splits, train: Train) -> None:
    splits = replace(digits, image_size=12, train=Split(digits.train.images[:200], digits.train.labels[:200]))
    fitted, _ = train(splits, model="svm")
    assert isinstance(fitted.model, SVC)
    assert fitted.model.n_features_in_ == 144
    transform = Transform.of(splits, CPU)
    own = SVC().fit(transform(splits.train.images).flatten(1).numpy(), splits.train.labels.numpy())
    assert fitted.result.test_accuracy == own.score(
        transform(splits.test.images).flatten(1).numpy(), splits.test.labels.numpy()
    )


# --- it learns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "floor"),
    [
        ({"model": "baseline", "epochs": 5, "amp": False}, 0.9),
        ({"model": "baseline", "epochs": 5, "amp_dtype": "bf16"}, 0.9),
        ({"model": "mlp", "epochs": 10, "optimizer": "sgd", "lr": 0.05, "lr_schedule": "onecycle"}, 0.9),
        ({"model": "stabilized", "epochs": 5, "augment": "rotate_shift", "amp": False}, 0.85),
        ({"model": "svm"}, 0.95),
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()) if isinstance(value, dict) else str(value),
)
def test_fit_learns_digits(fields: dict[str, Any], floor: float, digits: Splits, train: Train) -> None:
    result = train(digits, **fields)[0].result
    assert floor < result.val_accuracy <= 1
    assert floor < result.test_accuracy <= 1


def test_fit_learns_three_channels_and_two_classes(digits: Splits, train: Train) -> None:
    """Grey or red: the digit itself tells nothing."""

    def coloured(part: Split) -> Split:
        images = part.images.repeat(1, 3, 1, 1)
        labels = torch.arange(len(part)) % 2
        images[labels == 1, 1:] = 0
        return Split(images, labels)

    splits = replace(
        digits,
        train=coloured(digits.train),
        val=coloured(digits.val),
        test=coloured(digits.test),
        classes=("grey", "red"),
        mean=(0.3, 0.15, 0.15),
        std=(0.4, 0.3, 0.3),
    )
    result = train(splits, model="baseline", epochs=1, amp=False)[0].result
    assert result.test_accuracy == 1


# --- on a GPU -----------------------------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("model", ["baseline", "resnet18"])
@pytest.mark.parametrize(
    ("fields", "precision"),
    [({"amp": False}, "fp32"), ({"amp_dtype": "bf16"}, "bf16"), ({"amp_dtype": "fp16"}, "fp16")],
    ids=["fp32", "bf16", "fp16"],
)
@pytest.mark.parametrize("input_", ["resident", "stream"])
def test_cuda_trains_in_every_precision(
    fields: dict[str, Any], precision: str, input_: str, model: str, digits: Splits
) -> None:
    reports: list[EpochMetrics] = []
    config = TrainConfig(model=model, epochs=3, input=input_, pin_memory=True, lr_schedule="onecycle", **fields)
    fitted = fit(config, digits, CUDA, reports.append)
    result = fitted.result
    assert (result.device, result.precision) == ("cuda", precision)
    assert all(math.isfinite(report.train_loss + report.val_loss) for report in reports)
    assert result.test_accuracy > 0.6  # chance is 0.1
    assert result.train_time_s == pytest.approx(sum(report.epoch_time_s for report in reports), rel=1e-12)
    state = network_of(fitted).state_dict()
    assert {value.device.type for value in state.values()} == {"cpu"}
    assert all(bool(value.isfinite().all()) for value in state.values())
    # The network that comes back works on the CPU and is the one that was tested.
    _, accuracy = evaluate(network_of(fitted), digits.test, Transform.of(digits, CPU), "cross_entropy", "fp32", CPU)
    assert accuracy == pytest.approx(result.test_accuracy, abs=0.03)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("model", ["baseline", "stabilized", "mlp"])
@pytest.mark.parametrize("amp", [True, False])
def test_cuda_deterministic_repeats_to_the_last_digit(model: str, amp: bool, small: Splits, bits: Bits) -> None:
    config = TrainConfig(model=model, epochs=2, deterministic=True, amp=amp, augment="rotate_shift")
    runs = []
    for _ in range(2):
        reports: list[EpochMetrics] = []
        runs.append(bits((fit(config, small, CUDA, reports.append), reports)))
    assert runs[0] == runs[1]


@pytest.mark.gpu
@needs_cuda
def test_cuda_sees_the_same_batches_as_the_cpu(
    small: Splits, as_trained: list[tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "can_be_recorded", lambda *_: False)  # a replay calls no Python
    config = TrainConfig(model="mlp", epochs=2, batch_size=16, amp=False, augment="rotate_shift")
    for device in (CPU, CUDA):
        fit(config, small, device, lambda _: None)
    half = len(as_trained) // 2
    for (mine, labels), (theirs, same_labels) in zip(as_trained[:half], as_trained[half:], strict=True):
        assert torch.equal(labels, same_labels.cpu())
        torch.testing.assert_close(mine, theirs.cpu(), rtol=1e-3, atol=1e-3)


def test_svm_with_one_class_to_learn_is_refused(small: Splits, train: Train) -> None:
    ones = torch.ones_like(small.train.labels)
    with pytest.raises(ModelError, match="training images are of one class"):
        train(replace(small, train=replace(small.train, labels=ones)), model="svm")

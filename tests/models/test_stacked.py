"""What comes out of a training in a stack is what comes out of it alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from datasets import Splits
from models import STACKED, TrainConfig, graph, stacked
from models.checkpoint import CheckpointError
from models.evaluation import LOSSES, LOSSES_OF_IMAGES
from models.optimizer import on_device
from models.precision import Precision
from models.registry import build
from models.result import DivergedError, EpochMetrics, Fitted
from models.stacked import Images, Member, Stack, is_stacked, stack_key
from models.stacked_step import ALIKE
from models.training import fit, prepared

CPU = torch.device("cpu")

CASES: list[dict[str, Any]] = [
    {"model": "mlp", "hidden_layers": 2},
    {"model": "mlp", "loss": "mse", "optimizer": "sgd", "momentum": 0.0},
    {"model": "baseline", "optimizer": "sgd", "nesterov": True, "lr_schedule": "cosine", "weight_decay": 1e-2},
    {"model": "modernist", "optimizer": "adamw", "lr_schedule": "onecycle", "weight_decay": 0.1},
    {"model": "high_vision", "loss": "manual"},
    {"model": "simple_cnn", "optimizer": "adam", "weight_decay": 1e-2},
]
OTHERS: list[dict[str, Any]] = [{"lr": 3e-3, "seed": 1}, {"lr": 1e-2, "optimizer": "sgd", "seed": 2**33}]
"""What stands beside a case: its shape, another rate, seed and optimizer."""


@pytest.fixture
def double() -> Iterator[None]:
    """In float64, where what rounding does is small beside what a mistake would do."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def configs(**fields: Any) -> list[TrainConfig]:
    own = {"epochs": 3, "batch_size": 16, "amp": False} | fields
    return [TrainConfig(**own), *(TrainConfig(**own | {"nesterov": False, "momentum": 0.9} | more) for more in OTHERS)]


def members(images: Images, configs: Sequence[TrainConfig], precision: Precision = "fp32") -> list[Member]:
    return [Member(config, precision, images) for config in configs]


def train(members: Sequence[Member]) -> list[Fitted]:
    """All to their ends, which are the same."""
    stack = Stack(members)
    while not members[0].is_done:
        stack.epoch()
    return [member.fitted() for member in members]


def numbers(fitted: Fitted, epochs: Sequence[EpochMetrics]) -> dict[str, np.ndarray[Any, Any]]:
    assert isinstance(fitted.model, nn.Module)
    result = fitted.result
    found = {name: value.detach().numpy() for name, value in fitted.model.state_dict().items()}
    found["result"] = np.array([result.val_accuracy, result.val_loss, result.test_accuracy, result.test_loss])
    found["epochs"] = np.array([[epoch.train_loss, epoch.val_loss, epoch.val_accuracy] for epoch in epochs])
    return found


def alone(config: TrainConfig, splits: Splits) -> dict[str, np.ndarray[Any, Any]]:
    epochs: list[EpochMetrics] = []
    return numbers(fit(config, splits, CPU, epochs.append), epochs)


def assert_close(got: dict[str, np.ndarray[Any, Any]], wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype == np.float64
        np.testing.assert_allclose(got[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_stacked_trainings_are_what_each_is_alone(fields: dict[str, Any], small: Splits) -> None:
    """60 images in batches of 16: the last one of 12."""
    asked = configs(**fields)
    together = members(Images.of(small, CPU), asked)
    for member, config, fitted in zip(together, asked, train(together), strict=True):
        assert_close(numbers(fitted, member.progress.epochs), alone(config, small))
        assert fitted.result.params == sum(weight.numel() for weight in fitted.model.parameters())
        assert (fitted.result.fused, fitted.result.seed, fitted.result.epochs) == (3, config.seed, 3)


@pytest.mark.parametrize("fields", CASES[:3], ids=lambda fields: str(fields["model"]))
def test_stacked_trainings_in_bf16_are_nearly_what_each_is_alone(fields: dict[str, Any], small: Splits) -> None:
    asked = [config.model_copy(update={"amp": True, "amp_dtype": "bf16"}) for config in configs(**fields)]
    together = members(Images.of(small, CPU), asked, "bf16")
    train(together)
    for member, config in zip(together, asked, strict=True):
        first: list[EpochMetrics] = []
        assert fit(config, small, CPU, first.append).result.precision == "bf16"
        assert member.progress.epochs[0].train_loss == pytest.approx(first[0].train_loss, rel=0.02)


def test_each_member_augments_by_its_own_draws(small: Splits) -> None:
    """In float32, as images are augmented."""
    asked = configs(model="mlp", augment="rotate_shift", optimizer="sgd")
    together = members(Images.of(small, CPU), asked)
    train(together)
    for member, config in zip(together, asked, strict=True):
        found = alone(config, small)["epochs"]
        np.testing.assert_allclose([epoch.train_loss for epoch in member.progress.epochs], found[:, 0], rtol=1e-4)


@pytest.mark.parametrize("model", STACKED)
def test_all_layers_of_a_stack_in_bf16_compute_in_it(model: str, small: Splits) -> None:
    """As alone.  Biases in float32 would make all that they are added to float32."""
    together = members(Images.of(small, CPU), configs(model=model), "bf16")
    losses = Stack(together).losses()
    with _Counted() as counted:
        next(losses)
    kinds = {"baddbmm", "bmm"} | (set() if model == "mlp" else {"convolution", "convolution_backward"})
    assert {name: counted.dtypes[name] for name in kinds} == {name: {torch.bfloat16} for name in kinds}


@pytest.mark.usefixtures("double")
def test_members_come_and_go_between_epochs(small: Splits) -> None:
    """One of two epochs, one of four, and one that comes behind the first epoch of the others."""
    asked = [TrainConfig(model="baseline", epochs=n, batch_size=16, amp=False, seed=n) for n in (2, 4, 3)]
    images = Images.of(small, CPU)
    short, long, late = together = members(images, asked)
    Stack([short, long]).epoch()
    Stack([long, late, short]).epoch()
    assert short.is_done
    assert not late.is_done
    fitted = {id(short): short.fitted()}
    for _ in range(2):
        stack = Stack([late, long])
        stack.epoch()
    fitted |= {id(late): late.fitted(), id(long): long.fitted()}
    for member, config in zip(together, asked, strict=True):
        assert_close(numbers(fitted[id(member)], member.progress.epochs), alone(config, small))
        assert fitted[id(member)].result.fused == 3


@pytest.mark.usefixtures("double")
def test_one_that_diverges_leaves_the_others_alone(small: Splits) -> None:
    asked = [TrainConfig(model="mlp", optimizer="sgd", batch_size=16, amp=False, lr=lr) for lr in (1e-2, 1e300)]
    good, bad = together = members(Images.of(small, CPU), asked)
    of_good, of_bad = Stack(together).epoch()
    assert isinstance(of_good, EpochMetrics)
    assert isinstance(of_bad, DivergedError)
    assert (of_bad.epoch, of_bad.which) == (1, "training")
    assert not bad.progress.epochs
    assert_close(numbers(train([good])[0], good.progress.epochs), alone(asked[0], small))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_member_goes_on_from_its_state(optimizer: str, small: Splits) -> None:
    config = TrainConfig(model="mlp", epochs=3, batch_size=16, amp=False, optimizer=optimizer, lr_schedule="cosine")
    images = Images.of(small, CPU)
    first = Member(config, "fp32", images)
    Stack([first]).epoch()
    state = first.state()
    assert is_stacked(state)
    first.company = 7
    assert Member(config, "fp32", images, first.state()).company == 7
    again = Member(config, "fp32", images, state)
    assert again.progress.epochs == first.progress.epochs
    assert_close(numbers(train([again])[0], again.progress.epochs), alone(config, small))


def test_a_state_of_a_stack_is_not_one_of_a_training_alone(small: Splits) -> None:
    """Nor the other way round: they round differently, and each goes on in its own way or begins again."""
    config = TrainConfig(model="mlp", epochs=2, batch_size=16, amp=False)
    images = Images.of(small, CPU)
    member = Member(config, "fp32", images)
    Stack([member]).epoch()
    with pytest.raises(CheckpointError, match="stacked True, not None"):
        fit(config, small, CPU, lambda _: None, start=member.state())
    states: list[dict[str, Any]] = []
    fit(config, small, CPU, lambda _: None, lambda _, state: states.append(state()))
    assert not is_stacked(states[0])
    with pytest.raises(CheckpointError, match="stacked None, not True"):
        Member(config, "fp32", images, states[0])


def test_a_state_that_does_not_fit_into_memory_is_not_damaged(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    images, config = Images.of(small, CPU), TrainConfig(model="mlp", epochs=2, batch_size=16, amp=False)
    member = Member(config, "fp32", images)
    Stack([member]).epoch()
    state = member.state()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(nn.Module, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        Member(config, "fp32", images, state)


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_recorded_stacks_give_the_numbers_of_eager_ones(
    fields: dict[str, Any], replays: list[int], small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit.  On a CPU a replay calls the step's body again."""
    images, asked = Images.of(small, CPU), configs(**fields)
    recorded = [numbers(*_run(member, fitted)) for member, fitted in _pairs(images, asked)]
    assert len(replays) == 3 * 3  # the last batch of an epoch is not full
    assert len(Stack(members(images, asked)).step.optimizer.param_groups) == len(asked)
    monkeypatch.setattr(stacked, "can_be_recorded", lambda *_: False)
    eager = [numbers(*_run(member, fitted)) for member, fitted in _pairs(images, asked)]
    assert len(replays) == 3 * 3
    for one, other in zip(eager, recorded, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_full_batches_of_a_stack_may_be_more_images_than_there_are(
    small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times 32 of 60."""
    images, asked = Images.of(small, CPU), configs(model="mlp", batch_size=32)
    eager = [numbers(*_run(member, fitted)) for member, fitted in _pairs(images, asked)]
    monkeypatch.setattr(graph, "record", lambda body, _: body)
    monkeypatch.setattr(stacked, "can_be_recorded", lambda *_: True)
    recorded = [numbers(*_run(member, fitted)) for member, fitted in _pairs(images, asked)]
    for one, other in zip(eager, recorded, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_stacks_recorded_with_the_optimizers_of_a_gpu_over_two_compositions(
    optimizer: str, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.optim's, over rows whose place in memory changes, their warm-up undone."""
    images = Images.of(small, CPU)
    asked = configs(model="mlp", optimizer=optimizer, weight_decay=0.1, lr_schedule="onecycle", epochs=2)

    def trained() -> list[dict[str, np.ndarray[Any, Any]]]:
        together = members(images, asked)
        for member in together:
            member.step.optimizer = on_device(member.row, member.config, CPU)
            member.step._set_rate()
        Stack(together).epoch()
        Stack(together[::-1]).epoch()
        return [numbers(member.fitted(), member.progress.epochs) for member in together]

    eager = trained()
    for one, member in zip(eager, members(images, asked), strict=True):
        train([member])
        alone = [epoch.train_loss for epoch in member.progress.epochs]
        np.testing.assert_allclose(one["epochs"][:, 0], alone, rtol=1e-4)
    monkeypatch.setattr(graph, "record", lambda body, _: body)
    monkeypatch.setattr(stacked, "can_be_recorded", lambda *_: True)
    for one, other in zip(eager, trained(), strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def _pairs(images: Images, asked: Sequence[TrainConfig]) -> list[tuple[Member, Fitted]]:
    together = members(images, asked)
    return list(zip(together, train(together), strict=True))


def _run(member: Member, fitted: Fitted) -> tuple[Fitted, Sequence[EpochMetrics]]:
    return fitted, member.progress.epochs


def test_of_what_differs_only_shape_parts_a_stack() -> None:
    own: dict[str, Any] = {"model": "mlp", "hidden_units": 32}
    key = stack_key(TrainConfig(**own), "fp32")
    same: list[dict[str, Any]] = [
        {"lr": 1.0},
        {"optimizer": "sgd"},
        {"momentum": 0.5},
        {"weight_decay": 1.0},
        {"epochs": 9},
        {"seed": 7},
    ]
    same += [{"lr_schedule": "cosine"}, {"kernel": "linear"}]
    other: list[dict[str, Any]] = [
        {"model": "baseline"},
        {"hidden_units": 33},
        {"hidden_layers": 2},
        {"activation": "tanh"},
    ]
    other += [{"batch_size": 16}, {"loss": "mse"}, {"augment": "rotate_shift"}]
    assert key is not None
    assert {stack_key(TrainConfig(**own | fields), "fp32") for fields in same} == {key}
    assert len({key, *(stack_key(TrainConfig(**own | fields), "fp32") for fields in other)}) == 1 + len(other)
    assert stack_key(TrainConfig(**own), "bf16") not in (key, None)


@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        ({"model": "resnet18"}, "fp32"),
        ({"model": "stabilized"}, "fp32"),
        ({"model": "svm"}, "fp32"),
        ({"model": "mlp", "deterministic": True}, "fp32"),
        ({"model": "mlp", "input": "stream"}, "fp32"),
        ({"model": "mlp"}, "fp16"),
    ],
    ids=str,
)
def test_what_is_never_stacked(fields: dict[str, Any], precision: Precision) -> None:
    assert stack_key(TrainConfig(**fields), precision) is None


@pytest.mark.parametrize("name", STACKED)
def test_stacked_models_have_layers_that_draw_nothing_and_keep_no_statistics(name: str) -> None:
    network = build(TrainConfig(model=name), 1, 10, 28)
    assert isinstance(network, nn.Sequential)
    for layer in network:
        assert isinstance(layer, (nn.Flatten, nn.Linear, nn.Conv2d, *ALIKE))
        if isinstance(layer, nn.Conv2d):
            assert layer.padding_mode == "zeros"
        if isinstance(layer, nn.Linear | nn.Conv2d):
            assert layer.bias is not None


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_of_images_have_the_mean_that_a_batch_has(name: str) -> None:
    logits, labels = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 5
    of_images = LOSSES_OF_IMAGES[name](logits, labels)
    assert of_images.shape == (7,)
    torch.testing.assert_close(of_images.mean(), LOSSES[name](logits, labels), rtol=1e-12, atol=0)
    torch.testing.assert_close(of_images[3], LOSSES[name](logits[3:4], labels[3:4]), rtol=1e-12, atol=0)


class _Counted(TorchDispatchMode):
    """Counts the operations that compute: on a GPU each is at least one launch."""

    VIEWS = ("t", "transpose", "permute", "expand", "select", "slice", "detach", "unbind", "as_strided")
    PARTS = ("view", "squeeze", "split", "alias", "empty", "lift", "_record_function")
    """Of the names of views, of what only allocates, and of profilers' marks."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self.dtypes: dict[str, set[torch.dtype]] = {}
        """By operation, what it gave."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += not (name in self.VIEWS or any(part in name for part in self.PARTS))
        made = func(*args, **kwargs or {})
        given = made if isinstance(made, tuple) else (made,)
        found = {tensor.dtype for tensor in given if isinstance(tensor, Tensor)}
        self.dtypes[name] = self.dtypes.get(name, set()) | found
        return made


@pytest.mark.parametrize("model", STACKED)
def test_eight_in_a_stack_launch_less_than_half_of_what_eight_alone_launch(model: str, small: Splits) -> None:
    """In float32, with the optimizers of a GPU."""
    config = TrainConfig(model=model, batch_size=16, amp=False)
    images = Images.of(small, CPU)
    torch.manual_seed(0)
    network = build(config, 1, 10, 8)
    assert isinstance(network, nn.Module)
    alone = prepared(network, config, small, CPU, None)
    alone.step.close()
    alone.step.optimizer = on_device(alone.network, config, CPU)
    of_one = _operations(alone.losses())
    of_stack = {}
    for n in (1, 8, 16):
        together = members(images, [config] * n)
        for member in together:
            member.step.optimizer = on_device(member.row, config, CPU)
        of_stack[n] = _operations(Stack(together).losses())
    print(f"{model}: operations of a step: alone {of_one}, stacked {of_stack}")
    assert of_stack[8] < 8 * of_one / 2
    assert of_stack[16] < 16 * of_one / 3


def _operations(losses: Iterator[tuple[Tensor, int]]) -> int:
    next(losses)  # the optimizer has its state then
    with _Counted() as counted:
        next(losses)
    found: int = counted.count
    return found


# --- on a GPU -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_stacks_on_a_gpu_begin_as_each_alone(fields: dict[str, Any], small: Splits) -> None:
    """From a CUDA graph, and eager.  A warning of a failed capture would fail this test."""
    cuda = torch.device("cuda")
    asked = [config.model_copy(update={"lr": 1e-4}) for config in configs(**fields)]
    images = Images.of(small, cuda)
    together = members(images, asked)
    stack = Stack(together)
    assert stack.recorded is not None
    assert stack.recorded.replay is not None
    stack.epoch()
    Stack(together[1:]).epoch()
    Stack(together).epoch()
    for member, config, epochs in zip(together, asked, (2, 3, 3), strict=True):
        own: list[EpochMetrics] = []
        fit(config, small, cuda, own.append)
        losses = [[epoch.train_loss, epoch.val_loss] for epoch in own[:epochs]]
        found = [[epoch.train_loss, epoch.val_loss] for epoch in member.progress.epochs]
        np.testing.assert_allclose(found, losses, rtol=1e-3)

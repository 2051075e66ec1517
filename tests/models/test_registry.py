"""One contract for every registered model; and what a run reads is what changes it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.data import DataLoader

import models
from datasets import Splits
from models import ModelError, TrainConfig, batches, registry, resnet
from models.fields import OWN_FIELDS
from models.resnet import ResNet
from models.result import EpochMetrics, Fitted
from models.training import fit

Bits = Callable[[tuple[Fitted, list[EpochMetrics]]], dict[str, str]]
Train = Callable[..., tuple[Fitted, list[EpochMetrics]]]

CPU = torch.device("cpu")
NETWORKS = [name for name in models.names() if name != "svm"]
PARAMETERS = {
    "resnet18": 11_175_370,
    "resnet50": 23_522_250,
    "simple_cnn": 1_199_882,
    "baseline": 206_922,
    "stabilized": 207_018,
    "high_vision": 215_370,
    "modernist": 206_922,
    "mlp": 784 * 100 + 100 + 100 * 10 + 10,
}


# --- what is built ------------------------------------------------------------------------------------------------


def test_names_are_the_nine_models_in_their_order() -> None:
    assert models.names() == [
        "resnet18", "resnet50", "simple_cnn", "baseline", "stabilized", "high_vision", "modernist", "mlp", "svm",
    ]  # fmt: skip


@pytest.mark.parametrize("name", models.names())
def test_is_network_is_what_build_gives(name: str) -> None:
    assert models.is_network(name) is isinstance(models.build(TrainConfig(model=name), 1, 10, 28), nn.Module)


@pytest.mark.parametrize("size", [8, 12, 28, 33])
@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 2)])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_gives_float_logits_for_each_class(name: str, channels: int, classes: int, size: int) -> None:
    torch.manual_seed(0)
    network = models.build(TrainConfig(model=name), channels, classes, size)
    assert isinstance(network, nn.Module)
    logits = network.eval()(torch.randn(3, channels, size, size))
    assert logits.shape == (3, classes)
    assert logits.dtype == torch.float32
    assert bool(logits.isfinite().all())
    assert not torch.equal(logits[0], logits[1])  # they depend on the image


@pytest.mark.parametrize("name", NETWORKS)
def test_network_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = models.build(TrainConfig(model=name), 3, 10, 28)
    assert isinstance(network, nn.Module)
    network(torch.randn(4, 3, 28, 28)).logsumexp(1).sum().backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not bool(value.grad.any())]
    assert without == []


@pytest.mark.parametrize("name", NETWORKS)
def test_network_parameter_count(name: str) -> None:
    network = models.build(TrainConfig(model=name), 1, 10, 28)
    assert isinstance(network, nn.Module)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["simple_cnn", "baseline", "stabilized", "high_vision", "modernist", "resnet18"])
def test_network_docstring_states_its_parameter_count(name: str) -> None:
    doc = models.MODELS[name].__doc__
    assert doc is not None
    assert f"{PARAMETERS[name]:,} parameters" in doc


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_weights_are_finite_and_of_the_fan_out_scale_for_any_channels(name: str) -> None:
    for channels in (1, 2, 3):
        torch.manual_seed(0)
        network = models.build(TrainConfig(model=name), channels, 10, 28)
        assert isinstance(network, nn.Module)
        weight = network.state_dict()["conv1.weight"]
        assert weight.shape == (64, channels, 7, 7)
        assert weight.std().item() == pytest.approx((2 / (64 * 7 * 7)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_is_torchvisions_with_its_weights_to_the_last_bit(name: str, channels: int) -> None:
    torch.manual_seed(3)
    ours = models.build(TrainConfig(model=name), channels, 10, 28)
    assert isinstance(ours, nn.Module)
    torch.manual_seed(3)
    theirs = getattr(torchvision.models, name)(weights=None, num_classes=10)
    if channels != 3:
        theirs.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(theirs.conv1.weight, mode="fan_out", nonlinearity="relu")
    images = torch.randn(4, channels, 33, 33)
    for network in (ours, theirs):
        network.train()(images).logsumexp(1).sum().backward()  # moves the running statistics
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, other)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert torch.equal(mine.grad, other.grad)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_mlp_layers_are_those_asked_for(activation: str) -> None:
    config = TrainConfig(model="mlp", hidden_layers=3, hidden_units=17, activation=activation)
    network = models.build(config, 3, 5, 9)
    assert isinstance(network, nn.Module)
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(243, 17), (17, 17), (17, 17), (17, 5)]
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[activation]
    assert sum(isinstance(layer, kind) for layer in network.modules()) == 3


def test_svm_takes_every_shape_and_its_own_fields() -> None:
    config = TrainConfig(model="svm", kernel="poly", C=2.5, gamma=0.25, degree=4, max_iter=7)
    for channels, classes, size in ((1, 10, 28), (3, 2, 8)):
        svc = models.build(config, channels, classes, size)
        assert not isinstance(svc, nn.Module)
        parameters = svc.get_params()
        asked = {"kernel": "poly", "C": 2.5, "gamma": 0.25, "degree": 4, "max_iter": 7}
        assert {key: parameters[key] for key in asked} == asked


@pytest.mark.parametrize("name", NETWORKS)
def test_build_draws_from_torchs_global_generator(name: str) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = models.build(TrainConfig(model=name), 1, 10, 8)
        assert isinstance(network, nn.Module)
        states.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_names_are_those_that_have_a_builder_and_networks_those_that_build_one() -> None:
    assert models.names() == list(models.MODELS)
    built = {name: models.build(TrainConfig(model=name), 1, 10, 28) for name in models.names()}
    assert {name: isinstance(model, nn.Module) for name, model in built.items()} == {
        name: models.is_network(name) for name in models.names()
    }


@pytest.mark.parametrize("name", models.names())
def test_builder_takes_three_shapes_and_keyword_only_fields_of_the_config(name: str) -> None:
    parameters = inspect.signature(models.MODELS[name]).parameters
    positional = [key for key, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    keyword = {key for key, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert positional == ["channels", "classes", "image_size"]
    assert keyword == set(OWN_FIELDS[name]) <= set(TrainConfig.model_fields)
    # A default here would be a second one beside TrainConfig's.
    assert all(parameters[key].default is inspect.Parameter.empty for key in keyword)


@pytest.mark.parametrize("name", ["alexnet", "", "SVM", "Resnet18", "svm "])
def test_unknown_model_is_refused_with_all_names(name: str) -> None:
    config = TrainConfig(model=name)
    for act in (
        lambda: models.build(config, 1, 10, 28),
        lambda: models.check(config, 1, 10, 28),
        lambda: models.is_network(name),
        lambda: models.fields_read({"model": name}),
    ):
        with pytest.raises(ModelError) as caught:
            act()
        message = str(caught.value)
        assert message.startswith(f"model: {name!r} ")
        assert "\n" not in message
        assert message.endswith(", ".join(models.names()))


# --- check --------------------------------------------------------------------------------------------------------

SHAPES = [
    ("simple_cnn", 5, 32, False),
    ("simple_cnn", 6, 32, True),
    ("simple_cnn", 7, 1, True),
    ("baseline", 2, 8, False),
    ("baseline", 3, 8, False),
    ("baseline", 4, 1, True),
    ("high_vision", 3, 8, False),
    ("high_vision", 4, 1, True),
    ("modernist", 3, 8, False),
    ("modernist", 4, 8, True),
    ("stabilized", 3, 8, False),
    ("stabilized", 4, 1, True),
    ("mlp", 1, 1, True),
    ("resnet18", 28, 1, False),
    ("resnet18", 32, 1, False),
    ("resnet18", 33, 1, True),
    ("resnet18", 28, 2, True),
    ("resnet18", 4, 2, True),
    ("resnet50", 28, 1, False),
    ("resnet50", 8, 3, True),
    ("svm", 4, 1, True),
]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # has a test of its own below
@pytest.mark.parametrize(("name", "size", "batch_size", "possible"), SHAPES)
def test_check_agrees_with_what_training_does(
    name: str,
    size: int,
    batch_size: int,
    possible: bool,
    make_splits: Callable[..., Splits],
) -> None:
    config = TrainConfig(model=name, batch_size=batch_size, epochs=1, amp=False)
    splits = replace(make_splits(8, 4, 4), image_size=size)
    if possible:
        models.check(config, 1, 10, size)
        assert fit(config, splits, CPU, lambda _: None).result.best_epoch == 1
        return
    with pytest.raises(ModelError) as caught:
        models.check(config, 1, 10, size)
    message = str(caught.value)
    assert message.startswith(f"{name} cannot train on 1×{size}×{size} images in batches of {batch_size} (")
    assert "\n" not in message
    with pytest.raises((RuntimeError, ValueError)):
        fit(config, splits, CPU, lambda _: None)


@pytest.mark.parametrize(
    ("name", "size"), [("baseline", 3), ("stabilized", 3), ("high_vision", 3), ("modernist", 3), ("simple_cnn", 5)]
)
def test_check_refuses_a_picture_too_small_without_a_stray_warning(name: str, size: int) -> None:
    with pytest.raises(ModelError, match=f"^{name} cannot train on 1×{size}×{size} images"):
        models.check(TrainConfig(model=name), 1, 10, size)


@pytest.mark.parametrize(
    ("name", "possible"), [("resnet18", False), ("resnet50", False), ("stabilized", True), ("mlp", True)]
)
def test_check_of_one_training_image_agrees_with_what_training_does(
    name: str, possible: bool, make_splits: Callable[..., Splits]
) -> None:
    config = TrainConfig(model=name, batch_size=32, epochs=1, amp=False)
    splits = make_splits(1, 4, 4, image_size=28)
    if possible:
        models.check(config, 1, 10, 28, images=1)
        assert fit(config, splits, CPU, lambda _: None).result.best_epoch == 1
        return
    with pytest.raises(ModelError, match=f"^{name} cannot train on "):
        models.check(config, 1, 10, 28, images=1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fit(config, splits, CPU, lambda _: None)
    models.check(config, 1, 10, 28, images=2)


@pytest.mark.parametrize(("batch_size", "images"), [(1, 100), (32, 1)])
def test_check_says_what_batch_norm_needs(batch_size: int, images: int) -> None:
    needs = r"\(batch norm needs two values a channel: give 2 images or more at once, or larger ones\)$"
    with pytest.raises(ModelError, match=needs):
        models.check(TrainConfig(model="resnet18", batch_size=batch_size), 1, 10, 28, images)
    models.check(TrainConfig(model="resnet18", batch_size=batch_size), 1, 10, 64, images)


def test_check_of_one_training_image_does_not_blame_the_batch_size() -> None:
    with pytest.raises(ModelError) as caught:
        models.check(TrainConfig(model="resnet18", batch_size=32), 1, 10, 28, images=1)
    assert "batches of 32" not in str(caught.value)  # no other batch size would help


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("most", [models.CHECKED_FOR_REAL, 0])
def test_check_draws_nothing_and_allocates_nothing_large(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[models.Model] = []
    real = models.build

    def recording(*arguments: Any) -> models.Model:
        built.append(real(*arguments))
        return built[-1]

    monkeypatch.setattr(registry, "build", recording)
    monkeypatch.setattr(registry, "CHECKED_FOR_REAL", most)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    models.check(TrainConfig(model=name), 3, 10, 28)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(built) == 2 * models.is_network(name)
    for model, device in zip(built, ("meta", "cpu" if most else "meta"), strict=bool(built)):
        assert isinstance(model, nn.Module)
        assert {tensor.device.type for tensor in model.state_dict().values()} == {device}


@pytest.mark.parametrize("name", ["resnet18", "mlp"])
def test_check_of_a_common_network_loads_no_compiler(name: str) -> None:
    code = (
        "import sys, models\n"
        f"models.check(models.TrainConfig(model='{name}'), 1, 10, 28)\n"
        "assert not {'torch._dynamo', 'sympy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", models.names())
def test_shape_key_is_equal_only_where_check_says_the_same(name: str) -> None:
    said: dict[tuple[object, ...], set[bool]] = {}
    for batch_size in (1, 2, 3, 32):
        for lr in (0.1, 0.01):
            config = TrainConfig(model=name, batch_size=batch_size, lr=lr, hidden_layers=1 + batch_size % 2)
            try:
                models.check(config, 1, 10, 28)
                possible = True
            except ModelError:
                possible = False
            said.setdefault(models.shape_key(config), set()).add(possible)
    assert all(len(answers) == 1 for answers in said.values())
    # What the shapes do not depend on is not in it: neither lr, nor a batch of 3 or of 32.
    one_layer = [TrainConfig(model=name, batch_size=n, lr=lr) for n in (2, 3, 32) for lr in (0.1, 0.01)]
    assert len({models.shape_key(config) for config in one_layer}) == 1


def test_shape_key_tells_models_and_their_own_fields_apart() -> None:
    configs = [TrainConfig(model=name) for name in models.names()]
    configs += [TrainConfig(model="mlp", hidden_units=7), TrainConfig(model="mlp", hidden_layers=7)]
    assert len({models.shape_key(config) for config in configs}) == len(configs)


# --- what is read -------------------------------------------------------------------------------------------------

ALWAYS = {
    "model", "epochs", "batch_size", "optimizer", "lr", "weight_decay", "lr_schedule", "loss", "augment", "seed",
    "deterministic", "amp", "input",
}  # fmt: skip
MLP = {"hidden_layers", "hidden_units", "activation"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": "baseline"}, ALWAYS | {"amp_dtype"}),
        ({"model": "resnet50", "optimizer": "adamw"}, ALWAYS | {"amp_dtype"}),
        ({"model": "resnet18", "optimizer": "sgd"}, ALWAYS | {"amp_dtype", "momentum", "nesterov"}),
        ({"model": "stabilized", "amp": False}, ALWAYS),
        ({"model": "baseline", "input": "stream", "amp": False}, ALWAYS | {"pin_memory"}),
        ({"model": "mlp"}, ALWAYS | MLP | {"amp_dtype"}),
        ({"model": "mlp", "kernel": "poly", "amp": False}, ALWAYS | MLP),
        ({"model": "svm"}, {"model", "kernel", "C", "gamma", "max_iter"}),
        ({"model": "svm", "kernel": "rbf"}, {"model", "kernel", "C", "gamma", "max_iter"}),
        ({"model": "svm", "kernel": "linear"}, {"model", "kernel", "C", "max_iter"}),
        ({"model": "svm", "kernel": "poly"}, {"model", "kernel", "C", "gamma", "degree", "max_iter"}),
        ({"model": "svm", "optimizer": "sgd", "input": "stream"}, {"model", "kernel", "C", "gamma", "max_iter"}),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_fields_read(values: dict[str, Any], expected: set[str]) -> None:
    assert models.fields_read(values) == expected
    assert models.fields_read(TrainConfig(**values).model_dump()) == expected  # the defaults filled in


@pytest.mark.parametrize("amp", [True, False, 1, 0, "yes", "no", "true", "false", "on", "off"])
def test_fields_read_of_values_as_written_is_that_of_the_config_they_make(amp: object) -> None:
    try:
        config = TrainConfig(model="mlp", amp=amp)
    except ValidationError:
        return  # a value that no run can have
    assert models.fields_read({"model": "mlp", "amp": amp}) == models.fields_read(config.model_dump())


def test_building_fields_are_those_that_some_builder_takes() -> None:
    assert models.building_fields() == MLP | {"kernel", "C", "gamma", "degree", "max_iter"}


@pytest.mark.parametrize("name", models.names())
def test_fields_possible_are_those_read_under_some_values(name: str) -> None:
    read: set[str] = set()
    for optimizer, input_ in (("sgd", "stream"), ("adam", "resident")):
        for kernel in ("rbf", "poly", "linear"):
            values = {"model": name, "optimizer": optimizer, "input": input_, "kernel": kernel}
            read |= models.fields_read(values)
    assert models.fields_possible(name) == read


BASES: dict[str, dict[str, Any]] = {
    "every condition holds": {
        "optimizer": "sgd", "input": "stream", "amp": True, "amp_dtype": "bf16", "lr": 0.01,
        "batch_size": 4, "epochs": 1, "weight_decay": 0.01,
    },
    "no condition holds": {
        "optimizer": "adam", "input": "resident", "amp": False, "amp_dtype": "bf16", "lr": 0.01,
        "batch_size": 4, "epochs": 1, "weight_decay": 0.01,
    },
    "rbf": {"kernel": "rbf"},
    "poly": {"kernel": "poly"},
    "linear": {"kernel": "linear"},
}  # fmt: skip

OTHER: dict[str, Callable[[TrainConfig], object]] = {
    "model": lambda config: "mlp" if config.model != "mlp" else "baseline",
    "epochs": lambda _: 2,
    "batch_size": lambda _: 6,
    "optimizer": lambda config: {"sgd": "adam", "adam": "adamw"}[config.optimizer],
    "lr": lambda _: 0.02,
    "momentum": lambda _: 0.5,
    "nesterov": lambda _: True,
    "weight_decay": lambda _: 0.1,
    "lr_schedule": lambda _: "cosine",
    "loss": lambda _: "mse",
    "augment": lambda _: "rotate_shift",
    "seed": lambda _: 43,
    "deterministic": lambda _: True,
    "amp": lambda config: not config.amp,
    "amp_dtype": lambda config: "auto" if config.amp_dtype == "bf16" else "bf16",
    "input": lambda config: "resident" if config.input == "stream" else "stream",
    "pin_memory": lambda _: True,
    "hidden_layers": lambda _: 2,
    "hidden_units": lambda _: 7,
    "activation": lambda _: "tanh",
    "kernel": lambda config: "rbf" if config.kernel == "linear" else "linear",
    "C": lambda _: 0.01,
    "gamma": lambda _: 0.5,
    "degree": lambda _: 2,
    "max_iter": lambda _: 1,
}
"""Another value of each field, one that has an effect where the field is read."""


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # max_iter=1 is meant to stop early
@pytest.mark.parametrize(
    ("name", "base"),
    [(name, base) for name in NETWORKS for base in ("every condition holds", "no condition holds")]
    + [("svm", base) for base in ("rbf", "poly", "linear")],
)
def test_fields_read_are_exactly_those_that_change_something(
    name: str, base: str, tiny: Splits, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits of weights and results, PyTorch's switch as seen inside, and the loader that is made: on this CPU with
    the run's own device, and for the pinning on a stand-in for a GPU, from which no batch is taken.
    """
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})  # so that "auto" is not bf16
    # One block a stage: what is read does not depend on the depth, and this test trains each model fifty times.
    shallow = lambda block, _, channels, classes: ResNet(block, (1, 1, 1, 1), channels, classes)  # noqa: E731
    monkeypatch.setattr(resnet, "ResNet", shallow)

    def observe(config: TrainConfig) -> dict[str, str]:
        loaders: list[object] = []
        switches: list[bool] = []
        reports: list[EpochMetrics] = []

        def real_loader(dataset: Any, **arguments: Any) -> DataLoader[Any]:
            loaders.append(arguments["pin_memory"])
            return DataLoader(dataset, **arguments)

        def no_batches(dataset: Any, **arguments: Any) -> list[tuple[Tensor, Tensor]]:
            loaders.append(("on a GPU", arguments["pin_memory"]))
            return []

        def report(metrics: EpochMetrics) -> None:
            switches.append(torch.are_deterministic_algorithms_enabled())
            reports.append(metrics)

        with monkeypatch.context() as patch:
            patch.setattr(batches, "DataLoader", real_loader)
            run = fit(config, tiny, CPU, report), reports
            if models.is_network(config.model):
                patch.setattr(batches, "DataLoader", no_batches)
                list(batches.batches(tiny.train, config, torch.device("cuda"), torch.Generator()))
        return bits(run) | {"switches": repr(switches), "loaders": repr(loaders)}

    assert set(OTHER) == set(TrainConfig.model_fields)
    config = TrainConfig(model=name, **BASES[base])
    before = observe(config)
    assert observe(config) == before
    changing = set()
    for field, other in OTHER.items():
        changed = TrainConfig(**config.model_dump() | {field: other(config)})
        assert getattr(changed, field) != getattr(config, field), field
        if observe(changed) != before:
            changing.add(field)
    assert changing == models.fields_read(config.model_dump())

"""A saved model is read by the tools of others: torchvision, NumPy, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.svm import SVC
from torch import Tensor, nn

import models
from datasets import DatasetConfig, Split, Splits, load_splits
from datasets.transforms import Transform
from models import TrainConfig, weights
from models.result import EpochMetrics, Fitted
from models.training import fit

Train = Callable[..., tuple[Fitted, list[EpochMetrics]]]
Array = np.ndarray[Any, Any]

CPU = torch.device("cpu")


def preparation(splits: Splits) -> dict[str, object]:
    return {"classes": splits.classes, "image_size": splits.image_size, "mean": splits.mean, "std": splits.std}


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as opened:
        metadata: dict[str, str] = opened.metadata()
    return metadata


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet18_loads_into_torchvisions_and_predicts_the_same(
    channels: int, amp: bool, make_splits: Callable[..., Splits], tmp_path: Path
) -> None:
    splits = make_splits(8, 4, 16, image_size=28)
    if channels == 3:
        splits = replace(
            splits,
            train=Split(splits.train.images.repeat(1, 3, 1, 1), splits.train.labels),
            val=Split(splits.val.images.repeat(1, 3, 1, 1), splits.val.labels),
            test=Split(splits.test.images.repeat(1, 3, 1, 1), splits.test.labels),
            mean=splits.mean * 3,
            std=splits.std * 3,
        )
    config = TrainConfig(model="resnet18", epochs=1, batch_size=8, amp=amp, amp_dtype="bf16")
    fitted = fit(config, splits, CPU, lambda _: None)
    path = tmp_path / "resnet18.safetensors"
    weights.save(fitted.model, config, preparation(splits), path)

    theirs = torchvision.models.resnet18(num_classes=10)
    if channels == 1:
        theirs.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    theirs.load_state_dict(load_file(path), strict=True)
    images = Transform.of(splits, CPU)(splits.test.images)
    assert isinstance(fitted.model, nn.Module)
    with torch.no_grad():
        expected = fitted.model(images)
        assert torch.equal(theirs.eval()(images), expected)
    assert len({tuple(row) for row in expected.tolist()}) == len(images)  # they tell the images apart
    if not amp:
        correct = (expected.argmax(1) == splits.test.labels).double().mean().item()
        assert correct == fitted.result.test_accuracy


@pytest.mark.parametrize("name", [name for name in models.names() if models.is_network(name)])
def test_network_tensors_are_its_whole_state(name: str, small: Splits, tmp_path: Path) -> None:
    config = TrainConfig(model=name)
    torch.manual_seed(3)
    network = models.build(config, 1, 10, 8)
    assert isinstance(network, nn.Module)
    network.to(memory_format=torch.channels_last)  # as amp leaves it
    path = tmp_path / "model.safetensors"
    weights.save(network, config, preparation(small), path)
    loaded = load_file(path)
    state = network.state_dict()
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value), key
    again = models.build(config, 1, 10, 8)
    assert isinstance(again, nn.Module)
    again.load_state_dict(loaded, strict=True)
    images = Transform.of(small, CPU)(small.test.images)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), network.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(model="mlp", lr=1 / 3, seed=2**63 - 1, hidden_layers=2),
        TrainConfig(model="mlp", seed=None, gamma=0.1 + 0.2),
        TrainConfig(model="svm", gamma="auto", C=1e-7, kernel="poly"),
    ],
    ids=["mlp", "mlp-no-seed", "svm"],
)
def test_header_brings_back_the_config_and_the_preparation(config: TrainConfig, small: Splits, tmp_path: Path) -> None:
    model = models.build(config, 1, 10, 8)
    if isinstance(model, SVC):
        model.fit(small.train.images.flatten(1).numpy(), small.train.labels.numpy())
    path = tmp_path / "model.safetensors"
    odd = replace(small, classes=("T-shirt/top", 'a "quoted" one', "größe", *small.classes[3:]))
    weights.save(model, config, preparation(odd), path)
    found = header(path)
    assert set(found) == {"config", "classes", "image_size", "mean", "std"}
    assert TrainConfig.model_validate_json(found["config"]) == config
    assert tuple(json.loads(found["classes"])) == odd.classes
    assert json.loads(found["image_size"]) == 8
    assert tuple(json.loads(found["mean"])) == small.mean  # to the last digit
    assert tuple(json.loads(found["std"])) == small.std


# --- support vectors ----------------------------------------------------------------------------------------------


def kernel_matrix(config: TrainConfig, gamma: float, features: Array, vectors: Array) -> Array:
    if config.kernel == "linear":
        return features @ vectors.T
    if config.kernel == "poly":
        return (gamma * features @ vectors.T) ** config.degree
    squared = (features**2).sum(1)[:, None] + (vectors**2).sum(1)[None, :] - 2 * features @ vectors.T
    values: Array = np.exp(-gamma * squared)
    return values


def one_against_one(config: TrainConfig, arrays: dict[str, Tensor], features: Array) -> Array:
    """The decision values of all pairs of classes, image × pair, positive for the first of the pair.

    libsvm keeps the support vectors class by class; row j−1 of class i's coefficients (j for j < i) is for the
    machine of the pair (i, j).
    """
    alone = {name: array.numpy() for name, array in arrays.items()}
    n_support, coefficients = alone["n_support"], alone["dual_coef"]
    matrix = kernel_matrix(config, float(alone["gamma"]), features, alone["support_vectors"])
    ends = np.cumsum(n_support)
    parts = [slice(end - n, end) for end, n in zip(ends, n_support, strict=True)]
    columns: list[Array] = []
    classes = len(n_support)
    for i in range(classes):
        for j in range(i + 1, classes):
            value = (
                matrix[:, parts[i]] @ coefficients[j - 1, parts[i]] + matrix[:, parts[j]] @ coefficients[i, parts[j]]
            )
            columns.append(value + alone["intercept"][len(columns)])
    return np.stack(columns, 1)


def votes(decisions: Array, classes: Array) -> Array:
    counts = np.zeros((len(decisions), len(classes)), dtype=np.int64)
    pair = 0
    for i in range(len(classes)):
        for j in range(i + 1, len(classes)):
            counts[:, i] += decisions[:, pair] > 0
            counts[:, j] += decisions[:, pair] <= 0
            pair += 1
    winners: Array = classes[counts.argmax(1)]
    return winners


@pytest.mark.parametrize(
    "fields",
    [
        {"kernel": "rbf"},
        {"kernel": "rbf", "gamma": "auto", "C": 5.0},
        {"kernel": "rbf", "gamma": 0.02},
        {"kernel": "poly", "degree": 2},
        {"kernel": "linear"},
    ],
    ids=lambda fields: "-".join(str(value) for value in fields.values()),
)
def test_svm_arrays_give_its_decisions_in_plain_numpy(fields: dict[str, Any], train: Train, tmp_path: Path) -> None:
    splits = load_splits(DatasetConfig(name="digits", image_size=8, limit=400))
    config = TrainConfig(model="svm", **fields)
    fitted, _ = train(splits, **config.model_dump())
    svc = fitted.model
    assert isinstance(svc, SVC)
    path = tmp_path / "svm.safetensors"
    weights.save(svc, config, preparation(splits), path)
    arrays = load_file(path)

    # What the header says is enough to prepare the images.
    found = header(path)
    (mean,), (std,) = json.loads(found["mean"]), json.loads(found["std"])
    features = ((splits.test.images.numpy() / 255 - mean) / std).reshape(len(splits.test), -1)
    read = TrainConfig.model_validate_json(found["config"])
    decisions = one_against_one(read, arrays, features)

    svc.decision_function_shape = "ovo"
    expected = svc.decision_function(features.astype(np.float32))
    np.testing.assert_allclose(decisions, expected, rtol=1e-4, atol=1e-4)
    predicted = votes(decisions, arrays["classes"].numpy())
    assert np.array_equal(predicted, svc.predict(features.astype(np.float32)))
    assert (predicted == splits.test.labels.numpy()).mean() == fitted.result.test_accuracy > 0.8


def test_svm_of_two_classes_gives_its_decisions_in_plain_numpy(train: Train, tmp_path: Path) -> None:
    """sklearn turns the sign round where there are two classes: positive is the second."""
    splits = load_splits(DatasetConfig(name="digits", image_size=8, limit=300))
    train_, val, test = (Split(part.images, part.labels % 2) for part in (splits.train, splits.val, splits.test))
    splits = replace(splits, train=train_, val=val, test=test, classes=("even", "odd"))
    config = TrainConfig(model="svm")
    fitted, _ = train(splits, model="svm")
    svc = fitted.model
    assert isinstance(svc, SVC)
    path = tmp_path / "svm.safetensors"
    weights.save(svc, config, preparation(splits), path)
    arrays = {name: array.numpy() for name, array in load_file(path).items()}
    features = Transform.of(splits, CPU)(splits.test.images).flatten(1).double().numpy()
    matrix = kernel_matrix(config, float(arrays["gamma"]), features, arrays["support_vectors"])
    decisions = matrix @ arrays["dual_coef"][0] + arrays["intercept"][0]
    np.testing.assert_allclose(decisions, svc.decision_function(features.astype(np.float32)), rtol=1e-4, atol=1e-4)
    assert np.array_equal(arrays["classes"][(decisions > 0).astype(int)], svc.predict(features.astype(np.float32)))


def test_svm_of_fewer_classes_than_the_data_names_says_which_they_are(
    small: Splits, train: Train, tmp_path: Path
) -> None:
    kept = (small.train.labels == 3) | (small.train.labels == 5) | (small.train.labels == 8)
    splits = replace(small, train=Split(small.train.images[kept], small.train.labels[kept]))
    fitted, _ = train(splits, model="svm")
    path = tmp_path / "svm.safetensors"
    weights.save(fitted.model, TrainConfig(model="svm"), preparation(splits), path)
    arrays = load_file(path)
    assert arrays["classes"].tolist() == [3, 5, 8]
    assert arrays["n_support"].shape == (3,)
    assert arrays["dual_coef"].shape == (2, int(arrays["n_support"].sum()))
    assert len(json.loads(header(path)["classes"])) == 10


def test_svm_file_holds_plain_arrays_of_known_names(small: Splits, train: Train, tmp_path: Path) -> None:
    fitted, _ = train(small, model="svm", gamma=0.125)
    path = tmp_path / "svm.safetensors"
    weights.save(fitted.model, TrainConfig(model="svm", gamma=0.125), preparation(small), path)
    arrays = load_file(path)
    assert set(arrays) == {"support_vectors", "dual_coef", "intercept", "n_support", "classes", "gamma"}
    assert (arrays["gamma"].dtype, float(arrays["gamma"])) == (torch.float64, 0.125)

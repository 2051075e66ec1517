from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from datasets import DatasetConfig, load_splits
from datasets.transforms import Transform
from models import TrainConfig, weights
from models.training import fit
from tests.tune_jobs.results.report.conftest import MakeRun
from tune_jobs.results import best
from tune_jobs.results.report import predictions
from tune_jobs.results.report.predictions import MOST_CONFUSED
from tune_jobs.results.rundir import RunDir

DIGITS = {"name": "digits", "limit": 400}


def trained(make_run: MakeRun, config: dict[str, Any]) -> tuple[RunDir, float, Any]:
    """A run whose best config has been trained, its test accuracy and its model."""
    run = make_run([(config, "COMPLETE", [0.9], {"seed": config.get("seed")})], {"dataset": DIGITS, "train": config})
    splits = load_splits(DatasetConfig(**DIGITS))
    run.best.write_text(run.best.read_text().replace("data_sha256: " + "a" * 64, f"data_sha256: {splits.sha256}"))
    train_config = TrainConfig(**best.load(run.best).train)
    fitted = fit(train_config, splits, torch.device("cpu"), lambda _: None)
    preparation: dict[str, object] = {"classes": splits.classes}
    weights.save(fitted.model, train_config, preparation, run.best.with_suffix(".safetensors"))
    return run, fitted.result.test_accuracy, fitted.model


@pytest.mark.parametrize(
    "config",
    [
        {"model": "mlp", "epochs": 2, "lr": 0.01, "seed": 1, "amp": False},
        {"model": "svm", "kernel": "rbf", "C": 0.01},
        {"model": "svm", "kernel": "poly", "degree": 2, "C": 0.001},
        {"model": "svm", "kernel": "linear", "C": 0.0001},
    ],
    ids=lambda config: f"{config['model']}-{config.get('kernel')}",
)
def test_look_says_what_the_model_said_when_it_was_trained(make_run: MakeRun, config: dict[str, Any]) -> None:
    run, accuracy, model = trained(make_run, config)
    assert predictions.known(run) is None
    found = predictions.look(run, None)
    assert found is not None
    assert found.matrix().trace() / found.matrix().sum() == pytest.approx(accuracy)
    splits = load_splits(DatasetConfig(**DIGITS))
    if isinstance(model, SVC):
        features = Transform.of(splits, torch.device("cpu"))(splits.test.images).flatten(1).numpy()
        assert (found.predicted == model.predict(features)).all()
    assert len(found.shown) == min(MOST_CONFUSED, (found.predicted != found.labels).sum())
    assert (found.predicted[found.shown] != found.labels[found.shown]).all()
    assert (np.diff(found.sureness) <= 0).all()
    assert (found.images == splits.test.images[found.shown].numpy()).all()


def test_known_is_of_the_weights_that_are_there(make_run: MakeRun) -> None:
    run, *_ = trained(make_run, {"model": "mlp", "epochs": 1, "lr": 0.01, "seed": 1})
    found = predictions.look(run, None)
    again = predictions.known(run)
    assert found is not None
    assert again is not None
    for field in dataclasses.fields(found):
        assert np.array_equal(getattr(found, field.name), getattr(again, field.name)), field.name
    path = run.best.with_suffix(".safetensors")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert predictions.known(run) is None


def test_weights_of_another_config_are_not_looked_at(make_run: MakeRun) -> None:
    run, *_ = trained(make_run, {"model": "mlp", "epochs": 1, "lr": 0.01, "seed": 1})
    run.best.write_text(run.best.read_text().replace("lr: 0.01", "lr: 0.02"))
    assert predictions.look(run, None) is None


def test_svm_of_two_classes_votes_as_it_predicts(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 9)).astype("float32")
    labels = (features[:, 0] > 0).astype("int64") * 2  # classes 0 and 2 of 3
    config = TrainConfig(model="svm")
    model = SVC(kernel="rbf", C=config.C, gamma=config.gamma).fit(features[:40], labels[:40])
    weights.save(model, config, {}, tmp_path / "svm.safetensors")
    images = torch.from_numpy(features).reshape(60, 1, 3, 3)
    votes = predictions._scores(tmp_path / "svm.safetensors", 3, images)
    assert (votes.argmax(1).numpy() == model.predict(features)).all()
    assert len(set(votes.argmax(1).tolist())) == 2

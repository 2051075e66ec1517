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
from tune_jobs.errors import UsageError
from tune_jobs.results import best
from tune_jobs.results.report import page, predictions
from tune_jobs.results.report.predictions import FEWEST, GLANCE_MACS, MOST_CONFUSED
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
    assert [float(shown) for shown in found.surplus] == pytest.approx(found.sureness, rel=5e-3)
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


def test_glance_takes_as_many_images_as_are_cheap_and_a_look_takes_all(make_run: MakeRun) -> None:
    run, *_ = trained(make_run, {"model": "mlp", "epochs": 1, "lr": 0.01, "seed": 1})
    splits = load_splits(DatasetConfig(**DIGITS))
    of = len(splits.test)
    few = min(FEWEST, of) - 1
    assert predictions.glance(run, splits, int(GLANCE_MACS / (few + 0.5))) is None  # too dear: fewer are not worth it
    assert predictions.glance(run, splits, None) is None
    assert predictions.known(run) is None
    part = predictions._run(run, splits, 30)
    predictions._keep(run, part)
    assert (part.of, len(part.numbers), part.whole) == (of, 30, False)
    assert (np.diff(part.numbers) > 0).all()
    assert (part.labels == splits.test.labels[torch.from_numpy(part.numbers)].numpy()).all()
    assert part.matrix().sum() == 30
    shown = torch.from_numpy(part.numbers[part.shown])
    assert (part.images == splits.test.images[shown].numpy()).all()

    again = predictions.glance(run, splits, None)  # what is kept costs nothing
    assert again is not None
    assert (again.numbers == part.numbers).all()
    page.write([run], run.report, look=False)
    assert f"30 of its {of} test images, drawn at random; python -m tune_jobs report {run.path} looks at all" in (
        run.report.read_text()
    )

    found = predictions.look(run, None)
    assert found is not None
    assert found.whole
    assert (found.predicted[part.numbers] == part.predicted).all()
    known = predictions.glance(run, splits, None)
    assert known is not None
    assert known.whole


def test_look_at_a_run_that_may_not_be_written_goes_on_without_keeping(make_run: MakeRun, tmp_path: Path) -> None:
    run, accuracy, _ = trained(make_run, {"model": "mlp", "epochs": 1, "lr": 0.01, "seed": 1})
    kept = run.best.with_suffix(".predictions.npz")
    kept.mkdir()
    found = predictions.look(run, None)
    assert found is not None
    assert found.matrix().trace() / found.matrix().sum() == pytest.approx(accuracy)
    page.write([run], tmp_path / "mine.html")
    said = f"They could not be kept for the next report ({kept}: Is a directory)."
    assert said in (tmp_path / "mine.html").read_text()
    with pytest.raises(IsADirectoryError):
        predictions.glance(run, load_splits(DatasetConfig(**DIGITS)), 1000)


def test_glance_at_a_cheap_model_takes_all(make_run: MakeRun) -> None:
    run, accuracy, _ = trained(make_run, {"model": "mlp", "epochs": 1, "lr": 0.01, "seed": 1})
    found = predictions.glance(run, load_splits(DatasetConfig(**DIGITS)), 1000)
    assert found is not None
    assert found.whole
    assert found.matrix().trace() / found.matrix().sum() == pytest.approx(accuracy)
    run.best.with_suffix(".predictions.npz").unlink()
    others = load_splits(DatasetConfig(**DIGITS | {"split_seed": 5}))
    with pytest.raises(UsageError, match="not the images"):
        predictions.glance(run, others, 1000)


def test_kept_of_an_earlier_version_is_looked_at_again(make_run: MakeRun) -> None:
    run, *_ = trained(make_run, {"model": "mlp", "epochs": 1, "lr": 0.01, "seed": 1})
    assert predictions.look(run, None) is not None
    path = run.best.with_suffix(".predictions.npz")
    with np.load(path) as kept:
        fields = {name: kept[name] for name in kept.files if name not in ("of", "numbers")}
    np.savez_compressed(path, **fields)
    assert predictions.known(run) is None
    assert predictions.look(run, None) is not None


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
    votes = predictions._scorer(tmp_path / "svm.safetensors", 3, images.shape[1], images.shape[2])(images)
    assert (votes.argmax(1).numpy() == model.predict(features)).all()
    assert len(set(votes.argmax(1).tolist())) == 2

"""What the best model says of test images, from the weights that the search kept or `train` wrote.

The weights are run once; what they say is kept beside them, so that later reports need neither the data nor PyTorch's
time.  Nothing is trained here.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_jobs.errors import UsageError
from tune_jobs.results import best
from tune_jobs.results.rundir import RunDir, replacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from datasets import Splits

MOST_CONFUSED = 24
"""Images shown."""
GLANCE_MACS = 10e9
"""Multiply-accumulates that a glance may cost: 1 to 3 seconds of CPU time for our models, shared by the cores."""
FEWEST = 100
"""Images that a glance is worth."""
Array = np.ndarray[Any, Any]
_ARRAYS = ("numbers", "labels", "predicted", "shown", "sureness", "images")
_KEPT = (*_ARRAYS, "weights", "classes", "of")


@dataclass(frozen=True)
class Predictions:
    """Of one model, on the test part or some of it."""

    classes: list[str]
    of: int
    """How many images the test part has."""
    numbers: Array
    """int64, N: which of them were looked at, ascending."""
    labels: Array
    """int64, N."""
    predicted: Array
    """int64, N."""
    shown: Array
    """int64: places in `numbers` of wrongly named images, the surest mistakes first; at most MOST_CONFUSED."""
    sureness: Array
    """float64, of those: the probability of the wrong class less that of the right one (of an svm, votes)."""
    images: Array
    """uint8 M×C×H×W, those shown."""
    unkept: str = ""
    """Why they could not be kept; empty where they are."""

    @property
    def whole(self) -> bool:
        """Whether all of the test part was looked at."""
        return len(self.numbers) == self.of

    @property
    def surplus(self) -> list[str]:
        """`sureness`, as it is shown."""
        return [f"{value:.3g}" for value in self.sureness]

    def matrix(self) -> Array:
        """Counts, true class × named class."""
        k = len(self.classes)
        return np.bincount(self.labels * k + self.predicted, minlength=k * k).reshape(k, k)


def known(run: RunDir) -> Predictions | None:
    """What is kept of an earlier look, if it is of the weights that are there now."""
    path, weights = _kept(run), run.best_model
    if not path.is_file() or not weights.exists() or not _is_of(run, weights):
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if not set(_KEPT) <= set(kept.files) or str(kept["weights"]) != _digest(weights):
                return None  # of an earlier version, or of other weights
            fields = {name: kept[name] for name in _ARRAYS}
            return Predictions(classes=[str(name) for name in kept["classes"]], of=int(kept["of"]), **fields)
    except _DAMAGED:
        return None  # it is looked again


_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
    *(EOFError, KeyError, NotImplementedError, OSError, OverflowError, ValueError),
)
"""What NumPy raises, depending on which byte of the file it was."""


def look(run: RunDir, data_dir: Path | None) -> Predictions | None:
    """As `known`, of the whole test part; else the weights are run on it, and what they say is kept.

    None where there are no weights, or they are of another config than best.yaml's.  Of a run that may be read and not
    written, they are not kept.  Raises DataError where the data cannot be had, UsageError where they are other data or
    what is kept cannot be put on the run's object store.
    """
    from datasets import load_splits

    found = known(run)
    if found is not None and found.whole:
        return found
    if not run.best_model.exists() or not _is_of(run, run.best_model):
        return None
    found = _run(run, load_splits(best.load(run.best).dataset, data_dir), None)
    try:
        _keep(run, found)
    except OSError as error:
        return replace(found, unkept=f"{error.filename}: {error.strerror}")
    return found


def glance(run: RunDir, splits: Splits, macs: int | None) -> Predictions | None:
    """As `look`, at no more test images than GLANCE_MACS allow; `splits` are the data of the run.

    `macs`: of the model for one image; None where they are not known.  The images are drawn once for all, since a test
    part may be in an order of its own.  None, too, where FEWEST would take too long.  Raises UsageError as `look`,
    and OSError where they cannot be kept, which is all that it is for.
    """
    found = known(run)
    if found is not None:
        return found
    if not run.best_model.exists() or not _is_of(run, run.best_model):
        return None
    most = int(GLANCE_MACS / macs) if macs else 0
    if most < min(FEWEST, len(splits.test)):
        return None
    found = _run(run, splits, most)
    _keep(run, found)
    return found


def _keep(run: RunDir, found: Predictions) -> None:
    with replacing(_kept(run)) as temporary, temporary.open("wb") as file:
        arrays = {name: getattr(found, name) for name in _ARRAYS}
        np.savez_compressed(
            file, weights=_digest(run.best_model), classes=np.array(found.classes), of=found.of, **arrays
        )
    run.publish(_kept(run))


def png(image: Array) -> str:
    """A picture, uint8 C×H×W, as a data URI."""
    from PIL import Image

    picture = Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _kept(run: RunDir) -> Path:
    return run.best.with_suffix(".predictions.npz")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_of(run: RunDir, path: Path) -> bool:
    """Whether the weights are of best.yaml's config."""
    from models import TrainConfig

    return (
        run.best.exists() and best.header(path)["config"] == TrainConfig(**best.load(run.best).train).model_dump_json()
    )


def _run(run: RunDir, splits: Splits, most: int | None) -> Predictions:
    import torch

    from datasets.transforms import Transform

    if best.load(run.best).data_sha256 not in (None, splits.sha256):
        raise UsageError("these are not the images that the config was chosen on")
    of = len(splits.test)
    numbers = torch.arange(of)
    if most is not None and most < of:
        numbers = torch.randperm(of, generator=torch.Generator().manual_seed(0))[:most].sort().values
    images, labels = splits.test.images[numbers], splits.test.labels[numbers]
    transform = Transform.of(splits, torch.device("cpu"))
    weights = run.best_model
    try:
        scores_of = _scorer(weights, len(splits.classes), splits.channels, splits.image_size)
        scores = torch.cat([scores_of(transform(part)) for part in images.split(500)])
    except (KeyError, RuntimeError) as error:  # what load_state_dict and a look into the file raise
        raise UsageError(f"{weights.name}: its tensors are not those of its config") from error
    predicted = scores.argmax(1)
    rows = torch.arange(len(labels))
    sure = scores[rows, predicted] - scores[rows, labels]
    wrong = (predicted != labels).nonzero().flatten()
    shown = wrong[sure[wrong].argsort(descending=True, stable=True)][:MOST_CONFUSED]
    return Predictions(
        classes=list(splits.classes),
        of=of,
        numbers=numbers.numpy(),
        labels=labels.numpy(),
        predicted=predicted.numpy(),
        shown=shown.numpy(),
        sureness=sure[shown].double().numpy(),
        images=images[shown].numpy(),
    )


def _scorer(path: Path, classes: int, channels: int, image_size: int) -> Callable[[Tensor], Tensor]:
    """A function from images, float N×C×H×W as the model sees them, to a score for each image and class, N×classes, the
    highest of which is the class that the model names."""
    import torch
    from safetensors.torch import load_file
    from torch import nn

    import models
    from models import TrainConfig
    from models.valueless import without_values

    config = TrainConfig(**json.loads(best.header(path)["config"]))
    tensors = load_file(path)
    if not models.is_network(config.model):
        return lambda images: _svm_votes(config, tensors, images.flatten(1), classes)
    with without_values("cpu"):  # which the file has
        network = models.build(config, channels, classes, image_size)
    assert isinstance(network, nn.Module)
    network.load_state_dict(tensors)
    network.eval()

    def scores(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = network(images)
        return logits.softmax(1)

    return scores


def _svm_votes(config: Any, tensors: dict[str, Tensor], x: Tensor, classes: int) -> Tensor:
    """Votes of the one-against-one classifiers, as libsvm counts them (Chang and Lin 2011, section 4.1 and 7)."""
    import torch
    from sklearn.metrics.pairwise import pairwise_kernels

    vectors, gamma = tensors["support_vectors"].numpy(), float(tensors["gamma"])
    own = {"rbf": {"gamma": gamma}, "poly": {"gamma": gamma, "degree": config.degree, "coef0": 0.0},
           "sigmoid": {"gamma": gamma, "coef0": 0.0}, "linear": {}}[config.kernel]  # fmt: skip
    kernel = torch.from_numpy(pairwise_kernels(x.double().numpy(), vectors.astype("float64"), config.kernel, **own))
    dual, intercept = tensors["dual_coef"].double(), tensors["intercept"].double()
    ends = [0, *tensors["n_support"].cumsum(0).tolist()]
    names = tensors["classes"].tolist()
    votes = torch.zeros(len(x), classes, dtype=torch.float64)
    pair = 0
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            of_i, of_j = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
            decision = kernel[:, of_i] @ dual[j - 1, of_i] + kernel[:, of_j] @ dual[i, of_j] + intercept[pair]
            if len(names) == 2:
                decision = -decision  # scikit-learn turns the sign of two classes round
            first = decision > 0
            votes[first, names[i]] += 1
            votes[~first, names[j]] += 1
            pair += 1
    return votes

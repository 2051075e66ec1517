"""Where images come from: each source reads one kind of data into one uint8 tensor of images and one of labels."""

from __future__ import annotations

import gzip
import http.client
import importlib.util
import math
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets import cache
from datasets.config import DataError, DatasetConfig
from datasets.reasons import in_a_line


@dataclass(frozen=True)
class Dataset:
    """The images of one source, before they are split."""

    images: Tensor
    """uint8, N×C×H×W."""
    labels: Tensor
    """int64, N, from 0 to len(classes) − 1."""
    classes: tuple[str, ...]
    image_size: int
    """Pixels a side that the models are to see; the stored images may have another size."""
    official_train: int | None = None
    """How many images, from the first, are the official training set; None where there is no official split."""
    stored: Tensor | None = None
    """int64, rising: which of the source's N images `images` holds, in its rows; None where it holds all.  `labels` has
    all N of them."""


DIGITS = "datasets/data/digits.csv.gz"
"""In scikit-learn's package: a line an image, its 64 grey values and its class."""

Source = Callable[[DatasetConfig, Path | None], Dataset]
"""(config, data directory or None) -> Dataset.  Raises DataError with one line that names the file at fault."""


def digits(config: DatasetConfig, data_dir: Path | None) -> Dataset:  # noqa: ARG001 - bundled, needs no directory
    """scikit-learn's 1,797 handwritten digits, 8×8 grey values 0–16 (a part of UCI ML hand-written digits).

    Read as `sklearn.datasets.load_digits` reads them, whose import takes a second.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("digits: scikit-learn, which has them, is not installed")
    with gzip.open(Path(found.submodule_search_locations[0]) / DIGITS, "rt") as file:
        values = np.loadtxt(file, delimiter=",")
    grey = np.rint(values[:, :-1] * (255 / 16)).astype(np.uint8)
    return Dataset(
        images=torch.from_numpy(grey).reshape(-1, 1, 8, 8),
        labels=torch.from_numpy(values[:, -1].astype(np.int64)),
        classes=tuple(str(digit) for digit in range(10)),
        image_size=config.image_size or 28,
    )


# --- IDX files: MNIST and FashionMNIST ---------------------------------------------------------------------------

IDX_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The four files of both sets, named alike in both; each may end in .gz."""

_MNIST_CLASSES = tuple("0123456789")
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FIRST_LABELS = {"MNIST": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "FashionMNIST": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5)}
"""The first ten training labels.  Their files and other sets' (KMNIST's) have the same names: this tells them apart."""


def fashion_mnist(config: DatasetConfig, data_dir: Path | None) -> Dataset:
    """FashionMNIST: 60,000 + 10,000 grey images of 28×28 (Xiao et al. 2017, arXiv:1708.07747)."""
    package_dir = Path("/usr/share/datasets/fashion-mnist")
    return _idx_dataset("FashionMNIST", "dataset-fashion-mnist", package_dir, _FASHION_CLASSES, config, data_dir)


def mnist(config: DatasetConfig, data_dir: Path | None) -> Dataset:
    """MNIST: 60,000 + 10,000 grey images of 28×28 (LeCun et al. 1998)."""
    package_dir = Path("/usr/share/datasets/mnist")
    return _idx_dataset("MNIST", None, package_dir, _MNIST_CLASSES, config, data_dir)


def _idx_dataset(
    title: str,
    package: str | None,
    package_dir: Path,
    classes: tuple[str, ...],
    config: DatasetConfig,
    data_dir: Path | None,
) -> Dataset:
    cure = f"give a folder with its four IDX files as --data-dir{f' or apt-get install {package}' if package else ''}"
    files = _find_idx(title, data_dir, package_dir, cure)
    if files is None:
        files = _download(title, cure)
        cure = f"remove {files[0].parent} to have it downloaded again"
    train_images, train_labels, test_images, test_labels = (read_idx(path, cure) for path in files)
    for images_path, images, labels_path, labels in (
        (files[0], train_images, files[1], train_labels),
        (files[2], test_images, files[3], test_labels),
    ):
        if images.ndim != 3 or 0 in images.shape or images.shape[1] != images.shape[2]:
            raise DataError(f"{images_path}: expected square images, found an array of shape {images.shape}; {cure}")
        if labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"{images_path} holds {len(images):,} images, {labels_path} labels of shape {labels.shape}; {cure}"
            )
        if labels.max() >= len(classes):
            raise DataError(f"{labels_path}: label {labels.max()} is outside 0–{len(classes) - 1}; {cure}")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataError(f"{files[0]} and {files[2]} hold images of different sizes; {cure}")
    first = tuple(train_labels[:10].tolist())
    if len(train_labels) == 60_000 and first != _FIRST_LABELS[title]:  # one's own set has another number
        whose = next((other for other, theirs in _FIRST_LABELS.items() if theirs == first), "another set")
        raise DataError(f"{files[1]}: these are {whose}'s files, not {title}'s; {cure}")
    return Dataset(
        images=torch.from_numpy(np.concatenate([train_images, test_images])).unsqueeze(1),
        labels=torch.from_numpy(np.concatenate([train_labels, test_labels]).astype(np.int64)),
        classes=classes,
        image_size=config.image_size or train_images.shape[1],
        official_train=len(train_labels),
    )


def read_idx(path: Path, cure: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The uint8 array of an IDX file, gzipped or not.

    The format is documented at the end of http://yann.lecun.com/exdb/mnist: two zero bytes, 0x08 for unsigned
    bytes, the number of dimensions, each dimension as a big-endian 32-bit integer, then the bytes.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); {cure}") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or not 1 <= data[3] <= 4:
        raise DataError(f"{path}: not an IDX file of unsigned bytes (it starts with {data[:4].hex(' ')}); {cure}")
    dimensions = data[3]
    header = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[start : start + 4], "big") for start in range(4, header, 4))
    expected = header + math.prod(shape)
    if len(data) < header or len(data) != expected:
        raise DataError(f"{path}: truncated or corrupt: {len(data):,} bytes where {expected:,} are promised; {cure}")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _find_idx(title: str, data_dir: Path | None, package_dir: Path, cure: str) -> list[Path] | None:
    """The four files in the first folder that has any of them."""
    folders = [] if data_dir is None else [data_dir / title / "raw", data_dir / title.lower(), data_dir]
    for folder in [*folders, package_dir]:
        found = [_plain_or_gz(folder / part) for part in IDX_PARTS]
        if not any(found):
            continue
        missing = [part for part, path in zip(IDX_PARTS, found, strict=True) if path is None]
        if missing:
            raise DataError(f"{folder / missing[0]}(.gz): missing, though other files of {title} are there; {cure}")
        return [path for path in found if path is not None]
    return None


def _plain_or_gz(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _download(title: str, cure: str) -> list[Path]:
    """The four files by torchvision's downloader, kept in the user's cache folder; it shows its own progress."""
    import torchvision

    kept = cache.folder()
    raw = kept / title / "raw"
    found = [path for part in IDX_PARTS if (path := _plain_or_gz(raw / part)) is not None]
    if len(found) == len(IDX_PARTS):
        return found
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept, prefix=f"{title}-") as scratch:
            getattr(torchvision.datasets, title)(root=scratch, download=True)
            for part in IDX_PARTS:  # whole ones, also where another search downloads them at the same time
                (Path(scratch) / title / "raw" / part).replace(raw / part)
    except (http.client.HTTPException, OSError, RuntimeError, EOFError, zlib.error) as error:
        raise DataError(
            f"{title} is not on this machine and cannot be downloaded ({in_a_line(error)}); {cure}"
        ) from error
    return [raw / part for part in IDX_PARTS]

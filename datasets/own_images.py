"""A person's own images in an .npz file, and where a person's own files are looked for."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from datasets.config import DataError, DatasetConfig
from datasets.reasons import in_a_line
from datasets.sources import Dataset

UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, PIL.Image.DecompressionBombError,
)  # fmt: skip
"""What zipfile, NumPy and Pillow raise on damaged or hostile files."""


def npz(config: DatasetConfig, data_dir: Path | None) -> Dataset:
    """An .npz file with `images`, uint8 N×H×W or N×H×W×C, and `labels`, N integers or strings."""
    path = own_path(config, data_dir)
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not a readable .npz, which is a zip archive of arrays, as numpy.savez writes")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # a pickle could run code
            missing = {"images", "labels"} - set(arrays.files)
            if missing:
                raise DataError(f"{path}: no array {' or '.join(sorted(missing))} in it; it has {arrays.files}")
            images, labels = (np.asarray(arrays[name]) for name in ("images", "labels"))
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable .npz of plain arrays ({in_a_line(error)})") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(f"{path}: images are {images.dtype} {images.shape}; uint8 N×H×W or N×H×W×C is needed")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{path}: labels are {labels.dtype} {labels.shape} for {len(images):,} images; "
            f"{len(images):,} integers or strings are needed"
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[3] > 4:
        raise DataError(f"{path}: images are {images.shape}: the last axis is the channels, 4 at most (N×H×W×C)")
    height, width = images.shape[1:3]
    if height != width and config.image_size is None:
        raise DataError(f"{path}: images are {height}×{width}; say what square to bring them to (dataset.image_size)")
    classes, indices = np.unique(labels, return_inverse=True)
    return Dataset(
        images=torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        labels=torch.from_numpy(indices.astype(np.int64)),
        classes=tuple(str(name) for name in classes),
        image_size=config.image_size or height,
    )


def own_path(config: DatasetConfig, data_dir: Path | None) -> Path:
    """`dataset.path`, looked for from the working directory, then from the data directory."""
    if not config.path:
        raise DataError(f"dataset {config.name} needs a path (dataset.path)")
    try:
        path = Path(config.path).expanduser()
        path.exists()  # a path may also be too long to ask about
    except (OSError, RuntimeError) as error:
        raise DataError(f"dataset.path: {config.path}: {in_a_line(error)}") from error
    candidates = [path] if path.is_absolute() or data_dir is None else [path, data_dir / path]
    for candidate in candidates:
        if candidate.exists():
            return candidate.absolute()
    raise DataError(f"{' and '.join(str(c.absolute()) for c in candidates)}: there is no such file or folder")

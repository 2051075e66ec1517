"""A person's own images: an .npz file, or a folder of pictures."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from datasets.config import DataError, DatasetConfig
from datasets.sources import Dataset

_UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, PIL.Image.DecompressionBombError,
)  # fmt: skip
"""What zipfile, NumPy and Pillow raise on damaged or hostile files."""


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def npz(config: DatasetConfig, data_dir: Path | None) -> Dataset:
    """An .npz file with `images`, uint8 N×H×W or N×H×W×C, and `labels`, N integers or strings."""
    path = _own_path(config, data_dir)
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
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable .npz of plain arrays ({_in_a_line(error)})") from error
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


PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")
"""What other programs call folders that are no classes."""


def folder(config: DatasetConfig, data_dir: Path | None) -> Dataset:
    """A folder with one sub-folder of pictures a class, read by torchvision's ImageFolder.

    Grey pictures alone give one channel, any colour among them gives three.  Pictures of several sizes are brought
    to `image_size` as they are read; of one square size, they keep it.
    """
    import torchvision

    root = _own_path(config, data_dir)
    try:
        files = torchvision.datasets.ImageFolder(str(root))
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{root}: expected one sub-folder of pictures a class ({reason})") from error

    if all(name.lower() in PARTS for name in files.classes) and all(
        Path(name).parent.parent != root for name, _ in files.samples
    ):
        raise DataError(
            f"{root}: expected one sub-folder of pictures a class; {' and '.join(files.classes)} are parts of a set.  "
            "Give one of them: the images are split here (dataset.split)"
        )
    sizes, grey = set(), True
    for name, _ in files.samples:
        try:
            with PIL.Image.open(name) as picture:
                sizes.add(picture.size)
                grey = grey and picture.mode in ("1", "L", "LA", "I;16")
        except _UNREADABLE as error:
            raise DataError(f"{name}: not a readable picture ({_in_a_line(error)})") from error
    square = len(sizes) == 1 and all(width == height for width, height in sizes)
    if config.image_size is None and not square:
        found = " to ".join(f"{width}×{height}" for width, height in sorted({min(sizes), max(sizes)}))
        raise DataError(f"{root}: pictures of {found} pixels; say what square to bring them to (dataset.image_size)")
    size = next(iter(sizes))[0] if square or config.image_size is None else config.image_size

    channels = 1 if grey else 3
    images = torch.empty(len(files.samples), channels, size, size, dtype=torch.uint8)
    for index, (name, _) in enumerate(files.samples):
        try:
            with PIL.Image.open(name) as picture:
                mode = "L" if grey else "RGB"
                resized = _eight_bits(picture).convert(mode).resize((size, size), PIL.Image.Resampling.BILINEAR)
        except _UNREADABLE as error:
            raise DataError(f"{name}: a damaged picture ({_in_a_line(error)})") from error
        images[index] = torch.from_numpy(np.array(resized)).reshape(size, size, channels).permute(2, 0, 1)
    return Dataset(
        images=images,
        labels=torch.tensor(files.targets, dtype=torch.int64),
        classes=tuple(files.classes),
        image_size=config.image_size or size,
    )


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """16 bits a pixel brought to 8, which Pillow's own conversion would clip."""
    if picture.mode != "I;16":
        return picture
    return PIL.Image.fromarray((np.array(picture) >> 8).astype(np.uint8))


def _own_path(config: DatasetConfig, data_dir: Path | None) -> Path:
    """`dataset.path`, looked for from the working directory, then from the data directory."""
    if not config.path:
        raise DataError(f"dataset {config.name} needs a path (dataset.path)")
    try:
        path = Path(config.path).expanduser()
        path.exists()  # a path may also be too long to ask about
    except (OSError, RuntimeError) as error:
        raise DataError(f"dataset.path: {config.path}: {_in_a_line(error)}") from error
    candidates = [path] if path.is_absolute() or data_dir is None else [path, data_dir / path]
    for candidate in candidates:
        if candidate.exists():
            return candidate.absolute()
    raise DataError(f"{' and '.join(str(c.absolute()) for c in candidates)}: there is no such file or folder")

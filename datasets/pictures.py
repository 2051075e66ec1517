"""A person's own pictures: a folder with one sub-folder a class."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from datasets.config import DataError, DatasetConfig
from datasets.own_images import UNREADABLE, own_path
from datasets.reasons import in_a_line, some
from datasets.sources import Dataset
from datasets.splits import part_indices

PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")
"""What other programs call folders that are no classes."""

SYSTEM_FOLDERS = ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found")
"""What systems put among a person's files: thumbnails of the same pictures, or what was deleted.  Left out, like every
name that begins with a dot."""


@dataclass(frozen=True)
class Files:
    """The pictures of a folder, none opened yet, class by class and by name within."""

    root: Path
    paths: list[str]
    labels: list[int]
    classes: tuple[str, ...]


def files_of(config: DatasetConfig, data_dir: Path | None) -> Files:
    """The folder's pictures as torchvision's ImageFolder finds them, without what is hidden or a system's.

    Raises DataError where that is not one sub-folder of pictures a class.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    root = own_path(config, data_dir)
    expected = f"{root}: expected one sub-folder of pictures a class"
    try:
        classes = [name for name in find_classes(str(root))[0] if not _is_left_out(name)]
        numbers = {name: number for number, name in enumerate(classes)}
        samples = make_dataset(str(root), numbers, IMG_EXTENSIONS, allow_empty=True) if classes else []
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{expected} ({in_a_line(error)})") from error
    samples = [
        (path, label) for path, label in samples if not any(map(_is_left_out, Path(path).relative_to(root).parts))
    ]
    parts = [name for name in classes if name.lower() in PARTS]
    if any(classes[label] in parts and Path(path).parent != root / classes[label] for path, label in samples):
        are = "are parts" if len(parts) > 1 else "is a part"
        raise DataError(
            f"{expected}; {' and '.join(parts)} {are} of a set.  Give one that has class folders: the images are split "
            "here (dataset.split).  A class of such a name holds its pictures without sub-folders"
        )
    empty = set(range(len(classes))) - {label for _, label in samples}
    if empty or not classes:
        which = some([classes[number] for number in sorted(empty)]) or "it"
        raise DataError(f"{expected}; {which} {'have' if len(empty) > 1 else 'has'} none ({', '.join(IMG_EXTENSIONS)})")
    for name in classes:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise DataError(f"{root}: the class folder {name!a} has a name that is not UTF-8; rename it")
    return Files(root, [path for path, _ in samples], [label for _, label in samples], tuple(classes))


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def folder(config: DatasetConfig, data_dir: Path | None) -> Dataset:
    """A folder with one sub-folder of pictures a class; of 8-bit ones only those that the split uses are decoded.

    Grey pictures alone give one channel, any colour among them gives three.  Pictures of several sizes are brought
    to `image_size` as they are read; of one square size, they keep it where `image_size` is not smaller.
    """
    files = files_of(config, data_dir)
    size, grey, deep = _look(files, config.image_size)
    total = len(files.paths)
    used = torch.cat(part_indices(total, None, config)).sort().values
    rows = used.tolist()
    shift = _shift_to_eight_bits([files.paths[number] for number in sorted(deep)])  # whatever the split uses of them
    channels = 1 if grey else 3
    images = torch.empty(len(rows), channels, size, size, dtype=torch.uint8)
    for index, row in enumerate(rows):
        with _opened(files.paths[row], "a damaged picture") as picture:
            shallow = picture
            if row in deep:
                shallow = PIL.Image.fromarray((np.asarray(picture) >> shift).astype(np.uint8))
            resized = shallow.convert("L" if grey else "RGB").resize((size, size), PIL.Image.Resampling.BILINEAR)
        images[index] = torch.from_numpy(np.array(resized)).reshape(size, size, channels).permute(2, 0, 1)
    return Dataset(
        images=images,
        labels=torch.tensor(files.labels, dtype=torch.int64),
        classes=files.classes,
        image_size=config.image_size or size,
        stored=None if len(rows) == total else used,
    )


def _look(files: Files, image_size: int | None) -> tuple[int, bool, set[int]]:
    """Pixels a side to store, whether all are grey, and which have 16 bits a pixel: from the files' heads."""
    sizes, deep, grey = set(), set(), True
    for number, path in enumerate(files.paths):
        with _opened(path, "not a readable picture") as picture:
            sizes.add(picture.size)
            if _is_deep(picture, path):
                deep.add(number)
            else:
                grey = grey and picture.mode in ("1", "L", "LA")
    square = len(sizes) == 1 and all(width == height for width, height in sizes)
    if square:
        own = next(iter(sizes))[0]
        return min(own, image_size or own), grey, deep
    if image_size is None:
        found = " to ".join(f"{width}×{height}" for width, height in sorted({min(sizes), max(sizes)}))
        raise DataError(
            f"{files.root}: pictures of {found} pixels; say what square to bring them to (dataset.image_size)"
        )
    return image_size, grey, deep


def _is_deep(picture: PIL.Image.Image, path: str) -> bool:
    """Whether it is grey of 16 bits a pixel, which Pillow's own conversion would clip.  Colours Pillow brings to 8.

    Raises DataError for what has more: where its black and white are, the file does not say.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PPM", "PNG")):
        return True
    if picture.mode in ("I", "F"):
        kind = "floating-point numbers" if picture.mode == "F" else "signed or 32-bit integers"
        raise DataError(f"{path}: its pixels are {kind}; 8 or 16 bits a channel are read")
    return False


def _shift_to_eight_bits(paths: Sequence[str]) -> int:
    """By how many bits the brightest pixel of these 16-bit pictures is too long: cameras store 10 or 12 bits in 16."""
    most = 0
    for path in paths:
        with _opened(path, "a damaged picture") as picture:
            most = max(most, int(np.asarray(picture).max()))
    return max(0, most.bit_length() - 8)


@contextlib.contextmanager
def _opened(path: str, otherwise: str) -> Iterator[PIL.Image.Image]:
    """The picture; a DataError that says what it is otherwise where it cannot be read within."""
    try:
        with PIL.Image.open(path) as picture:
            yield picture
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path}: {otherwise} ({in_a_line(error)})") from error

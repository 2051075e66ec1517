"""Folders of pictures: deep grey, layouts that are no classes, and which files are opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from datasets import DatasetConfig, count, load, load_splits
from datasets.splits import split

Refused = Callable[..., str]
WritePictures = Callable[..., Path]


def folder_config(root: Path, **fields: Any) -> DatasetConfig:
    return DatasetConfig(name="folder", path=str(root), **fields)


def noise(n: int, side: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (n, side, side), dtype=np.uint8)


# --- more than 8 bits a pixel -------------------------------------------------------------------------------------

DEEP = np.tile(np.array([0, 0x1000, 0x4000, 0x8000, 0xC000, 0xFFFF], np.uint16), (6, 1))
UPPER = [0, 0x10, 0x40, 0x80, 0xC0, 0xFF]


def write_deep(path: Path, pixels: NDArray[np.uint16] = DEEP) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pgm":
        path.write_bytes(b"P5\n6 6\n65535\n" + pixels.astype(">u2").tobytes())
    else:
        mode = "I;16B" if path.suffix == ".tif" else "I;16"
        Image.frombytes(mode, (6, 6), pixels.astype(">u2" if mode == "I;16B" else "<u2").tobytes()).save(path)


@pytest.mark.parametrize(("extension", "mode"), [("png", "I;16"), ("tif", "I;16B"), ("pgm", "I")])
def test_16_bit_grey_of_every_mode(extension: str, mode: str, tmp_path: Path) -> None:
    for kind in "ab":
        write_deep(tmp_path / "own" / kind / f"1.{extension}")
    with Image.open(tmp_path / "own" / "a" / f"1.{extension}") as picture:
        assert picture.mode == mode
    images = load(folder_config(tmp_path / "own")).images
    assert images.shape == (2, 1, 6, 6)
    assert images[0, 0, 0].tolist() == UPPER


def test_16_bit_grey_beside_colour(tmp_path: Path, write_pictures: WritePictures) -> None:
    root = write_pictures({"a/1.png": np.full((6, 6, 3), (1, 2, 3), np.uint8)})
    write_deep(root / "b" / "1.tif")
    images = load(folder_config(root)).images
    assert images[0, :, 0, 0].tolist() == [1, 2, 3]
    assert images[1, :, 0].tolist() == [UPPER] * 3


@pytest.mark.parametrize("bits", [7, 8, 10, 12, 16])
def test_16_bit_files_of_fewer_bits_keep_their_upper_eight(bits: int, tmp_path: Path) -> None:
    """By the brightest of all: the darker ones stay darker."""
    ramp = np.linspace(0, 2**bits - 1, 36).astype(np.uint16).reshape(6, 6)
    write_deep(tmp_path / "own" / "a" / "1.png", ramp)
    write_deep(tmp_path / "own" / "b" / "1.tif", ramp // 4)
    images = load(folder_config(tmp_path / "own")).images[:, 0].numpy()
    np.testing.assert_array_equal(images[0], ramp >> max(0, bits - 8))
    np.testing.assert_array_equal(images[1], (ramp // 4) >> max(0, bits - 8))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [(np.ones((6, 6), np.float32), "floating-point numbers"), (np.full((6, 6), 70_000, np.int32), "32-bit integers")],
)
def test_pictures_of_more_bits_are_refused_by_name(
    pixels: NDArray[Any], said: str, write_pictures: WritePictures, refused: Refused
) -> None:
    root = write_pictures({"a/1.png": noise(1)[0], "b/1.tif": pixels})
    refused(lambda: load(folder_config(root)), root / "b" / "1.tif", said, "8 or 16 bits a channel")


# --- layouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", ["test/1.png", "unlabelled/1.png", "test/unknown/1.png"])
def test_part_with_class_folders_is_refused(beside: str, write_pictures: WritePictures, refused: Refused) -> None:
    """Also where the test part is one flat folder, without labels."""
    root = write_pictures({name: noise(1)[0] for name in ("Train/cat/1.png", "Train/dog/1.png", beside)})
    message = refused(lambda: load(folder_config(root)), root, "Train", "of a set", "class folders", "dataset.split")
    assert ("are parts" in message) == ("test" in beside)
    assert load(folder_config(root / "Train")).classes == ("cat", "dog")


def test_flat_classes_named_like_parts(write_pictures: WritePictures) -> None:
    root = write_pictures({name: noise(1)[0] for name in ("invalid/a/1.png", "valid/1.png")})
    assert load(folder_config(root)).classes == ("invalid", "valid")


def test_hidden_files_and_system_folders_left_out(write_pictures: WritePictures, refused: Refused) -> None:
    images = noise(12)
    own = {"a/1.png": images[0], "a/deep/2.png": images[1], "b/1.png": images[2]}
    others = (
        "a/@eaDir/1.png/THUMB.png", "a/.thumbnails/1.png", "b/._1.png", "__MACOSX/a/1.png", ".hidden/1.png",
        "a/deep/.ipynb_checkpoints/2.png", "#recycle/a/1.png",
    )  # fmt: skip
    root = write_pictures(own | dict(zip(others, images[3:], strict=False)), ".photos/own")
    dataset = load(folder_config(root))
    assert dataset.classes == ("a", "b")
    np.testing.assert_array_equal(dataset.images[:, 0].numpy(), images[:3])
    (root / "b" / "1.png").unlink()
    refused(lambda: load(folder_config(root)), root, "one sub-folder of pictures a class; b has none")


def test_folder_of_other_things_names_a_few_of_them(tmp_path: Path, refused: Refused) -> None:
    for number in range(300):
        (tmp_path / f"other-{number:03d}").mkdir()
    few = "other-000, other-001, other-002, other-003, other-004, … have none (.jpg, "
    refused(lambda: load(folder_config(tmp_path)), tmp_path, f"one sub-folder of pictures a class; {few}")


def test_class_folder_not_utf8(write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({"a/1.png": noise(1)[0], "b/1.png": noise(1)[0]})
    os.rename(os.fsencode(root / "b"), os.fsencode(root) + b"/caf\xe9")  # noqa: PTH104 - paths are text
    message = refused(lambda: load(folder_config(root)), root, r"'caf\udce9'", "not UTF-8", "rename")
    message.encode()


# --- what is opened -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [{"limit": 8}, {"split": {"train": 5, "val": 2, "test": 2}}, {"limit": 8, "split_seed": 3}], ids=str
)
def test_only_the_images_used_are_decoded(rule: dict[str, Any], write_pictures: WritePictures) -> None:
    """The same as of all images; pictures cut behind their heads are in nobody's way elsewhere."""
    images = noise(20)
    root = write_pictures({f"{'ab'[n % 2]}/{n:02}.png": image for n, image in enumerate(images)})
    config = folder_config(root, **rule)
    expected = split(load(folder_config(root)), config)
    found = load(config)
    assert len(found.labels) == 20
    assert found.stored is not None
    assert len(found.images) == len(found.stored) == sum(map(len, (expected.train, expected.val, expected.test))) < 20
    unused = set(range(20)) - set(found.stored.tolist())
    for row in unused:
        path = root / "ab"[row // 10] / f"{row % 10 * 2 + row // 10:02}.png"
        path.write_bytes(path.read_bytes()[:-30])
    assert load_splits(config).sha256 == expected.sha256
    with pytest.raises(AssertionError, match="read for another split"):
        split(found, folder_config(root, split_seed=9))


def test_stored_no_larger_than_seen(write_pictures: WritePictures) -> None:
    image = noise(1, 40)[0]
    root = write_pictures({"a/1.png": image, "b/1.png": image})
    dataset = load(folder_config(root, image_size=16))
    assert dataset.images.shape == (2, 1, 16, 16)
    smaller = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(dataset.images[0, 0].numpy(), np.asarray(smaller))


def test_count_opens_nothing(write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({"a/1.png": noise(1)[0], "b/1.png": noise(1)[0]})
    (root / "b" / "2.png").write_text("not a picture")
    assert count(folder_config(root)) == 3
    refused(lambda: load(folder_config(root)), root / "b" / "2.png")
    assert count(DatasetConfig(name="digits")) == 1797
    refused(lambda: count(DatasetConfig(name="folders")), "dataset.name", "folder")
    one = write_pictures({"a/1.png": noise(1)[0]}, "one")
    refused(lambda: count(folder_config(one)), "one class alone (a)")


def test_pictures_in_transparency_alone_are_refused(write_pictures: WritePictures, refused: Refused) -> None:
    """Black ink on nothing: without its transparency it is black throughout."""
    drawn = np.zeros((12, 6, 6, 4), np.uint8)
    drawn[..., 3] = noise(12)
    root = write_pictures({f"{'ab'[n % 2]}/{n}.png": pixels for n, pixels in enumerate(drawn)})
    refused(lambda: load_splits(folder_config(root)), "folder", "8 training images", "transparency")
    assert torch.count_nonzero(load(folder_config(root)).images) == 0

from __future__ import annotations

import gc
import gzip
import io
import os
import pickle
import shutil
import socketserver
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

import datasets
from datasets import SOURCES, DataError, Dataset, DatasetConfig, load, load_splits
from datasets.sources import IDX_PARTS, read_idx

Bytes = NDArray[np.uint8]
Refused = Callable[..., str]
Source = Callable[..., tuple[DatasetConfig, Path | None]]
WriteIdx = Callable[..., list[Path]]
IdxArrays = Callable[..., list[Bytes]]
IdxBytes = Callable[..., bytes]
WriteNpz = Callable[..., Path]
WritePictures = Callable[..., Path]

# --- the contract of every source ---------------------------------------------------------------------------------

every_source = pytest.mark.parametrize("name", SOURCES)


def test_sources_names() -> None:
    assert datasets.names() == list(SOURCES) == ["digits", "fashion_mnist", "mnist", "npz", "folder"]


@every_source
def test_source_contract(name: str, source: Source) -> None:
    dataset = load(*source(name))
    assert dataset.images.dtype == torch.uint8
    assert dataset.images.ndim == 4
    n, channels, height, width = dataset.images.shape
    assert channels == 1
    assert height == width
    assert n >= 12
    assert dataset.images.amax() > 200  # pixels, not zeros
    assert dataset.images.is_contiguous()
    assert dataset.images.device == dataset.labels.device == torch.device("cpu")
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.shape == (n,)
    assert isinstance(dataset.classes, tuple)
    assert all(isinstance(kind, str) for kind in dataset.classes)
    assert len(set(dataset.classes)) == len(dataset.classes) >= 2
    assert sorted(set(dataset.labels.tolist())) == list(range(len(dataset.classes)))
    assert type(dataset.image_size) is int
    assert dataset.image_size == (28 if name == "digits" else width)
    if name in ("mnist", "fashion_mnist"):
        assert (dataset.official_train, n) == (24, 36)
    else:
        assert dataset.official_train is None


@every_source
def test_source_image_size(name: str, source: Source) -> None:
    dataset = load(*source(name, image_size=40))
    assert dataset.image_size == 40
    assert type(dataset.image_size) is int
    assert load_splits(*source(name, image_size=40)).image_size == 40


@every_source
def test_source_same_again(name: str, source: Source) -> None:
    first, again = (load(*source(name)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert (first.classes, first.image_size) == (again.classes, again.image_size)


@every_source
def test_source_splits(name: str, source: Source) -> None:
    dataset = load(*source(name))
    splits = load_splits(*source(name, split={"train": 8, "val": 2, "test": 2}))
    assert [len(splits.train), len(splits.val), len(splits.test)] == [8, 2, 2]
    assert splits.classes == dataset.classes
    assert splits.image_size == dataset.image_size
    assert splits.channels == dataset.images.shape[1]


@every_source
def test_source_writable(name: str, source: Source) -> None:
    """No tensor over memory that somebody else holds read-only."""
    dataset = load(*source(name))
    before = dataset.images[0, 0, 0, 0].item()
    dataset.images.bitwise_not_()
    assert dataset.images[0, 0, 0, 0].item() == 255 - before


@every_source
def test_data_dir_missing(name: str, source: Source, tmp_path: Path, refused: Refused) -> None:
    config, _ = source(name)
    refused(lambda: load(config, tmp_path / "nowhere"), tmp_path / "nowhere", "no such folder")
    (tmp_path / "file").write_text("")
    refused(lambda: load(config, tmp_path / "file"), tmp_path / "file", "no such folder")


@pytest.mark.parametrize("name", ["cifar10", "", "MNIST", "digits "])
def test_name_unknown(name: str, refused: Refused) -> None:
    refused(lambda: load(DatasetConfig(name=name)), "dataset.name", repr(name), *SOURCES)


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
@pytest.mark.parametrize("path", ["own.npz", ""])
def test_path_not_read(name: str, path: str, refused: Refused) -> None:
    refused(lambda: load(DatasetConfig(name=name, path=path)), "dataset.path", f"{name} has no path", "npz and folder")


# --- digits -------------------------------------------------------------------------------------------------------


def test_digits() -> None:
    dataset = load(DatasetConfig(name="digits"))
    assert dataset.images.shape == (1797, 1, 8, 8)
    assert dataset.classes == tuple("0123456789")
    assert dataset.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert torch.bincount(dataset.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert dataset.image_size == 28
    # scikit-learn's first row is 0, 0, 5, 13, 9, 1, 0, 0 of 16; 17 grey values fill 0 to 255
    assert dataset.images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert dataset.images.unique().tolist() == [round(value * 255 / 16) for value in range(17)]


def test_digits_are_those_that_sklearn_loads() -> None:
    dataset, bunch = load(DatasetConfig(name="digits")), load_digits()
    np.testing.assert_array_equal(dataset.images[:, 0].numpy(), np.rint(bunch.images * (255 / 16)))
    np.testing.assert_array_equal(dataset.labels.numpy(), bunch.target)
    assert dataset.classes == tuple(str(name) for name in bunch.target_names)


# --- IDX files ----------------------------------------------------------------------------------------------------

NAMES = [
    pytest.param("mnist", "MNIST", id="mnist"),
    pytest.param("fashion_mnist", "FashionMNIST", id="fashion_mnist"),
]
both = pytest.mark.parametrize(("name", "title"), NAMES)
CURE = {"MNIST": ["--data-dir"], "FashionMNIST": ["--data-dir", "apt-get install dataset-fashion-mnist"]}


def is_set(dataset: Dataset, arrays: list[Bytes]) -> bool:
    """Whether a data set is these four arrays, byte for byte."""
    images, labels = np.concatenate(arrays[::2])[:, np.newaxis], np.concatenate(arrays[1::2])
    return np.array_equal(dataset.images.numpy(), images) and np.array_equal(dataset.labels.numpy(), labels)


@both
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("layout", ["torchvision", "lower", "flat"])
def test_idx_layouts(
    name: str, title: str, gz: bool, layout: str, tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays
) -> None:
    data_dir = tmp_path / "data"
    write_idx(
        {"torchvision": data_dir / title / "raw", "lower": data_dir / title.lower(), "flat": data_dir}[layout], gz=gz
    )
    dataset = load(DatasetConfig(name=name), data_dir)
    assert is_set(dataset, idx_arrays())
    assert (dataset.official_train, dataset.image_size) == (24, 6)
    assert dataset.classes[:2] == {"MNIST": ("0", "1"), "FashionMNIST": ("T-shirt/top", "Trouser")}[title]
    assert dataset.classes[9] == {"MNIST": "9", "FashionMNIST": "Ankle boot"}[title]
    assert len(dataset.classes) == 10


@both
def test_idx_plain_and_gz_mixed(
    name: str, title: str, tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays
) -> None:
    write_idx(tmp_path)
    for path in write_idx(tmp_path, gz=True)[::2]:
        path.unlink()
    for part in IDX_PARTS[1::2]:
        (tmp_path / part).unlink()
    assert is_set(load(DatasetConfig(name=name), tmp_path), idx_arrays())


def test_idx_one_data_dir_both_sets(tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays) -> None:
    """torchvision's root holds both; each name reads its own."""
    for salt, title in enumerate(("MNIST", "FashionMNIST")):
        write_idx(tmp_path / title / "raw", idx_arrays(salt=salt))
    assert is_set(load(DatasetConfig(name="mnist"), tmp_path), idx_arrays(salt=0))
    assert is_set(load(DatasetConfig(name="fashion_mnist"), tmp_path), idx_arrays(salt=1))


@both
def test_idx_order_of_places(
    name: str,
    title: str,
    tmp_path: Path,
    package_root: Path,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    mirror: Callable[..., Any],
) -> None:
    """The data directory (torchvision's layout, then the name's folder, then flat), the package, a download."""
    write_idx(tmp_path / "web", idx_arrays(salt=4), gz=True)
    server = mirror(title, tmp_path / "web")
    data_dir = tmp_path / "data"
    package = package_root / {"MNIST": "mnist", "FashionMNIST": "fashion-mnist"}[title]
    places = [data_dir / title / "raw", data_dir / title.lower(), data_dir, package]
    for salt, place in enumerate(places):
        write_idx(place, idx_arrays(salt=salt))
    config = DatasetConfig(name=name)
    assert is_set(load(config), idx_arrays(salt=3))
    for salt, place in enumerate(places):
        assert is_set(load(config, data_dir), idx_arrays(salt=salt))
        for part in IDX_PARTS:
            (place / part).unlink()
    assert server.requests == []
    assert is_set(load(config, data_dir), idx_arrays(salt=4))
    assert server.requests != []


@both
def test_idx_download_kept(
    name: str,
    title: str,
    tmp_path: Path,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    mirror: Callable[..., Any],
) -> None:
    """torchvision's own downloader, from a server on this machine, once."""
    write_idx(tmp_path / "web", gz=True)
    server = mirror(title, tmp_path / "web")
    assert is_set(load(DatasetConfig(name=name)), idx_arrays())
    raw = tmp_path / "cache" / "tune_jobs" / title / "raw"
    assert {path.name for path in raw.iterdir()} >= set(IDX_PARTS)
    assert {request.removeprefix("/") for request in server.requests} == {f"{part}.gz" for part in IDX_PARTS}
    asked = len(server.requests)
    assert is_set(load(DatasetConfig(name=name)), idx_arrays())
    assert len(server.requests) == asked


@pytest.mark.parametrize("cache", [None, ""])
def test_idx_download_default_cache(
    cache: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    mirror: Callable[..., Any],
) -> None:
    if cache is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    write_idx(tmp_path / "web", gz=True)
    mirror("MNIST", tmp_path / "web")
    assert is_set(load(DatasetConfig(name="mnist")), idx_arrays())
    assert (tmp_path / "home" / ".cache" / "tune_jobs" / "MNIST" / "raw" / IDX_PARTS[0]).is_file()


@both
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # torchvision keeps the server's 404 open
def test_idx_download_not_found(
    name: str, title: str, tmp_path: Path, mirror: Callable[..., Any], refused: Refused
) -> None:
    (tmp_path / "web").mkdir()
    server = mirror(title, tmp_path / "web")
    refused(
        lambda: load(DatasetConfig(name=name)),
        title,
        "not on this machine",
        "cannot be downloaded",
        "404",
        *CURE[title],
    )
    gc.collect()  # here, where that is expected
    assert len(server.requests) == 1


@both
def test_idx_download_wrong_file(
    name: str, title: str, tmp_path: Path, write_idx: WriteIdx, mirror: Callable[..., Any], refused: Refused
) -> None:
    """What a hotel's network gives: 200 OK and a page of its own."""
    write_idx(tmp_path / "web", gz=True)
    mirror(title, tmp_path / "web")
    for path in (tmp_path / "web").iterdir():
        path.write_text("<html>\n<title>Log in</title>\n</html>\n")
    refused(lambda: load(DatasetConfig(name=name)), title, "cannot be downloaded", "corrupted", *CURE[title])


@both
def test_idx_download_nobody_there(
    name: str,
    title: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    mirror: Callable[..., Any],
) -> None:
    """No connection: one line; the next attempt, with one, succeeds."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as closed:
        port = closed.server_address[1]
    monkeypatch.setattr(getattr(torchvision.datasets, title), "mirrors", [f"http://127.0.0.1:{port}/"])
    refused(lambda: load(DatasetConfig(name=name)), title, "cannot be downloaded", "refused", *CURE[title])
    write_idx(tmp_path / "web", gz=True)
    mirror(title, tmp_path / "web")
    assert is_set(load(DatasetConfig(name=name)), idx_arrays())


@pytest.fixture
def babbler() -> Iterator[str]:
    """The address of a server that does not speak HTTP."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(b"220 mail.example ESMTP\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@both
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # torchvision keeps the server's 404 open
def test_idx_download_cut_short(
    name: str,
    title: str,
    tmp_path: Path,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    mirror: Callable[..., Any],
    refused: Refused,
) -> None:
    """What is at the files' own place is whole, whoever else downloads: else nothing is there."""
    last = write_idx(tmp_path / "web", gz=True)[-1]
    server = mirror(title, tmp_path / "web")
    last.rename(tmp_path / "last")
    refused(lambda: load(DatasetConfig(name=name)), title, "cannot be downloaded", "404")
    gc.collect()  # here, where that is expected
    assert server.requests[-1] == f"/{IDX_PARTS[-1]}.gz"
    cache = tmp_path / "cache" / "tune_jobs"
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    (tmp_path / "last").rename(last)
    assert is_set(load(DatasetConfig(name=name)), idx_arrays())
    assert [path.name for path in cache.iterdir()] == [title]


def test_idx_download_not_http(babbler: str, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [babbler])
    refused(lambda: load(DatasetConfig(name="mnist")), "MNIST", "cannot be downloaded", "--data-dir")


def test_idx_download_cache_unwritable(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    refused(lambda: load(DatasetConfig(name="mnist")), "MNIST", tmp_path / "cache", "--data-dir")


@pytest.mark.parametrize("part", range(4), ids=IDX_PARTS)
@pytest.mark.parametrize("damage", [b"", b"\0\0\x07\x03", None], ids=["emptied", "other magic", "cut"])
def test_idx_cache_damaged(
    part: int, damage: bytes | None, tmp_path: Path, write_idx: WriteIdx, refused: Refused
) -> None:
    """An earlier download that was cut short or overwritten: the message says where it lies."""
    raw = tmp_path / "cache" / "tune_jobs" / "MNIST" / "raw"
    path = write_idx(raw)[part]
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] if damage is None else damage + whole[4:] if damage else b"")
    refused(lambda: load(DatasetConfig(name="mnist")), path, f"remove {raw} to have it downloaded again")


@both
@pytest.mark.parametrize("place", ["data_dir", "package"])
@pytest.mark.parametrize("part", range(4), ids=IDX_PARTS)
def test_idx_file_missing(
    name: str,
    title: str,
    place: str,
    part: int,
    tmp_path: Path,
    package_root: Path,
    write_idx: WriteIdx,
    refused: Refused,
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    package = package_root / {"MNIST": "mnist", "FashionMNIST": "fashion-mnist"}[title]
    path = write_idx(data_dir if place == "data_dir" else package)[part]
    path.unlink()
    refused(lambda: load(DatasetConfig(name=name), data_dir), path, "missing", *CURE[title])


def cut(data: bytes) -> bytes:
    return data[:-1]


def longer(data: bytes) -> bytes:
    return data + b"\0"


def no_bytes(data: bytes) -> bytes:
    return b""


def other_magic(data: bytes) -> bytes:
    return b"\x89PNG" + data[4:]


def signed_bytes(data: bytes) -> bytes:
    return b"\0\0\x09" + data[3:]


def floats(data: bytes) -> bytes:
    return b"\0\0\x0d" + data[3:]


def no_dimensions(data: bytes) -> bytes:
    return b"\0\0\x08\0" + data[4:]


def many_dimensions(data: bytes) -> bytes:
    return b"\0\0\x08\x05" + data[4:]


def cut_in_header(data: bytes) -> bytes:
    return data[:6]


def cut_between_dimensions(data: bytes) -> bytes:
    return data[:4]


def endless_dimensions(data: bytes) -> bytes:
    """2³¹ × 2³¹ × 4 is 0 modulo 2⁶⁴, which is as many bytes as follow."""
    return b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4)


def most_dimensions(data: bytes) -> bytes:
    return b"\0\0\x08\x03" + b"\xff" * 12


@both
@pytest.mark.parametrize("part", range(4), ids=IDX_PARTS)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "truncated or corrupt"),
        (longer, "truncated or corrupt"),
        (no_bytes, "not an IDX file"),
        (other_magic, "not an IDX file"),
        (signed_bytes, "not an IDX file of unsigned bytes"),
        (floats, "not an IDX file of unsigned bytes"),
        (no_dimensions, "not an IDX file"),
        (many_dimensions, "not an IDX file"),
        (cut_in_header, "truncated"),
        (cut_between_dimensions, "truncated"),
        (endless_dimensions, "truncated or corrupt"),
        (most_dimensions, "truncated or corrupt"),
    ],
)
def test_idx_file_wrong(
    name: str,
    title: str,
    part: int,
    damage: Callable[[bytes], bytes],
    reason: str,
    tmp_path: Path,
    write_idx: WriteIdx,
    refused: Refused,
) -> None:
    path = write_idx(tmp_path)[part]
    path.write_bytes(damage(path.read_bytes()))
    refused(lambda: load(DatasetConfig(name=name), tmp_path), path, reason, *CURE[title])


@both
@pytest.mark.parametrize("part", range(4), ids=IDX_PARTS)
@pytest.mark.parametrize(
    "damage", ["cut", "cut in header", "not gzip", "checksum", "middle", "tail", "emptied", "cut within"]
)
def test_idx_gzip_wrong(
    name: str, title: str, part: int, damage: str, tmp_path: Path, write_idx: WriteIdx, refused: Refused
) -> None:
    path = write_idx(tmp_path, gz=True)[part]
    data = path.read_bytes()
    middle = len(data) // 2
    damaged = {
        "cut": data[:middle],
        "cut in header": data[:5],
        "not gzip": gzip.decompress(data),
        "checksum": data[:-8] + bytes(4) + data[-4:],
        "middle": data[:14] + bytes(byte ^ 255 for byte in data[14:middle]) + data[middle:],
        "tail": data + b"tail",
        "emptied": b"",
        "cut within": gzip.compress(gzip.decompress(data)[:-1]),
    }
    path.write_bytes(damaged[damage])
    refused(lambda: load(DatasetConfig(name=name), tmp_path), path, *CURE[title])


@both
@pytest.mark.parametrize("test_part", [False, True], ids=["train", "test"])
def test_idx_counts_disagree(
    name: str,
    title: str,
    test_part: bool,
    tmp_path: Path,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    refused: Refused,
) -> None:
    arrays = idx_arrays()
    arrays[3 if test_part else 1] = np.zeros(7, np.uint8)
    paths = write_idx(tmp_path, arrays)[2 * test_part :]
    refused(
        lambda: load(DatasetConfig(name=name), tmp_path),
        paths[0],
        f"{12 if test_part else 24} images",
        paths[1],
        "7",
        *CURE[title],
    )


@both
@pytest.mark.parametrize("part", [1, 3])
@pytest.mark.parametrize("label", [10, 255])
def test_idx_label_out_of_range(
    name: str,
    title: str,
    part: int,
    label: int,
    tmp_path: Path,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    refused: Refused,
) -> None:
    arrays = idx_arrays()
    arrays[part][5] = label
    path = write_idx(tmp_path, arrays)[part]
    refused(lambda: load(DatasetConfig(name=name), tmp_path), path, f"label {label}", "0–9", *CURE[title])


@pytest.mark.parametrize("part", [0, 2])
@pytest.mark.parametrize(
    "shape", [(0, 6, 6), (12, 6, 5), (12, 36), (12,), (12, 6, 6, 1), (12, 0, 0)], ids=lambda shape: str(shape)
)
def test_idx_images_shape(
    part: int,
    shape: tuple[int, ...],
    tmp_path: Path,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    refused: Refused,
) -> None:
    arrays = idx_arrays(train=12)
    arrays[part] = np.zeros(shape, np.uint8)
    path = write_idx(tmp_path, arrays)[part]
    refused(lambda: load(DatasetConfig(name="mnist"), tmp_path), path, shape, "--data-dir")


def test_idx_images_of_no_pixels(tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays, refused: Refused) -> None:
    paths = write_idx(tmp_path, idx_arrays(side=0))
    refused(lambda: load(DatasetConfig(name="mnist"), tmp_path), paths[0], "--data-dir")


@pytest.mark.parametrize("part", [1, 3])
def test_idx_labels_shape(
    part: int, tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays, refused: Refused
) -> None:
    arrays = idx_arrays()
    arrays[part] = arrays[part].reshape(-1, 2)
    path = write_idx(tmp_path, arrays)[part]
    refused(lambda: load(DatasetConfig(name="mnist"), tmp_path), path, arrays[part].shape, "--data-dir")


def test_idx_images_for_labels(tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays, refused: Refused) -> None:
    images, labels, *rest = idx_arrays()
    paths = write_idx(tmp_path, [labels, images, *rest])
    refused(lambda: load(DatasetConfig(name="mnist"), tmp_path), paths[0], "square images", "--data-dir")


def test_idx_parts_of_different_sizes(
    tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays, refused: Refused
) -> None:
    paths = write_idx(tmp_path, idx_arrays(side=6)[:2] + idx_arrays(side=7)[2:])
    refused(lambda: load(DatasetConfig(name="mnist"), tmp_path), paths[0], paths[2], "different sizes", "--data-dir")


FIRST_LABELS = {
    "MNIST": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
    "FashionMNIST": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
}
"""As read from the two sets' own files."""


def first_labelled(title: str, n: int, arrays: list[Bytes]) -> list[Bytes]:
    """n training images of one pixel, labelled as a set begins."""
    labels = np.resize(np.arange(10, dtype=np.uint8), n)
    labels[:10] = FIRST_LABELS[title]
    return [np.zeros((n, 1, 1), np.uint8), labels, np.zeros((5, 1, 1), np.uint8), arrays[3][:5]]


@both
@pytest.mark.parametrize("place", ["torchvision", "flat", "package"])
def test_idx_other_set(
    name: str,
    title: str,
    place: str,
    tmp_path: Path,
    package_root: Path,
    write_idx: WriteIdx,
    idx_arrays: IdxArrays,
    refused: Refused,
) -> None:
    """FashionMNIST's files given as MNIST's, and the other way round."""
    (other,) = set(FIRST_LABELS) - {title}
    folder = {
        "torchvision": tmp_path / title / "raw",
        "flat": tmp_path,
        "package": package_root / {"MNIST": "mnist", "FashionMNIST": "fashion-mnist"}[title],
    }[place]
    paths = write_idx(folder, first_labelled(other, 60_000, idx_arrays()))
    message = refused(lambda: load(DatasetConfig(name=name), tmp_path), paths[1], *CURE[title])
    assert f"{other}'s files, not {title}'s" in message


@both
def test_idx_unknown_set(
    name: str, title: str, tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays, refused: Refused
) -> None:
    """KMNIST's files have the same names and numbers of images."""
    arrays = first_labelled(title, 60_000, idx_arrays())
    arrays[1][:10] = arrays[1][:10][::-1]
    paths = write_idx(tmp_path, arrays)
    message = refused(lambda: load(DatasetConfig(name=name), tmp_path), paths[1], *CURE[title])
    assert f"another set's files, not {title}'s" in message


@both
def test_idx_other_set_not_alleged(
    name: str, title: str, tmp_path: Path, write_idx: WriteIdx, idx_arrays: IdxArrays
) -> None:
    """The set itself, and a set of one's own that begins as the other does, are taken."""
    (other,) = set(FIRST_LABELS) - {title}
    own = first_labelled(title, 60_000, idx_arrays())
    write_idx(tmp_path / "own", own)
    assert is_set(load(DatasetConfig(name=name), tmp_path / "own"), own)
    small = first_labelled(other, 59_999, idx_arrays())
    write_idx(tmp_path / "small", small)
    assert is_set(load(DatasetConfig(name=name), tmp_path / "small"), small)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (1, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_read_idx(shape: tuple[int, ...], gz: bool, tmp_path: Path, idx_bytes: IdxBytes) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / ("file.gz" if gz else "file")
    path.write_bytes(gzip.compress(idx_bytes(array)) if gz else idx_bytes(array))
    read = read_idx(path, "get it again")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_read_idx_missing(tmp_path: Path, refused: Refused) -> None:
    refused(lambda: read_idx(tmp_path / "none", "ask for it"), tmp_path / "none", "ask for it")


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_read_idx_cut_anywhere(gz: bool, tmp_path: Path, idx_bytes: IdxBytes) -> None:
    data = idx_bytes(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    path = tmp_path / ("file.gz" if gz else "file")
    data = gzip.compress(data, mtime=0) if gz else data
    assert outcomes(path, [data[:length] for length in range(len(data))], lambda: read_idx(path, "get it again")) == {
        "refused"
    }


# --- what damaged files do ----------------------------------------------------------------------------------------


def outcomes(path: Path, contents: list[bytes], read: Callable[[], object]) -> set[str]:
    """What reading each content gives: `read`, `refused` with one line that names the file, or what else went wrong."""
    seen = set()
    for content in contents:
        path.write_bytes(content)
        try:
            read()
        except DataError as error:
            one_line = str(error).splitlines() == [str(error)] and str(path) in str(error)
            seen.add("refused" if one_line else f"message: {error}")
        except Exception as error:  # noqa: BLE001 - the very thing looked for
            seen.add(f"{type(error).__name__}: {error}")
        else:
            seen.add("read")
    return seen


def changed(data: bytes) -> list[bytes]:
    """The data with one byte changed, each in turn."""
    return [data[:n] + bytes([data[n] ^ 0x55]) + data[n + 1 :] for n in range(len(data))]


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_read_idx_changed_anywhere(gz: bool, tmp_path: Path, idx_bytes: IdxBytes) -> None:
    data = idx_bytes(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    path = tmp_path / ("file.gz" if gz else "file")
    data = gzip.compress(data, mtime=0) if gz else data
    assert outcomes(path, changed(data), lambda: read_idx(path, "get it again")) == {"read", "refused"}


# --- the real FashionMNIST ----------------------------------------------------------------------------------------

FASHION_DIR = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def fashion() -> Dataset:
    """From the package's own folder; read before a test's `package_root` hides it."""
    if not FASHION_DIR.is_dir():
        pytest.skip(f"{FASHION_DIR} is not on this machine (apt-get install dataset-fashion-mnist)")
    return load(DatasetConfig(name="fashion_mnist"))


def test_fashion_mnist_real(fashion: Dataset) -> None:
    assert fashion.images.shape == (70_000, 1, 28, 28)
    assert fashion.images.dtype == torch.uint8
    assert fashion.official_train == 60_000
    assert fashion.image_size == 28
    assert fashion.labels[:10].tolist() == FIRST_LABELS["FashionMNIST"]
    assert fashion.labels[60_000:60_010].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert torch.bincount(fashion.labels[:60_000]).tolist() == [6_000] * 10
    assert torch.bincount(fashion.labels[60_000:]).tolist() == [1_000] * 10
    assert list(fashion.classes) == torchvision.datasets.FashionMNIST.classes
    assert (int(fashion.images.min()), int(fashion.images.max())) == (0, 255)


def test_fashion_mnist_as_torchvision(fashion: Dataset, tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in IDX_PARTS:
        with gzip.open(FASHION_DIR / f"{part}.gz") as packed, (raw / part).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    for train, rows in ((True, slice(60_000)), (False, slice(60_000, None))):
        theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=train)
        assert torch.equal(fashion.images[rows, 0], theirs.data)
        assert torch.equal(fashion.labels[rows], theirs.targets)


def test_fashion_mnist_given_as_mnist(fashion: Dataset, refused: Refused) -> None:
    refused(
        lambda: load(DatasetConfig(name="mnist"), FASHION_DIR),
        FASHION_DIR / "train-labels-idx1-ubyte.gz",
        "FashionMNIST's files, not MNIST's",
        "--data-dir",
    )


# --- npz ----------------------------------------------------------------------------------------------------------


def grey(n: int = 12, height: int = 5, width: int = 5) -> Bytes:
    return np.random.default_rng(1).integers(0, 256, (n, height, width), dtype=np.uint8)


def npz_config(path: Path, **fields: Any) -> DatasetConfig:
    return DatasetConfig(name="npz", path=str(path), **fields)


def test_npz_grey(write_npz: WriteNpz) -> None:
    images = grey()
    dataset = load(npz_config(write_npz(images=images, labels=np.arange(12) % 3)))
    np.testing.assert_array_equal(dataset.images.numpy(), images[:, np.newaxis])
    assert dataset.labels.tolist() == [0, 1, 2] * 4
    assert dataset.classes == ("0", "1", "2")
    assert (dataset.image_size, dataset.official_train) == (5, None)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_channels_last(channels: int, order: Any, write_npz: WriteNpz) -> None:
    images = np.random.default_rng(1).integers(0, 256, (8, 6, 6, channels), dtype=np.uint8)
    path = write_npz(images=np.asarray(images, order=order), labels=np.arange(8) % 2)
    dataset = load(npz_config(path))
    assert dataset.images.shape == (8, channels, 6, 6)
    assert dataset.images.is_contiguous()
    for channel in range(channels):
        np.testing.assert_array_equal(dataset.images[:, channel].numpy(), images[..., channel])
    assert load_splits(npz_config(path, split={"train": 4, "val": 2, "test": 2})).channels == channels


@pytest.mark.parametrize(
    ("labels", "indices", "classes"),
    [
        (["dog", "cat", "dog", "emu"], [1, 0, 1, 2], ("cat", "dog", "emu")),
        (["ß", "日本", "ß", "日本"], [0, 1, 0, 1], ("ß", "日本")),
        ([10, 9, 100, 9], [1, 0, 2, 0], ("9", "10", "100")),
        ([5, -3, 5, 0], [2, 0, 2, 1], ("-3", "0", "5")),
        (np.array([7, 255, 7, 7], np.uint8), [0, 1, 0, 0], ("7", "255")),
        (np.array([2**63, 1, 1, 1], np.uint64), [1, 0, 0, 0], ("1", str(2**63))),
        (np.array([-(2**63), 1, 1, 1], np.int64), [0, 1, 1, 1], (str(-(2**63)), "1")),
        (np.array([3, 1, 3, 1], ">i2"), [1, 0, 1, 0], ("1", "3")),
    ],
    ids=str,
)
def test_npz_labels(labels: Any, indices: list[int], classes: tuple[str, ...], write_npz: WriteNpz) -> None:
    """Classes in sorted order: strings as strings, numbers by value, without gaps."""
    dataset = load(npz_config(write_npz(images=grey(4), labels=np.asarray(labels))))
    assert dataset.labels.tolist() == indices
    assert dataset.labels.dtype == torch.int64
    assert dataset.classes == classes


def test_npz_compressed_and_more_arrays(tmp_path: Path) -> None:
    images = grey()
    with (tmp_path / "own.npz").open("wb") as file:
        np.savez_compressed(file, images=images, labels=np.arange(12) % 2, note=np.array("how it was made"))
    np.testing.assert_array_equal(load(npz_config(tmp_path / "own.npz")).images[:, 0].numpy(), images)


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("shape", [(12, 5, 7), (12, 7, 5, 3)], ids=str)
def test_npz_not_square(size: int, shape: tuple[int, ...], write_npz: WriteNpz, refused: Refused) -> None:
    path = write_npz(images=np.zeros(shape, np.uint8), labels=np.arange(12) % 2)
    refused(lambda: load(npz_config(path)), path, f"{shape[1]}×{shape[2]}", "dataset.image_size")
    dataset = load(npz_config(path, image_size=size))
    assert dataset.image_size == size
    assert dataset.images.shape[2:] == shape[1:3]


def test_npz_path_by_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_npz: WriteNpz) -> None:
    """A relative path is looked for from the working directory, then from the data directory."""
    here, data = grey(), grey() ^ 255
    labels = np.arange(12) % 2
    write_npz("data/sub/own.npz", images=data, labels=labels)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = DatasetConfig(name="npz", path="sub/own.npz")
    np.testing.assert_array_equal(load(config, tmp_path / "data").images[:, 0].numpy(), data)
    write_npz("here/sub/own.npz", images=here, labels=labels)
    np.testing.assert_array_equal(load(config, tmp_path / "data").images[:, 0].numpy(), here)
    np.testing.assert_array_equal(load(config).images[:, 0].numpy(), here)


def test_npz_path_of_home(tmp_path: Path, write_npz: WriteNpz) -> None:
    write_npz("home/own.npz", images=grey(), labels=np.arange(12) % 2)
    assert len(load(DatasetConfig(name="npz", path="~/own.npz")).labels) == 12


@pytest.mark.parametrize("name", ["npz", "folder"])
def test_path_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    refused(lambda: load(DatasetConfig(name=name)), name, "dataset.path")
    refused(lambda: load(DatasetConfig(name=name, path="")), name, "dataset.path")
    relative = DatasetConfig(name=name, path="none")
    refused(lambda: load(relative), tmp_path / "none", "no such file")
    refused(lambda: load(relative, tmp_path / "data"), tmp_path / "none", tmp_path / "data" / "none", "no such file")
    absolute = DatasetConfig(name=name, path=str(tmp_path / "none"))
    assert "data" not in refused(lambda: load(absolute, tmp_path / "data"), tmp_path / "none").split("none")[0].split(
        "/"
    )


@pytest.mark.parametrize("name", ["npz", "folder"])
@pytest.mark.parametrize("path", ["~nobody_of_this_name/own", "x" * 300], ids=["no such user", "too long"])
def test_path_impossible(name: str, path: str, refused: Refused) -> None:
    refused(lambda: load(DatasetConfig(name=name, path=path)), path)


@pytest.mark.parametrize(
    ("arrays", "fragments"),
    [
        ({"labels": np.arange(12)}, ["no array images", "labels"]),
        ({"images": grey()}, ["no array labels", "images"]),
        ({"x": grey(), "y": np.arange(12)}, ["images or labels", "'x', 'y'"]),
        ({"images": grey() / 255, "labels": np.arange(12)}, ["float64", "uint8"]),
        ({"images": grey().astype(np.int64), "labels": np.arange(12)}, ["int64", "uint8"]),
        ({"images": grey().astype(np.int8), "labels": np.arange(12)}, ["int8 (12, 5, 5)", "uint8 N×H×W"]),
        ({"images": grey() > 9, "labels": np.arange(12)}, ["bool", "uint8"]),
        ({"images": grey().reshape(12, 25), "labels": np.arange(12)}, ["(12, 25)", "N×H×W"]),
        ({"images": grey()[:, None, None], "labels": np.arange(12)}, ["(12, 1, 1, 5, 5)", "N×H×W"]),
        ({"images": np.uint8(3), "labels": np.arange(12)}, ["()", "N×H×W"]),
        ({"images": grey(), "labels": np.arange(11)}, ["(11,)", "12 images"]),
        ({"images": grey(), "labels": np.arange(13)}, ["(13,)", "12 images"]),
        ({"images": grey(), "labels": np.arange(24).reshape(12, 2)}, ["(12, 2)", "12 images"]),
        ({"images": grey(), "labels": np.int64(1)}, ["()", "12 images"]),
        ({"images": grey(), "labels": np.arange(12) / 2}, ["float64", "integers or strings"]),
        ({"images": grey(), "labels": np.arange(12) > 5}, ["bool", "integers or strings"]),
        ({"images": grey(), "labels": np.array([b"a", b"b"] * 6)}, ["S1", "integers or strings"]),
        ({"images": grey(0), "labels": np.arange(0)}, ["(0, 5, 5)"]),
        ({"images": grey(12, 0, 0), "labels": np.arange(12)}, ["(12, 0, 0)"]),
        ({"images": grey(12, 5, 0), "labels": np.arange(12)}, ["(12, 5, 0)"]),
        ({"images": np.zeros((12, 5, 5, 0), np.uint8), "labels": np.arange(12)}, ["(12, 5, 5, 0)"]),
    ],
)
def test_npz_refused(
    arrays: dict[str, NDArray[Any]], fragments: list[str], write_npz: WriteNpz, refused: Refused
) -> None:
    path = write_npz(**arrays)
    refused(lambda: load(npz_config(path, image_size=8)), path, *fragments)


@pytest.mark.parametrize("labels", [np.zeros(12, np.int64), np.array(["cat"] * 12)], ids=["number", "string"])
def test_npz_one_class(labels: NDArray[Any], write_npz: WriteNpz, refused: Refused) -> None:
    path = write_npz(images=grey(), labels=labels)
    refused(lambda: load(npz_config(path)), "npz", "one class", labels[0])


class Payload:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("array", ["images", "labels"])
def test_npz_pickle_not_run(array: str, tmp_path: Path, write_npz: WriteNpz, refused: Refused) -> None:
    arrays: dict[str, NDArray[Any]] = {"images": grey(), "labels": np.arange(12)}
    payload = np.empty(12, object)
    payload[:] = Payload(tmp_path / "run")
    path = write_npz(**arrays | {array: payload})
    refused(lambda: load(npz_config(path)), path, "not a readable .npz")
    assert not (tmp_path / "run").exists()
    with np.load(path, allow_pickle=True) as unsafe:
        assert unsafe[array].shape == (12,)  # the payload does run where pickles are allowed
    assert (tmp_path / "run").exists()


def test_npz_raw_pickle_not_run(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "run")))
    refused(lambda: load(npz_config(path)), path, "not a readable .npz")
    assert not (tmp_path / "run").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "run").exists()


def test_npz_other_file(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "own.npz"
    for content in (b"", b"PK", b"a text\nof two lines\n", bytes(100), b"PK\x03\x04 no more of a zip"):
        path.write_bytes(content)
        refused(lambda: load(npz_config(path)), path, "not a readable .npz")
    refused(lambda: load(npz_config(tmp_path)), tmp_path, "not a readable .npz")


def test_npz_text_file_advice(tmp_path: Path, refused: Refused) -> None:
    """Nobody who asked for images can pass NumPy's unsafe option, nor should be told to."""
    path = tmp_path / "own.npz"
    path.write_text("a text\n")
    assert "allow_pickle" not in refused(lambda: load(npz_config(path)), path)


def test_npz_single_array(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "own.npz"
    with path.open("wb") as file:
        np.save(file, grey())
    message = refused(lambda: load(npz_config(path)), path, "not a readable .npz")
    assert "context manager" not in message  # Python's words for it help nobody


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_header(shape: str) -> bytes:
    """A .npy of bytes that promises a shape, with no array behind it."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"not an array\nat all",
        b"\x93NUMPY",
        npy(grey())[:-1],
        npy(grey())[:40],
        npy_header("(12, 5, 5)"),
        npy_header("(12, -5, 5)"),
        npy_header("(12, 5, 'wide')"),
        npy_header("(12, (5"),
        npy_header(f"({10**15}, 5, 5)"),
        npy_header(f"({10**30}, 5, 5)"),
        npy_header("(12,)" + " " * 12_000),
    ],
    ids=[
        "empty",
        "text",
        "magic",
        "cut",
        "cut in header",
        "no array",
        "negative",
        "not a number",
        "not closed",
        "petabytes",
        "past 64 bits",
        "long header",
    ],
)
@pytest.mark.parametrize("array", ["images", "labels"])
def test_npz_member_wrong(array: str, member: bytes, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "own.npz"
    members = {"images": npy(grey()), "labels": npy(np.arange(12))} | {array: member}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    refused(lambda: load(npz_config(path)), path)


@pytest.mark.parametrize(
    ("offset", "value"), [(8, 1), (8, 0x40), (10, 99), (6, 99)], ids=["encrypted", "strong", "method", "version"]
)
def test_npz_zip_unsupported(offset: int, value: int, write_npz: WriteNpz, refused: Refused) -> None:
    """Zip files that Python does not unpack; the offsets are those of an entry of the archive's directory."""
    path = write_npz(images=grey(), labels=np.arange(12))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + offset] = value
    path.write_bytes(data)
    refused(lambda: load(npz_config(path)), path, "not a readable .npz")


def test_npz_cut_anywhere(tmp_path: Path, write_npz: WriteNpz) -> None:
    path = write_npz(images=grey(4), labels=np.arange(4))
    data = path.read_bytes()
    seen = outcomes(path, [data[:length] for length in range(0, len(data), 7)], lambda: load(npz_config(path)))
    gc.collect()
    assert seen == {"refused"}


def test_npz_changed_anywhere(tmp_path: Path, write_npz: WriteNpz) -> None:
    path = write_npz(images=grey(4), labels=np.arange(4))
    assert outcomes(path, changed(path.read_bytes()), lambda: load(npz_config(path))) == {"read", "refused"}


def test_npz_damaged_leaves_no_open_file(write_npz: WriteNpz, refused: Refused) -> None:
    path = write_npz()
    path.write_bytes(path.read_bytes()[:-30])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        refused(lambda: load(npz_config(path)), path)
        gc.collect()
    assert [str(warning.message) for warning in seen] == []


# --- folders of pictures ------------------------------------------------------------------------------------------


def folder_config(root: Path, **fields: Any) -> DatasetConfig:
    return DatasetConfig(name="folder", path=str(root), **fields)


def flat(value: int, height: int = 6, width: int = 6) -> Bytes:
    return np.full((height, width), value, np.uint8)


def colour(red: int, green: int, blue: int, height: int = 6, width: int = 6) -> Bytes:
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (height, width, 3)).copy()


def test_folder_grey(write_pictures: WritePictures) -> None:
    images = grey(4, 6, 6)
    root = write_pictures({"b/2.png": images[0], "a/z.png": images[1], "b/1.png": images[2], "a/y.bmp": images[3]})
    dataset = load(folder_config(root))
    np.testing.assert_array_equal(dataset.images.numpy(), images[[3, 1, 2, 0]][:, np.newaxis])
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.classes == ("a", "b")
    assert (dataset.image_size, dataset.official_train) == (6, None)


def test_folder_colour(write_pictures: WritePictures) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    root = write_pictures({f"{kind}/1.png": image for kind, image in zip("abc", images, strict=True)})
    dataset = load(folder_config(root))
    assert dataset.images.is_contiguous()
    np.testing.assert_array_equal(dataset.images.numpy(), images.transpose(0, 3, 1, 2))


def test_folder_grey_and_colour(write_pictures: WritePictures) -> None:
    """A grey picture gets three like channels as soon as one other has colour."""
    image = grey(1, 6, 6)[0]
    root = write_pictures({"a/1.png": image, "b/1.png": colour(1, 2, 3), "b/2.png": image})
    dataset = load(folder_config(root))
    np.testing.assert_array_equal(dataset.images[0].numpy(), np.stack([image] * 3))
    assert dataset.images[1, :, 0, 0].tolist() == [1, 2, 3]
    assert load_splits(folder_config(root, split={"train": 1, "val": 1, "test": 1})).channels == 3


def test_folder_black_and_white(write_pictures: WritePictures) -> None:
    """Bitmaps are grey, and their white is 255."""
    bits = np.tile(np.array([False, True]), (6, 3))
    dataset = load(folder_config(write_pictures({"a/1.png": bits, "b/1.png": ~bits})))
    np.testing.assert_array_equal(dataset.images.numpy(), np.stack([bits, ~bits])[:, np.newaxis] * np.uint8(255))


def test_folder_transparent(write_pictures: WritePictures) -> None:
    """An alpha channel is no colour."""
    pixels = np.stack([flat(70), flat(255)], axis=-1)
    dataset = load(folder_config(write_pictures({"a/1.png": pixels, "b/1.png": flat(9)})))
    assert dataset.images.shape[1] == 1
    assert dataset.images.flatten(1).unique(dim=1).flatten().tolist() == [70, 9]
    pixels = np.concatenate([colour(1, 2, 3), flat(255)[..., np.newaxis]], axis=-1)
    dataset = load(folder_config(write_pictures({"a/1.png": pixels, "b/1.png": flat(9)}, "rgba")))
    assert dataset.images[0, :, 0, 0].tolist() == [1, 2, 3]


def test_folder_16_bit_grey(write_pictures: WritePictures) -> None:
    """16-bit grey keeps its upper 8 bits: black to white, not everything above 255 white."""
    pixels = np.tile(np.array([0, 0x1000, 0x4000, 0x8000, 0xC000, 0xFFFF], np.uint16), (6, 1))
    dataset = load(folder_config(write_pictures({"a/1.png": pixels, "b/1.png": pixels})))
    assert dataset.images.shape[1] == 1
    row = dataset.images[0, 0, 0].tolist()
    assert row == pytest.approx([0, 0x10, 0x40, 0x80, 0xC0, 0xFF], abs=1)


def test_folder_several_sizes(write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({"a/1.png": flat(7, 4, 4), "a/2.png": flat(80, 9, 9), "b/1.png": flat(200, 5, 12)})
    refused(lambda: load(folder_config(root)), root, "4×4", "12×5", "dataset.image_size")
    dataset = load(folder_config(root, image_size=8))
    assert dataset.images.shape == (3, 1, 8, 8)
    assert dataset.image_size == 8
    assert dataset.images.flatten(1).amin(1).tolist() == dataset.images.flatten(1).amax(1).tolist() == [7, 80, 200]


def test_folder_several_sizes_antialiased(write_pictures: WritePictures) -> None:
    """Stripes one pixel wide, at an eighth of the size: grey, not black and white."""
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    root = write_pictures({"a/1.png": stripes, "b/1.png": flat(0, 32, 32)})
    inner = load(folder_config(root, image_size=8)).images[0, :, 1:-1, 1:-1]
    assert int(inner.min()) >= 120
    assert int(inner.max()) <= 135


def test_folder_one_size_not_square(write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({"a/1.png": flat(7, 4, 9), "b/1.png": flat(80, 4, 9)})
    message = refused(lambda: load(folder_config(root)), root, "9×4", "dataset.image_size")
    assert message.count("9×4") == 1  # all have the one size
    assert load(folder_config(root, image_size=8)).images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("image_size", [None, 10, 32])
def test_folder_one_square_size_kept(image_size: int | None, write_pictures: WritePictures) -> None:
    """Pictures of one square size keep it where image_size is not smaller; the transform brings them to it."""
    images = grey(2, 10, 10)
    root = write_pictures({"a/1.png": images[0], "b/1.png": images[1]})
    dataset = load(folder_config(root, image_size=image_size))
    assert dataset.image_size == (image_size or 10)
    assert dataset.images.shape == (2, 1, 10, 10)
    np.testing.assert_array_equal(dataset.images[:, 0].numpy(), images)


def test_folder_other_files_left_out(write_pictures: WritePictures) -> None:
    root = write_pictures({"a/1.png": flat(1), "a/deep/2.PNG": flat(2), "b/1.png": flat(3)})
    (root / "a" / "notes.txt").write_text("not a picture")
    (root / "list.csv").write_text("a,b")
    assert load(folder_config(root)).images[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_folder_path_by_data_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_pictures: WritePictures
) -> None:
    write_pictures({"a/1.png": flat(1), "b/1.png": flat(2)}, "data/pets")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = DatasetConfig(name="folder", path="pets")
    assert load(config, tmp_path / "data").images[:, 0, 0, 0].tolist() == [1, 2]
    write_pictures({"a/1.png": flat(3), "b/1.png": flat(4)}, "here/pets")
    assert load(config, tmp_path / "data").images[:, 0, 0, 0].tolist() == [3, 4]


def test_folder_of_parts_is_not_taken_for_classes(write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({f"{part}/{name}/1.png": flat(1) for part in ("train", "test") for name in "ab"})
    refused(lambda: load(folder_config(root)), root, "test and train are parts of a set")


def test_folder_of_classes_whose_pictures_lie_deeper(write_pictures: WritePictures) -> None:
    root = write_pictures({f"{name}/images/1.png": flat(index) for index, name in enumerate("ab")})
    assert load(folder_config(root)).classes == ("a", "b")


def test_folder_no_classes(tmp_path: Path, write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({"1.png": flat(1), "2.png": flat(2)})
    refused(lambda: load(folder_config(root)), root, "one sub-folder of pictures a class")
    (tmp_path / "empty").mkdir()
    refused(lambda: load(folder_config(tmp_path / "empty")), tmp_path / "empty", "one sub-folder of pictures a class")
    refused(lambda: load(folder_config(root / "1.png")), root / "1.png", "one sub-folder of pictures a class")


def test_folder_class_without_pictures(write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({"a/1.png": flat(1)})
    (root / "unread").mkdir()
    refused(lambda: load(folder_config(root)), root, "unread", ".png")


def test_folder_one_class(write_pictures: WritePictures, refused: Refused) -> None:
    root = write_pictures({"only/1.png": flat(1), "only/2.png": flat(2)})
    refused(lambda: load(folder_config(root)), "folder", "one class", "only")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


PIXELS = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in grey(1, 6, 6)[0])))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.png", b""),
        ("x.png", b"not a picture\n"),
        ("x.jpg", b"\xff\xd8\xff"),
        ("x.png", png_header(6, 6)),
        ("x.png", png_header(6, 6) + PIXELS[:20]),
        ("x.png", png_header(6, 6) + png_chunk(b"IDAT", b"no zlib stream")),
        ("x.png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes(5))),
        ("x.png", png_header(6, 6) + PIXELS.replace(b"IDAT", b"\x01\x02\x03\x04")),
        ("x.png", png_header(20_000, 20_000) + PIXELS),
        ("x.ppm", b"P6\n6 wide 255\n" + bytes(108)),
        ("x.ppm", b"P6"),
        ("x.bmp", b"BM" + bytes(60)),
    ],
    ids=[
        "empty",
        "text",
        "jpeg cut",
        "png without pixels",
        "png cut",
        "png pixels corrupt",
        "png header short",
        "png chunk nameless",
        "png of 400 million pixels",
        "ppm header",
        "ppm cut",
        "bmp of zeros",
    ],
)
@pytest.mark.parametrize("image_size", [None, 8])
def test_folder_damaged_picture(
    name: str, content: bytes, image_size: int | None, write_pictures: WritePictures, refused: Refused
) -> None:
    root = write_pictures({"a/1.png": flat(1), "b/1.png": flat(2)})
    (root / "b" / name).write_bytes(content)
    refused(lambda: load(folder_config(root, image_size=image_size)), root / "b" / name)


def test_folder_png_undamaged(write_pictures: WritePictures) -> None:
    """The parts that the damaged pictures are made of do make one."""
    root = write_pictures({"a/1.png": flat(1), "b/1.png": flat(2)})
    (root / "b" / "x.png").write_bytes(png_header(6, 6) + PIXELS + png_chunk(b"IEND", b""))
    np.testing.assert_array_equal(load(folder_config(root)).images[2].numpy(), grey(1, 6, 6))


@pytest.mark.parametrize(("extension", "step"), [("png", 1), ("jpg", 5)])
def test_folder_picture_changed_anywhere(extension: str, step: int, write_pictures: WritePictures) -> None:
    root = write_pictures({"a/1.png": flat(1), "b/1.png": flat(2)})
    path = root / "b" / f"x.{extension}"
    Image.fromarray(grey(1, 8, 8)[0]).save(path)
    data = path.read_bytes()
    contents = changed(data)[::step] + [data[:length] for length in range(0, len(data), 5 * step)]
    assert outcomes(path, contents, lambda: load(folder_config(root, image_size=8))) == {"read", "refused"}

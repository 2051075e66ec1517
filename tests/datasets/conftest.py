"""Small data of every kind, made by the tests, with the network and the machine's own data sets shut out."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

import datasets
from datasets import DataError, Dataset, DatasetConfig, Split, sources

Bytes = NDArray[np.uint8]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def package_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /usr/share/datasets; the cache is in tmp_path too, and downloads have nowhere to go."""
    root = tmp_path / "package"
    read = sources._idx_dataset

    def elsewhere(title: str, package: str | None, package_dir: Path, *rest: Any) -> Dataset:
        assert package_dir.parent == Path("/usr/share/datasets")
        return read(title, package, root / package_dir.name, *rest)

    monkeypatch.setattr(sources, "_idx_dataset", elsewhere)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "mirrors", [])
    return root


@pytest.fixture
def refused() -> Callable[..., str]:
    """The message of the DataError that a call raises: one line, with each of the fragments in it."""

    def check(call: Callable[[], object], *fragments: object) -> str:
        with pytest.raises(DataError) as caught:
            call()
        message = str(caught.value)
        assert message.splitlines() == [message]
        for fragment in fragments:
            assert str(fragment) in message
        return message

    return check


# --- IDX files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def idx_bytes() -> Callable[..., bytes]:
    """An array in the IDX format, written here apart from the reader; `dtype_code` 8 is unsigned bytes."""

    def encode(array: Bytes, dtype_code: int = 8) -> bytes:
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, dtype_code, array.ndim, *array.shape)
        return header + array.tobytes()

    return encode


@pytest.fixture
def idx_arrays() -> Callable[..., list[Bytes]]:
    """Training images and labels, test images and labels; `salt` makes sets with other pixels."""

    def make(train: int = 24, test: int = 12, side: int = 6, salt: int = 0) -> list[Bytes]:
        generator = np.random.default_rng(salt)
        arrays = []
        for n in (train, test):
            arrays.append(generator.integers(0, 256, (n, side, side), dtype=np.uint8))
            arrays.append((np.arange(n) % 10).astype(np.uint8))
        return arrays

    return make


@pytest.fixture
def write_idx(idx_bytes: Callable[..., bytes], idx_arrays: Callable[..., list[Bytes]]) -> Callable[..., list[Path]]:
    """The four files in a folder, which is made; without arrays, those of `idx_arrays`."""

    def write(folder: Path, arrays: list[Bytes] | None = None, gz: bool = False) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for part, array in zip(sources.IDX_PARTS, arrays or idx_arrays(), strict=True):
            data = idx_bytes(array)
            paths.append(folder / (f"{part}.gz" if gz else part))
            paths[-1].write_bytes(gzip.compress(data, mtime=0) if gz else data)
        return paths

    return write


@dataclass
class Mirror:
    """A server on this machine that stands for a data set's; `requests` are the paths asked of it."""

    root: Path
    url: str
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Mirror]]:
    """Starts a server of the gzipped files in a folder and has torchvision download `title` from it."""
    running: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    def start(title: str, root: Path) -> Mirror:
        served: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_request(self, *_: object) -> None:
                served.append(self.path)

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        downloader = getattr(torchvision.datasets, title)
        resources = [
            (f"{part}.gz", hashlib.md5((root / f"{part}.gz").read_bytes()).hexdigest())
            for part in sources.IDX_PARTS
            if (root / f"{part}.gz").is_file()
        ]
        monkeypatch.setattr(downloader, "mirrors", [url])
        monkeypatch.setattr(downloader, "resources", resources or downloader.resources)
        return Mirror(root, url, served)

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


# --- a person's own images ----------------------------------------------------------------------------------------


@pytest.fixture
def write_npz(tmp_path: Path) -> Callable[..., Path]:
    """own.npz with the arrays; without any, 30 grey images of 6×6 in three classes."""

    def write(name: str = "own.npz", **arrays: NDArray[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not arrays:
            pixels = np.random.default_rng(0).integers(0, 256, (30, 6, 6), dtype=np.uint8)
            arrays = {"images": pixels, "labels": np.arange(30) % 3}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=True, **arrays)
        return path

    return write


@pytest.fixture
def write_pictures(tmp_path: Path) -> Callable[..., Path]:
    """A folder of pictures: relative path -> pixels, uint8 H×W grey or H×W×3; without any, 12 grey of 6×6 in two."""

    def write(pictures: dict[str, NDArray[Any]] | None = None, name: str = "pictures") -> Path:
        root = tmp_path / name
        generator = np.random.default_rng(0)
        for relative, pixels in (
            pictures
            or {
                f"{kind}/{n}.png": generator.integers(0, 256, (6, 6), dtype=np.uint8)
                for kind in ("cat", "dog")
                for n in range(6)
            }
        ).items():
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return root

    return write


@pytest.fixture
def source(
    tmp_path: Path,
    write_idx: Callable[..., list[Path]],
    write_npz: Callable[..., Path],
    write_pictures: Callable[..., Path],
) -> Callable[..., tuple[DatasetConfig, Path | None]]:
    """(name, config fields) -> what loads that source from small data; a source unknown here has no contract test."""

    def make(name: str, **fields: Any) -> tuple[DatasetConfig, Path | None]:
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        if name in ("mnist", "fashion_mnist"):
            write_idx(data_dir)
        elif name == "npz":
            fields.setdefault("path", str(write_npz()))
        elif name == "folder":
            fields.setdefault("path", str(write_pictures()))
        elif name != "digits":
            pytest.fail(f"tests/datasets/conftest.py has no small data for the source {name!r}")
        return DatasetConfig(name=name, **fields), data_dir

    return make


# --- images that say which they are ------------------------------------------------------------------------------


@pytest.fixture
def numbered() -> Callable[..., Dataset]:
    """n images of 2×2 whose first two pixels are their number, labelled by its last digit."""

    def make(n: int, official_train: int | None = None) -> Dataset:
        number = torch.arange(n)
        images = torch.zeros(n, 1, 2, 2, dtype=torch.uint8)
        images[:, 0, 0, 0] = number % 256
        images[:, 0, 0, 1] = number // 256
        return Dataset(images, number % 10, tuple("0123456789"), 2, official_train)

    return make


@pytest.fixture
def numbers() -> Callable[[Split], list[int]]:
    """Which of the `numbered` images a part holds, once each image still has its own label."""

    def read(part: Split) -> list[int]:
        number = part.images[:, 0, 0, 0].long() + 256 * part.images[:, 0, 0, 1].long()
        assert torch.equal(number % 10, part.labels)
        return [int(value) for value in number]

    return read


@pytest.fixture
def config() -> Callable[..., DatasetConfig]:
    """A config for `split` alone, which reads no source."""
    return functools.partial(datasets.DatasetConfig, name="numbered")

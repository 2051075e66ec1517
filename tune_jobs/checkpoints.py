"""What a trial keeps on disk while it runs, so that another process can go on with it; and its model when it is done.

One folder a trial, on a file system that every node sees.  A file is written under another name and then renamed, its
name holds the checksum of its bytes, and the last two are kept: a process killed while it writes, or a damaged file,
costs the epochs since the one before.

PyTorch is imported where a state is written or read, and not by those who look after the files alone.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pyarrow import fs

from tune_jobs.storage import StoreError, file_system, told

KEPT = 2
"""Checkpoints of a running trial that are kept."""
SHARE = 0.05
"""Writing checkpoints takes at most about this share of the time: after one that took a second to write, none is
written for 19 s.  An epoch that has none is trained again."""
MODEL = "model.safetensors"
_NAME = re.compile(r"epoch-(\d{5,})-([0-9a-f]{8})\.pt")


class Checkpoints:
    """The checkpoints of one trial, in `<folder>/<trial id>/`; `folder` is an absolute path or a URI.

    Every method raises StoreError where the folder is on an object store that does not do what is asked, and OSError
    where it is a directory.
    """

    def __init__(self, folder: str, trial: str) -> None:
        self._files, root = file_system(folder)
        self._folder = folder
        self._path = f"{root}/{trial}"
        self._free_at = 0.0

    def save(self, epoch: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state after an epoch, unless the last one was written too short a time ago.

        A training that comes to this epoch only now could not go on from those of later ones, on this device or in this
        version: they stay for where it can, until it is done.
        Raises OSError where there is no room.  What an object store does not take is tried again after a later epoch.
        """
        import torch

        start = time.monotonic()
        if start < self._free_at:
            return
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        data = buffer.getvalue()
        with contextlib.suppress(StoreError), self._told():
            self._write(f"epoch-{epoch:05d}-{zlib.crc32(data):08x}.pt", data)
            found = self._found()
            later = [name for number, name, _ in found if number > epoch]
            until_here = [name for number, name, _ in found if number <= epoch]
            for old in [*later[KEPT:], *until_here[KEPT:]]:
                self._files.delete_file(f"{self._path}/{old}")
        now = time.monotonic()
        self._free_at = now + (now - start) * (1 - SHARE) / SHARE

    def load(self) -> Iterator[dict[str, Any]]:
        """The states that are whole, the newest first.  One with more than tensors and plain values is left out."""
        import torch

        with self._told():
            found = self._found()
        for _, name, checksum in found:
            with self._told(), self._files.open_input_stream(f"{self._path}/{name}") as stream:
                data = stream.read()
            if zlib.crc32(data) != checksum:
                continue
            try:
                state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                continue
            yield state

    def write_model(self, write: Callable[[Path], None], scratch: Path) -> None:
        """Put the model beside the checkpoints.  `scratch` is a folder on this machine."""
        local = scratch / MODEL
        write(local)
        with self._told():
            self._write(MODEL, local.read_bytes())
        local.unlink()

    def drop(self) -> None:
        """Remove the checkpoints: the trial is done."""
        with self._told():
            for _, name, _ in self._found():
                self._files.delete_file(f"{self._path}/{name}")

    def drop_all(self) -> None:
        """Remove all there is of the trial."""
        with self._told():
            self._files.delete_dir_contents(self._path, missing_dir_ok=True)
            if self._files.get_file_info(self._path).type == fs.FileType.Directory:
                self._files.delete_dir(self._path)

    def read_model(self) -> bytes | None:
        """The model's file, where there is one."""
        path = f"{self._path}/{MODEL}"
        with self._told():
            if self._files.get_file_info(path).type == fs.FileType.NotFound:
                return None
            with self._files.open_input_stream(path) as stream:
                data: bytes = stream.read()
        return data

    def _told(self) -> AbstractContextManager[None]:
        return told(self._folder) if "://" in self._folder else nullcontext()

    def _found(self) -> list[tuple[int, str, int]]:
        """(epoch, file name, checksum in it) of each checkpoint, the newest first."""
        files = self._files.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        named = [(match, file.base_name) for file in files if (match := _NAME.fullmatch(file.base_name))]
        return sorted(((int(match[1]), name, int(match[2], 16)) for match, name in named), reverse=True)

    def _write(self, name: str, data: bytes) -> None:
        self._files.create_dir(self._path, recursive=True)
        temporary = f"{self._path}/.{name}.tmp"
        try:
            with self._files.open_output_stream(temporary) as stream:
                stream.write(data)
            self._files.move(temporary, f"{self._path}/{name}")
        except OSError:
            if self._files.get_file_info(temporary).type == fs.FileType.File:
                self._files.delete_file(temporary)
            raise


def folders(folder: str) -> set[str]:
    """The ids of the trials that have something there.  Raises as Checkpoints does."""
    files, root = file_system(folder)
    with told(folder) if "://" in folder else nullcontext():
        return {found.base_name for found in files.get_file_info(fs.FileSelector(root, allow_not_found=True))}

"""An S3 of the test's own: moto's server in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyarrow import fs

KEY, SECRET = "AKIATESTTESTTESTTEST", "a-secret-that-nobody-may-see"


@dataclass
class S3Server:
    """With one bucket, `bucket`."""

    port: int
    files: fs.S3FileSystem = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def names(self, folder: str) -> set[str]:
        """The objects below the folder, without the empty ones that stand for folders."""
        infos = self.files.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
        return {info.path.removeprefix(f"{folder}/") for info in infos if info.type == fs.FileType.File}

    def read(self, path: str) -> bytes:
        with self.files.open_input_stream(path) as stream:
            data: bytes = stream.read()
        return data

    def write(self, path: str, data: bytes) -> None:
        with self.files.open_output_stream(path) as stream:
            stream.write(data)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "moto's server did not start"
                assert time.monotonic() < deadline
                time.sleep(0.05)
        files = fs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{port}",
            allow_bucket_creation=True,
        )
        files.create_dir("bucket")
        yield S3Server(port, files)
    finally:
        process.kill()
        process.wait()

"""Where run directories lie: in a directory, or in a folder of an object store.

An object store is reached through pyarrow.  Its credentials are what its own tools use (AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, ~/.aws, the machine's role; GOOGLE_APPLICATION_CREDENTIALS, the machine's
account) and never part of a URI or of a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import pyarrow
from pyarrow import fs

from datasets.reasons import in_a_line
from tune_jobs.errors import UsageError

ALLOWED = "a directory, s3://bucket/folder or gs://bucket/folder"
OPTIONS = {"s3": ("region", "scheme", "endpoint_override"), "gs": ("scheme", "endpoint_override")}
"""Scheme -> what a URI's query may say."""
CONNECT_S = 5
"""How long a connection may take to come about; the AWS library tries three times."""
RETRY_S = 30
"""How long the Google library tries again."""


class StoreError(UsageError):
    """An object store that does not do what is asked, as one line without anything secret."""


@dataclass(frozen=True)
class Found:
    """An object."""

    size: int
    """Bytes."""
    time_s: float
    """When it was written, seconds since 1970 by the store's own clock."""


@dataclass(frozen=True)
class Store:
    """A folder of an object store.  Every method raises StoreError where the store does not do it."""

    scheme: str
    root: str
    """`bucket/folder`."""
    given: tuple[tuple[str, str], ...]
    """The query of its URI."""
    options: tuple[tuple[str, str], ...]
    """The same with what the environment said besides, which other machines need to find the store."""
    files: fs.FileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self._uri(self.given)

    @property
    def uri(self) -> str:
        """For another machine: with region and endpoint."""
        return self._uri(self.options)

    @property
    def name(self) -> str:
        return self.root.rpartition("/")[2]

    @property
    def parent(self) -> Store:
        return replace(self, root=self.root.rpartition("/")[0])

    def __truediv__(self, name: str) -> Store:
        return replace(self, root=f"{self.root}/{name}")

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        with self._told():
            try:
                with self.files.open_input_stream(f"{self.root}/{name}") as stream:
                    data: bytes = stream.read()
            except FileNotFoundError:
                return None
        return data

    def write(self, name: str, data: bytes) -> None:
        """An object is there whole, or what was there before."""
        with self._told(), self.files.open_output_stream(f"{self.root}/{name}") as stream:
            stream.write(data)

    def delete(self, name: str) -> None:
        """Where there is none, nothing is done."""
        with self._told():
            try:
                self.files.delete_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return

    def list(self) -> dict[str, Found]:
        """All objects in the folder and in those below it, by their names from here."""
        with self._told():
            infos = self._listed(recursive=True)
        return {
            info.path.removeprefix(f"{self.root}/"): Found(info.size, (info.mtime_ns or 0) / 1e9)
            for info in infos
            if info.type == fs.FileType.File
        }

    def find(self, name: str) -> Found | None:
        """An object; None where there is none."""
        with self._told():
            (info,) = self.files.get_file_info([f"{self.root}/{name}"])
        return Found(info.size, (info.mtime_ns or 0) / 1e9) if info.type == fs.FileType.File else None

    def folders_with(self, *names: str) -> Sequence[str]:
        """The folders right here that have an object of one of these names."""
        with self._told():
            infos = self._listed(recursive=False)
            folders = sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)
            asked = [(folder, f"{self.root}/{folder}/{name}") for folder in folders for name in names]
            found = self.files.get_file_info([path for _, path in asked])
        have = {folder for (folder, _), info in zip(asked, found, strict=True) if info.type == fs.FileType.File}
        return sorted(have)

    def _listed(self, recursive: bool) -> Sequence[fs.FileInfo]:
        """A folder that is not there is empty; a bucket that is not there is an error."""
        infos: Sequence[fs.FileInfo] = self.files.get_file_info(
            fs.FileSelector(self.root, allow_not_found=True, recursive=recursive)
        )
        if not infos and self.files.get_file_info(self.root.partition("/")[0]).type == fs.FileType.NotFound:
            raise StoreError(f"{self}: there is no such bucket")
        return infos

    def _told(self) -> AbstractContextManager[None]:
        return told(str(self))

    def _uri(self, query: tuple[tuple[str, str], ...]) -> str:
        return f"{self.scheme}://{self.root}" + (f"?{urlencode(query, safe=':/')}" if query else "")


def parse(given: str) -> Path | Store:
    """The storage that a person names.  Raises UsageError for what is none, StoreError where it cannot be reached."""
    if not given:
        raise UsageError(f"storage '': give {ALLOWED}")
    if re.match(f"({'|'.join(OPTIONS)}):", given) and "://" not in given:
        raise UsageError(f"storage {given}: give {ALLOWED}")
    return _store(given) if "://" in given else expanded(Path(given)).absolute()


def expanded(path: Path) -> Path:
    """With the home folder in place of a first ~.  Raises UsageError where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: {in_a_line(error)}") from error


def split(given: str, what: str) -> SplitResult:
    """A URI in its parts.  Raises UsageError where it is none."""
    try:
        return urlsplit(given)
    except ValueError as error:
        raise UsageError(f"{what} {given}: is no URI ({error})") from error


def file_system(folder: str) -> tuple[fs.FileSystem, str]:
    """The file system of an absolute path or URI, and the path on it."""
    if "://" in folder:
        store = _store(folder)
        return store.files, store.root
    return fs.LocalFileSystem(), Path(folder).as_posix()


@contextmanager
def told(where: str) -> Iterator[None]:
    """What pyarrow raises becomes a StoreError in our own words: its texts may quote requests."""
    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise StoreError(f"{where}: {_words(error)}") from None


def _store(given: str) -> Store:
    parts = split(given, "storage")
    if parts.scheme not in OPTIONS:
        raise UsageError(f"storage {parts.scheme}://: there is no such kind; give {ALLOWED}")
    if "@" in parts.netloc:
        raise UsageError(
            f"storage {parts.scheme}://…@…: credentials do not belong in a URI, which is shown and logged; give them "
            "in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in ~/.aws"
        )
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    for key, _ in query:
        if key not in OPTIONS[parts.scheme]:
            allowed = ", ".join(OPTIONS[parts.scheme])
            raise UsageError(f"storage {parts.scheme}://{parts.netloc}: its query may say {allowed}, not {key}")
    folders = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    if not parts.netloc or parts.fragment or any(folder in ("", ".", "..") for folder in folders):
        raise UsageError(f"storage {parts.scheme}://{parts.netloc}{parts.path}: give {ALLOWED}")
    root = "/".join([parts.netloc, *folders])
    with told(f"{parts.scheme}://{root}"):
        options = _with_environment(parts.scheme, parts.netloc, dict(query))
        files = _connect(parts.scheme, options)
    return Store(parts.scheme, root, query, tuple(options.items()), files)


def _with_environment(scheme: str, bucket: str, options: dict[str, str]) -> dict[str, str]:
    """AWS's own variables for another endpoint, which pyarrow does not read; the bucket's region, asked of AWS."""
    if scheme != "s3":
        return options
    endpoint = options.get("endpoint_override") or next(
        filter(None, (os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))), ""
    )
    transport, separator, host = endpoint.partition("://")
    if separator:
        options = {"scheme": transport} | options | {"endpoint_override": host.rstrip("/")}
    if "region" in options:
        return options
    if endpoint:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    else:
        region = fs.resolve_s3_region(bucket)
    return options | {"region": region}


def _connect(scheme: str, options: dict[str, str]) -> fs.FileSystem:
    if scheme == "s3":
        return fs.S3FileSystem(connect_timeout=CONNECT_S, **options)
    return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=RETRY_S), **options)


_DENIED = "access is denied; credentials come from the environment, ~/.aws or ~/.config/gcloud, or the machine's role"
_CAUSES = (
    (r"NO_SUCH_BUCKET|bucket does not exist|Bucket '.*' not found", "there is no such bucket"),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|MISSING_AUTHENTICATION_TOKEN|INVALID_CLIENT_TOKEN"
        r"|EXPIRED_TOKEN|UNRECOGNIZED_CLIENT|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|ermission denied",
        _DENIED,
    ),
    (r"HTTP status 301|PERMANENT_REDIRECT", "the bucket is in another region; say which with ?region="),
    (r"NETWORK_CONNECTION|resolve host|UNAVAILABLE|timed out|Timeout", "cannot be reached"),
    (r"SLOW_DOWN|THROTTLING|HTTP status 503", "asks to be asked less often"),
)
"""What pyarrow's text has -> what a person is told."""


def _words(error: Exception) -> str:
    text = str(error)
    for pattern, words in _CAUSES:
        if re.search(pattern, text):
            return words
    code = re.search(r"AWS Error ([A-Z_]+(?: \(HTTP status \d+\))?)|Status\(([A-Z_]+)", text)
    return f"the store says {code[1] or code[2]}" if code else f"cannot be used ({type(error).__name__})"

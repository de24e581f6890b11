"""Where recorded rows lie, as `--record` names it: in a folder or in a bucket.

    PLACE/<model>/<day>/<time>-<host>-<process>-<random>.parquet

A file is written under another name and moved in when it is whole, as an object of a bucket is by
itself: whoever reads sees closed files alone. Only files of such names are listed, and taken away.
"""

import os
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hourglass.service.errors import InvalidSettings
from hourglass.service.serving.objects import SCHEMES, Objects

SUFFIX = ".parquet"
STALE_SECONDS = 86400.0  # after which a half-written file is nobody's any more
_NAME = r"\d{6}-[^/]+-\d+-[0-9a-f]{8}\.parquet"
_KEY = re.compile(rf"[a-z0-9_-]+/\d{{4}}-\d\d-\d\d/{_NAME}")
_SCRATCH = re.compile(rf"\.{_NAME}-[^/]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


class Folder:
    """A folder, of which a file's key is its path within; its errors are OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        """Whether it can be written; it is made where it is not there."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._path):
            pass

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Write a file whole or not at all; it is its owner's alone to read."""
        place = self._path / key
        for folder in (self._path, place.parents[1], place.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(prefix=f".{place.name}-", dir=place.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(scratch).replace(place)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def sizes(self) -> dict[str, int]:
        """By key the bytes of each file; what processes that were killed long ago left half
        written goes.
        """
        found = {}
        for path in self._path.glob("*/*/*"):
            with suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                if _KEY.fullmatch(key := path.relative_to(self._path).as_posix()):
                    found[key] = status.st_size
                elif (
                    _SCRATCH.fullmatch(path.name) and status.st_mtime < time.time() - STALE_SECONDS
                ):
                    path.unlink()
        return found

    def remove(self, key: str) -> bool:
        """Take a file away; whether it was there."""
        try:
            (place := self._path / key).unlink()
        except FileNotFoundError:
            return False
        if place.parent.name != time.strftime("%Y-%m-%d", time.gmtime()):  # where others write
            with suppress(OSError):  # it holds others
                place.parent.rmdir()
        return True


class Bucket:
    """What lies under a URL such as s3://bucket/prefix; its errors are OSError."""

    def __init__(self, url: str) -> None:
        self._objects = Objects(url)

    def check(self) -> None:
        """Whether it can be written."""
        self._objects.is_conditional()

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Write a file whole or not at all."""
        self._objects.put(key, bytes(data))

    def sizes(self) -> dict[str, int]:
        """By key the bytes of each file."""
        found = self._objects.keys("")
        return {key: size for key, size in found.items() if _KEY.fullmatch(key)}

    def read(self, key: str) -> bytes:
        """A file; FileNotFoundError where it is gone."""
        return b"".join(self._objects.stream(key))

    def remove(self, key: str) -> bool:
        """Take a file away."""
        self._objects.delete(key)
        return True


Place = Folder | Bucket


def is_bucket(url: str) -> bool:
    """Whether a URL is of a bucket."""
    return urlsplit(url).scheme in SCHEMES


def open_place(url: str) -> Place:
    """The place that a path or a URL names; InvalidSettings where it names none."""
    if _SCHEME.match(url) is None:
        return Folder(Path(url))
    if is_bucket(url):
        return Bucket(url)
    split = urlsplit(url)
    if split.scheme != "file" or split.netloc not in ("", "localhost"):
        raise InvalidSettings(
            f"--record is {url!r}: expected a folder, s3://BUCKET/PREFIX, gs://, az:// or"
            " file:///FOLDER"
        )
    return Folder(Path(unquote(split.path)))

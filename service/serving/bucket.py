"""Bucket: models in object storage, by the layout of store.py, and their copies on this disk.

Looks bring pointers and thresholds here, each by a GET that carries nothing where they are as they
were; a version comes once, whole and held against its SHA-256, when somebody asks for it. What is
read is read here, so a bucket that is away takes nothing out of service, also over a restart.

Pointer and threshold are replaced by compare-and-swap: of two who change them at once one is told.
No lock spans machines. A run that was overtaken while it fitted is told so when it publishes; the
lock of store.py is still held, and keeps runs of one machine apart. A model is retired by taking
its pointer away alone, since many objects cannot be moved in one step.
"""

import errno
import hashlib
import logging
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hourglass.service.errors import InvalidArtifact, InvalidSettings, NotPromoted, UnknownModel
from hourglass.service.model.artifact import MODEL_NAME
from hourglass.service.serving.disk import ModelFile, write_atomically
from hourglass.service.serving.objects import Conflict, Found, Objects
from hourglass.service.serving.signatures import SIGNATURE_BYTES, SIGNATURE_FILE, Trust
from hourglass.service.serving.store import (
    CHALLENGER,
    MAX_REPORT_BYTES,
    MAX_TEXT_BYTES,
    MODEL_FILE,
    POINTER,
    THRESHOLD_FILE,
    ModelFolder,
    Store,
    StoredThreshold,
)

AT_ONCE = 8  # models that are asked for
SWAPS = 10  # of a threshold, after which others change it too often
_VERSION = re.compile(r"[0-9a-f]{64}")
_logger = logging.getLogger(__name__)


class Bucket(Store):
    """The models under a URL such as s3://bucket/prefix, with their copies in a folder."""

    poll_seconds = 15.0  # each look costs three requests a model
    look_seconds = 60.0

    def __init__(self, url: str, cache: Path, trust: Trust | None = None) -> None:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(cache, trust)
        self.objects = Objects(url)
        self._known: dict[str, Found] = {}  # by key: what lies there, as far as is known here
        self._changing = threading.RLock()  # of what is known, and lies here
        self._ignored: set[str] = set()

    def __str__(self) -> str:
        return self.objects.url

    def check(self) -> str | None:
        """InvalidSettings where the bucket refuses us and nothing is here; a sentence where it is
        away, or holds no model yet.
        """
        try:
            names = self._names()
        except OSError as error:
            here = any(self.path.glob(f"*/{POINTER}"))
            if error.errno == errno.EACCES and not here:
                raise InvalidSettings(str(error.strerror)) from error
            served = "the copies of its models are served meanwhile" if here else "none is served"
            return f"{error.strerror}; {served}"
        if not names:
            return f"{self} holds no model yet; they are served as they come"
        return None

    def model(self, name: str) -> "BucketModel":
        """The model of that name, whether it is there or not."""
        return BucketModel(self.path / name, self.trust, bucket=self)

    def look(self) -> dict[str, tuple[object, ...]]:
        """What is here of each model that has a pointer in the bucket; while that is away, of each
        that had one.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may be taken away
        away = self.away
        try:
            names = self._names()
            self._pull_all(names)
            for name in {path.parent.name for path in self.path.glob(f"*/{POINTER}")} - set(names):
                self.forget(f"{name}/{POINTER}")
        except OSError as error:
            self.away = error.strerror or str(error)
        else:
            self.away = None
        if self.away and not away:
            _logger.error("%s; what is served stays", self.away)
        elif away and not self.away:
            _logger.info("%s answers again", self)
        return {name: state for name, state in super().look().items() if not state or state[0]}

    def pull(self, key: str) -> None:
        """Have a small object here as it is there, or not here where it is not there."""
        while True:
            known = self._known.get(key)
            found = self.objects.get(key, known, max_bytes=MAX_TEXT_BYTES)
            with self._changing:
                if self._known.get(key) is not known:  # what was asked for may be older than that
                    continue
                if found is None:
                    self.forget(key)
                else:
                    self.keep(key, found)
                return

    def keep(self, key: str, found: Found) -> None:
        """Write a small object here that is known to lie there."""
        place = self.path / key
        with self._changing:
            self._known[key] = found
            with suppress(FileNotFoundError):
                if place.read_bytes() == found.data:
                    return
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, found.data)

    def forget(self, key: str) -> None:
        """Take away here what is there no more."""
        with self._changing:
            self._known.pop(key, None)
            (self.path / key).unlink(missing_ok=True)

    def _pull_all(self, names: Sequence[str]) -> None:
        """OSError at the first one that fails, without waiting for the others."""
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bucket")
        try:
            for done in as_completed([pool.submit(self.model(name).pull) for name in names]):
                done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _names(self) -> list[str]:
        names = self.objects.folders()
        for name in names:
            if not (MODEL_NAME.fullmatch(name) or name.startswith(".") or name in self._ignored):
                self._ignored.add(name)
                _logger.warning(
                    "%s/%s is ignored: a model's name matches %s", self, name, MODEL_NAME.pattern
                )
        return [name for name in names if MODEL_NAME.fullmatch(name)]


@dataclass(frozen=True)
class BucketModel(ModelFolder):
    """One model of a bucket: `path` is where its copies lie."""

    bucket: Bucket = field(kw_only=True)

    @property
    def url(self) -> str:
        return f"{self.bucket}/{self.name}"

    def place(self, version: str | None = None) -> str:
        return f"{self.url}/{version}/{MODEL_FILE}" if version else self.url

    def look(self) -> tuple[object, ...]:
        """As of a folder, after a pull; where that fails, of what is here."""
        with suppress(OSError):
            self.pull()
        return super().look()

    def pull(self) -> None:
        for file in (POINTER, CHALLENGER, THRESHOLD_FILE):
            self.bucket.pull(f"{self.name}/{file}")

    def fetch(self, version: str, *, max_bytes: int = sys.maxsize) -> None:
        if self._is_whole(version):
            return
        prefix, there = f"{self.name}/{version}/", self._files(version)
        if (size := there.get(MODEL_FILE)) is None:
            raise InvalidArtifact(f"{self.url}/{version}/{MODEL_FILE} is not there", "missing")
        if size > max_bytes:
            raise InvalidArtifact(
                f"{self.url}/{version}/{MODEL_FILE} has {size} bytes, at most {max_bytes} are"
                " loaded"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._sweep()
        scratch = Path(tempfile.mkdtemp(prefix=".publishing-", dir=self.path))
        try:
            for name, size in there.items():
                if name == MODEL_FILE or size <= MAX_REPORT_BYTES:
                    found = self._download(f"{prefix}{name}", scratch / name)
                    if name == MODEL_FILE and found != version:
                        raise InvalidArtifact(
                            f"{self.url}/{version}/{name} has the SHA-256 {found}: it was changed,"
                            " or cut short",
                            "damaged",
                        )
            scratch.chmod(0o755)
            self._move_in(scratch, version)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def exists(self) -> bool:
        return bool(self.versions()) or self.has_current()

    def read(self, version: str, *, max_bytes: int) -> ModelFile:
        try:
            self.fetch(version, max_bytes=max_bytes)
            if self.trust:
                self._try_to_fetch_signature(version)
        except OSError as error:
            raise InvalidArtifact(f"{error.strerror or error}", "unreadable") from error
        return super().read(version, max_bytes=max_bytes)

    def read_beside(self, version: str, name: str) -> bytes:
        self.fetch(version)
        return super().read_beside(version, name)

    def versions(self) -> list[str]:
        keys = self.bucket.objects.keys(f"{self.name}/")
        parts = [key.split("/") for key in keys]
        versions = {part[1] for part in parts if len(part) == 3 and part[2] == MODEL_FILE}
        return sorted(version for version in versions if _VERSION.fullmatch(version))

    def change_threshold(
        self, change: Callable[[StoredThreshold | None], StoredThreshold]
    ) -> StoredThreshold:
        key = f"{self.name}/{THRESHOLD_FILE}"
        for _ in range(SWAPS):
            found = self.bucket.objects.get(key, max_bytes=MAX_TEXT_BYTES)
            stored = None
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                stored = found and msgspec.json.decode(found.data, type=StoredThreshold)
            changed = change(stored)
            with suppress(Conflict):
                swapped = self.bucket.objects.swap(key, msgspec.json.encode(changed), found)
                self.bucket.keep(key, swapped)
                return changed
        raise OSError(errno.ETIMEDOUT, "others change it all the time")

    def write(self, name: str, data: bytes, *, version: str | None = None) -> None:
        key = f"{self.name}/{version}/{name}" if version else f"{self.name}/{name}"
        self.bucket.objects.put(key, data)
        if (place := self.path / (version or ".")).is_dir():
            write_atomically(place / name, data)

    def keep(self, data: bytes, beside: Mapping[str, str]) -> str:
        version, objects = super().keep(data, beside), self.bucket.objects
        prefix, there = f"{self.name}/{version}/", self._files(version)
        whole = there.get(MODEL_FILE) == len(data)
        if not whole or not all(name in there for name in beside):
            for name, text in beside.items():
                objects.put(f"{prefix}{name}", text.encode())
        if not whole:  # last: a version is there once its model is
            objects.put(f"{prefix}{MODEL_FILE}", data)
        return version

    def point(self, version: str, *, over: str | None = None) -> None:
        key, objects = f"{self.name}/{POINTER}", self.bucket.objects
        found = objects.get(key, max_bytes=MAX_TEXT_BYTES)
        if over is not None and _version(found) != over:
            raise self._not_over(_version(found), version, over)
        try:
            swapped = objects.swap(key, f"{version}\n".encode(), found)
        except Conflict as error:
            now = objects.get(key, max_bytes=MAX_TEXT_BYTES)
            if now is None or _version(now) != version:
                raise self._not_over(_version(now), version, _version(found)) from error
            swapped = now
        self.bucket.keep(key, swapped)

        self._end_challenge_of(version)

    def challenge(self, version: str | None) -> None:
        key = f"{self.name}/{CHALLENGER}"
        if version is None:
            self.bucket.objects.delete(key)
        else:
            self.bucket.objects.put(key, f"{version}\n".encode())
        self.bucket.pull(key)

    def remove(self, version: str) -> None:
        found = self.bucket.objects.get(f"{self.name}/{POINTER}", max_bytes=MAX_TEXT_BYTES)
        if _version(found) == version:
            raise NotPromoted(f"version {version[:12]} of {self.name!r} is in service, and stays")
        with suppress(InvalidArtifact):
            if self.challenger() == version:
                self.challenge(None)
        names = sorted(self._files(version), key=lambda name: name != MODEL_FILE)
        self.bucket.objects.delete(*(f"{self.name}/{version}/{name}" for name in names))
        with suppress(FileNotFoundError):
            super().remove(version)

    def retire(self, now: float) -> str:  # noqa: ARG002  it is in no name
        if not self.exists():
            raise UnknownModel(f"there is no model {self.name!r} in {self.bucket}")
        self.bucket.objects.delete(key := f"{self.name}/{POINTER}")
        self.bucket.forget(key)
        return f"{self.url} holds its versions, of which promote brings one into service again"

    def require_writable(self) -> str | None:
        if self.bucket.objects.is_conditional():
            return None
        return (
            f"{self.bucket} has no conditional writes: of two who publish at the same moment the"
            " last one wins, and the other is not told"
        )

    def _files(self, version: str) -> dict[str, int]:
        """Names of what lies beside a version's file there, and that itself, with their sizes."""
        prefix = f"{self.name}/{version}/"
        found = {
            key.removeprefix(prefix): size
            for key, size in self.bucket.objects.keys(prefix.removesuffix("/")).items()
        }
        return {name: size for name, size in found.items() if _is_name(name)}

    def _download(self, key: str, place: Path) -> str:
        """Bring an object here; its SHA-256."""
        digest = hashlib.sha256()
        with place.open("wb") as file:
            for chunk in self.bucket.objects.stream(key):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def _try_to_fetch_signature(self, version: str) -> None:
        """It may be made after the version was brought here. One that lies here does while the
        bucket is away, since the version's bytes are held against it all the same.
        """
        try:
            self._fetch_signature(version)
        except OSError:
            if self._signature_of(version) is None:
                raise

    def _fetch_signature(self, version: str) -> None:
        key, place = f"{self.name}/{version}/{SIGNATURE_FILE}", self.path / version / SIGNATURE_FILE
        found = self.bucket.objects.get(key, max_bytes=SIGNATURE_BYTES)
        if found is None:
            place.unlink(missing_ok=True)
            return
        with suppress(InvalidArtifact):  # of one that was cut short
            if self._signature_of(version) == found.data:
                return
        write_atomically(place, found.data)


def _version(found: Found | None) -> str | None:
    return found.data.decode(errors="replace").strip() if found else None


def _is_name(name: str) -> bool:
    """Whether that is a file's name, and no way out of a folder."""
    return "/" not in name and not name.startswith(".") and name != ""

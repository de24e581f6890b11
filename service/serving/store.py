"""Store: the layout of MODELS on disk, known here and nowhere else.

    MODELS/<name>/<version>/model.onnx   a version, the SHA-256 of this file; reports lie beside it,
                                         and the signature of signatures.py where there is one
    MODELS/<name>/current                the pointer: one line, the version in service
    MODELS/<name>/challenger             likewise, if there is one: the version scored beside it
    MODELS/<name>/threshold.json         the false-alarm budget changed while running, if it was
    MODELS/<name>/.lock                  held by whoever changes threshold.json
    MODELS/<name>/.training              held by the one run that may follow the version in service
    MODELS/<name>/decision.json          what the gate of training said last
    MODELS/.retired/<name>-<time>        a model that was taken out of service

Whatever is written is written beside its place under a random name that begins with a dot, and
moved in: nobody ever reads half of it. Such names are no versions and no models; what a killed
process left of them goes when somebody publishes a day later.

Whatever is read is a regular file of bounded size (disk.py): a FIFO or a device in its place is
refused at once. Pointer and threshold may be links within the model's folder, as Kubernetes makes
them; the model's file may lie anywhere, since its hash says what it is.

What lies elsewhere (bucket.py, mlflow_registry.py) is brought into such a folder, and read there.
"""

import errno
import fcntl
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hourglass.service.errors import (
    InvalidArtifact,
    InvalidSettings,
    NotPromoted,
    UnknownModel,
    UnknownVersion,
)
from hourglass.service.model.artifact import version_of
from hourglass.service.serving.disk import (
    ModelFile,
    read_regular,
    unreadable,
    write_atomically,
    write_through,
)
from hourglass.service.serving.signatures import SIGNATURE_BYTES, SIGNATURE_FILE, Trust

MODEL_FILE = "model.onnx"
POINTER = "current"
CHALLENGER = "challenger"
THRESHOLD_FILE = "threshold.json"
RETIRED = ".retired"
REPORT_FILE, REPORT_PAGE = "report.json", "report.html"  # beside a version's file
MAX_REPORT_BYTES = 16 * 2**20
MAX_TEXT_BYTES = 4096  # of a pointer or a threshold
LOCK_SECONDS = 3.0  # that a change of the threshold waits for another one
STALE_SECONDS = 86400.0
SCRATCH = (
    ".publishing-*", ".replaced-*", f".{POINTER}-*", f".{CHALLENGER}-*", f".{THRESHOLD_FILE}-*"
)  # fmt: skip
_VERSION = re.compile(r"[0-9a-f]{64}")
_logger = logging.getLogger(__name__)
Rate = Annotated[float, Meta(ge=1e-9, le=0.5)]  # under that no number of rows is enough


class StoredThreshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The false-alarm budget chosen while running, in place of the artifact's own."""

    alpha: Rate
    delta: Rate
    uncertified: bool = False


class ThresholdChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another false-alarm budget; what is left out stays as it is."""

    alpha: Rate | UnsetType = UNSET
    delta: Rate | UnsetType = UNSET
    # true: the marginal rule, alpha on average without the confidence 1 - delta
    uncertified: bool | UnsetType = UNSET

    def of(self, stored: StoredThreshold) -> StoredThreshold:
        """The budget that comes of another one."""
        given = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not UNSET
        }
        return msgspec.structs.replace(stored, **given)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The versions of one model, and what is said of them."""

    path: Path
    trust: Trust | None = None  # whose signature a version needs; None: nobody's

    @property
    def name(self) -> str:
        return self.path.name

    def look(self) -> tuple[object, ...]:
        """Something that differs as soon as the pointer or the threshold is another one; the first
        of it is None where there is no pointer. Empty where the folder is closed to us.
        """
        return _look_into(str(self.path), self.trust)

    def pull(self) -> None:
        """Have pointer and threshold here as they are where the models come from; OSError where
        that cannot be asked. Of a folder nothing is to be done.
        """

    def fetch(self, version: str) -> None:
        """The same of a version's files, which never change; InvalidArtifact where they are not as
        they must be.
        """

    def state(self) -> object:
        """Something that differs as soon as the pointer, the threshold, or the version's folder or
        file is another one.
        """
        state = _look_into(str(self.path), self.trust)
        try:
            version = self.current()
        except InvalidArtifact:
            return state
        return *state, _stamp(f"{self.path}/{version}"), _stamp(str(self.file(version)))

    def current(self) -> str:
        """The version that the pointer names; InvalidArtifact where it names none."""
        return self._pointed(POINTER)

    def has_current(self) -> bool:
        """Whether there is a pointer."""
        return (self.path / POINTER).is_file()

    def challenger(self) -> str | None:
        """The version that is to be scored beside that in service, if there is one; InvalidArtifact
        where its pointer cannot be read.
        """
        return self._pointed(CHALLENGER) if (self.path / CHALLENGER).exists() else None

    def look_at_challenger(self) -> object:
        """Something that differs as soon as its pointer or the threshold is another one; None where
        there is no pointer.
        """
        pointer = _stamp(f"{self.path}/{CHALLENGER}")
        return pointer and (pointer, _stamp(f"{self.path}/{THRESHOLD_FILE}"))

    def exists(self) -> bool:
        """Whether there is such a model, in service or not."""
        return self.path.is_dir()

    def file(self, version: str) -> Path:
        """Where the artifact of a version lies, or would."""
        return self.path / version / MODEL_FILE

    def place(self, version: str | None = None) -> str:
        """Where a person finds the model, or the artifact of a version."""
        return str(self.file(version) if version else self.path)

    def read(self, version: str, *, max_bytes: int) -> ModelFile:
        """The artifact of a version; InvalidArtifact where it is not what its name says, or nobody
        who is trusted has signed it.
        """
        file = read_file(self.file(version), max_bytes=max_bytes)
        if self.trust:
            self.trust.require(file.data, self._signature_of(version), self.file(version))
        return file

    def require_trusted(self, version: str, *, max_bytes: int) -> None:
        """InvalidArtifact where nobody who is trusted has signed a version, or no longer has."""
        if self.trust:
            self.read(version, max_bytes=max_bytes)

    def versions(self) -> list[str]:
        """Those that are there, in the order of their names."""
        found = [file.parent.name for file in self.path.glob(f"*/{MODEL_FILE}")]
        return sorted(version for version in found if not version.startswith("."))

    def is_intact(self, version: str) -> bool:
        """Whether the artifact of a version is there, and is what its name says."""
        try:
            self.fetch(version)
        except InvalidArtifact:
            return False
        return self._is_whole(version)

    def threshold(self) -> StoredThreshold | None:
        """The budget changed while running, if it was; InvalidArtifact where it cannot be read."""
        try:
            data = self._read_text(self.path / THRESHOLD_FILE)
            return msgspec.json.decode(data, type=StoredThreshold)
        except FileNotFoundError:
            return None
        except (OSError, InvalidArtifact, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidArtifact(f"it cannot be read: {error}", "threshold") from error

    def change_threshold(
        self, change: Callable[[StoredThreshold | None], StoredThreshold]
    ) -> StoredThreshold:
        """Keep another budget for restarts and other workers, made of the one that is stored now;
        OSError where that fails. Two changes at once, of any processes, follow each other.
        """
        with self._locked(".lock", LOCK_SECONDS):
            try:
                stored = self.threshold()
            except InvalidArtifact:
                stored = None
            changed = change(stored)
            write_atomically(self.path / THRESHOLD_FILE, msgspec.json.encode(changed))
        return changed

    def write(self, name: str, data: bytes, *, version: str | None = None) -> None:
        """Write a file beside a version, or beside all of them; OSError where that fails."""
        write_atomically(self.path / (version or ".") / name, data)

    def publish(self, data: bytes, beside: Mapping[str, str]) -> str:
        """Write an artifact and the texts beside it (file name -> text), point at it, and return
        its version; OSError where that fails.
        """
        version = self.keep(data, beside)
        self.point(version)
        return version

    def keep(self, data: bytes, beside: Mapping[str, str]) -> str:
        """The same without pointing at it. Of a version that is there already the texts stay,
        unless one is missing: a report, say, that the first fit was not to make.
        """
        version = version_of(data)
        self.path.mkdir(parents=True, exist_ok=True)
        self._sweep()
        if self.is_intact(version):
            if not all((self.path / version / file).exists() for file in beside):
                for file, text in beside.items():
                    write_atomically(self.path / version / file, text.encode())
        else:
            scratch = Path(tempfile.mkdtemp(prefix=".publishing-", dir=self.path))
            try:
                write_through(scratch / MODEL_FILE, data)
                for file, text in beside.items():
                    write_through(scratch / file, text.encode())
                scratch.chmod(0o755)
                self._move_in(scratch, version)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return version

    def promote(self, version: str, check: Callable[[ModelFile], object] | None = None) -> str:
        """Point at a version that is there, given in full or by an unambiguous beginning, and
        return it in full. UnknownVersion, or InvalidArtifact where its file is damaged, and
        whatever `check` raises: then the pointer stays.
        """
        if not self.exists():
            raise UnknownModel(f"there is no model {self.name!r} in {self.path.parent}")
        full = self.version_meant(version)
        if not self.is_intact(full):
            raise InvalidArtifact(
                f"the file of version {full[:12]} of {self.name!r} is damaged: its SHA-256 is"
                " another",
                "damaged",
            )
        if check is not None:
            check(self.read(full, max_bytes=sys.maxsize))
        self.point(full)
        return full

    def version_state(self, version: str) -> tuple[object, ...]:
        """Something that differs as soon as the file of a version, or a report, is another one."""
        beside = (MODEL_FILE, REPORT_FILE, REPORT_PAGE)
        return version, *(_stamp(str(self.path / version / name)) for name in beside)

    def read_beside(self, version: str, name: str) -> bytes:
        """What lies beside the artifact of a version; OSError or InvalidArtifact where it cannot be
        read, or is a link that leads out of the folder.
        """
        path = self.path / version / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise InvalidArtifact(f"{path} is a link that leads out of the folder", "unreadable")
        return read_regular(path, max_bytes=MAX_REPORT_BYTES).data

    def version_meant(self, version: str) -> str:
        """A version that is there, given in full or by an unambiguous beginning; UnknownVersion."""
        versions = self.versions()
        matches = [full for full in versions if full.startswith(version)]
        if len(matches) == 1:
            return matches[0]
        known = ", ".join(full[:12] for full in versions)
        problem = "is ambiguous" if matches else "is not there"
        raise UnknownVersion(
            f"version {version!r} of {self.name!r} {problem}; the versions are {known}"
        )

    def point(self, version: str, *, over: str | None = None) -> None:
        """Replace the pointer in one step: readers see the old version or the new one. NotPromoted
        where it is to point `over` another one than it does by now.
        """
        if over is not None and (found := self.current()) != over:
            raise self._not_over(found, version, over)
        write_atomically(self.path / POINTER, f"{version}\n".encode())
        self._end_challenge_of(version)

    def challenge(self, version: str | None) -> None:
        """Have a version that is there scored beside that in service, from now on and in place of
        any other; None: have none.
        """
        if version is None:
            (self.path / CHALLENGER).unlink(missing_ok=True)
        else:
            write_atomically(self.path / CHALLENGER, f"{version}\n".encode())

    def alone(self) -> AbstractContextManager[None]:
        """Held while a run decides what is in service next, or versions are taken away;
        TimeoutError at once where another process does so.
        """
        return self._locked(".training", 0.0)

    def remove(self, version: str) -> None:
        """Take a version away that is not in service; NotPromoted where it is. A challenger is none
        any more.
        """
        if self.has_current() and self.current() == version:
            raise NotPromoted(f"version {version[:12]} of {self.name!r} is in service, and stays")
        with suppress(InvalidArtifact):
            if self.challenger() == version:
                self.challenge(None)
        removed = Path(tempfile.mkdtemp(prefix=".replaced-", dir=self.path))
        try:
            (self.path / version).rename(removed / version)  # in one step: nobody sees a part
        finally:
            shutil.rmtree(removed, ignore_errors=True)

    def retire(self, now: float) -> str:
        """Take the model out of service, and return in a sentence's part how it comes back."""
        if not self.path.is_dir():
            raise UnknownModel(f"there is no model {self.name!r} in {self.path.parent}")
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        place = self.path.parent / RETIRED / f"{self.name}-{at}"
        place.parent.mkdir(exist_ok=True)
        self.path.rename(place)
        return f"{place} holds its versions, and moved back to {self.path} it is in service again"

    def require_writable(self) -> str | None:
        """OSError where nothing can be written; a sentence where it is not as safe as it could be.
        That its folder can be written is known here already.
        """

    def _end_challenge_of(self, version: str) -> None:
        """Of one that has just come into service, which a failure here does not undo."""
        try:
            if self.challenger() == version:
                self.challenge(None)
        except (InvalidArtifact, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            _logger.warning(
                "model %s: version %s is in service, and its pointer as a challenger stays: %s",
                self.name,
                version[:12],
                why,
            )

    def _is_whole(self, version: str) -> bool:
        try:
            return (
                version_of(read_regular(self.file(version), max_bytes=sys.maxsize).data) == version
            )
        except (FileNotFoundError, NotADirectoryError, InvalidArtifact):
            return False

    def _signature_of(self, version: str) -> bytes | None:
        path = self.path / version / SIGNATURE_FILE
        try:
            return read_regular(path, max_bytes=SIGNATURE_BYTES).data
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidArtifact(
                f"{path} cannot be read: {error.strerror}", "untrusted"
            ) from error
        except InvalidArtifact as error:
            raise InvalidArtifact(str(error), "untrusted") from error

    def _move_in(self, scratch: Path, version: str) -> None:
        """Make a folder that of a version, in place of a damaged one; another process may do the
        same, and then its folder is as good.
        """
        place = self.path / version
        try:
            scratch.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            if self._is_whole(version):
                return
            replaced = Path(tempfile.mkdtemp(prefix=".replaced-", dir=self.path))
            try:
                with suppress(FileNotFoundError):
                    place.rename(replaced / version)
                self._move_in(scratch, version)
            finally:
                shutil.rmtree(replaced, ignore_errors=True)

    def _sweep(self) -> None:
        """Take away what processes that were killed long ago left half written."""
        before = time.time() - STALE_SECONDS
        for path in [path for pattern in SCRATCH for path in self.path.glob(pattern)]:
            with suppress(OSError):
                if path.lstat().st_mtime >= before:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()

    def _pointed(self, name: str) -> str:
        """The version that a pointer names."""
        pointer = self.path / name
        try:
            text = self._read_text(pointer).decode(errors="replace").strip()
        except FileNotFoundError as error:
            raise unreadable(pointer, error, "pointer") from error
        except OSError as error:
            raise unreadable(pointer, error) from error
        if not _VERSION.fullmatch(text):
            raise InvalidArtifact(
                f"{pointer} holds {text[:80]!r}, expected a version (64 hexadecimal digits)",
                "pointer",
            )
        return text

    def _not_over(self, found: str | None, version: str, over: str | None) -> NotPromoted:
        brought = f"brought to version {found[:12]}" if found else "taken out of service"
        return NotPromoted(
            f"{self.name!r} was {brought} meanwhile, and version {version[:12]} was to follow"
            f" {over[:12] if over else 'none'}; it is kept, and not in service"
        )

    def _read_text(self, path: Path) -> bytes:
        """A pointer's or a threshold's bytes, which no link may take from elsewhere."""
        if path.is_symlink() and not path.resolve().is_relative_to(self.path.resolve()):
            raise InvalidArtifact(f"{path} is a link that leads out of the folder", "unreadable")
        return read_regular(path, max_bytes=MAX_TEXT_BYTES).data

    @contextmanager
    def _locked(self, name: str, seconds: float) -> Iterator[None]:
        """One process at a time, for which so long is waited; the lock of one that dies is free.
        TimeoutError.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path / name, flags, 0o644)
        end = time.monotonic() + seconds
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise OSError(errno.ETIMEDOUT, "another process holds its lock") from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(descriptor)


class Store:
    """The models of one folder."""

    poll_seconds = 1.0  # between looks, where nobody says another number
    look_seconds = 5.0  # that a look may take

    def __init__(self, path: Path, trust: Trust | None = None) -> None:
        self.path, self.trust = path, trust
        # why what the folder is a copy of could not be asked the last time
        self.away: str | None = None

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> str | None:
        """InvalidSettings where no models can come from here; a sentence where none do yet."""
        return require_models(self.path)

    def model(self, name: str) -> ModelFolder:
        """The model of that name, whether it is there or not."""
        return ModelFolder(self.path / name, self.trust)

    def challenged(self) -> set[str]:
        """Names of the models that have a challenger; OSError where the folder cannot be read."""
        with os.scandir(self.path) as entries:
            return {each.name for each in entries if _stamp(f"{each.path}/{CHALLENGER}")}

    def look(self) -> dict[str, tuple[object, ...]]:
        """What ModelFolder.look sees of each folder in here, also of such whose name no model may
        have; OSError where the folder cannot be read.
        """
        with os.scandir(self.path) as entries:
            folders = [(entry.name, entry.path) for entry in entries if entry.is_dir()]
        return {name: _look_into(path, self.trust) for name, path in folders}


def locate(path: Path) -> Path:
    """The artifact a person means by a path: the file itself, a version's folder, or a model's
    folder by its pointer; InvalidArtifact where there is none.
    """
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if not (path / POINTER).exists():
        raise InvalidArtifact(f"{path} is neither a model file nor a folder with one")
    model = ModelFolder(path)
    if not (file := model.file(version := model.current())).is_file():
        raise InvalidArtifact(
            f"{path / POINTER} names the version {version[:12]!r}, which is not there"
        )
    return file


def require_models(path: Path) -> str | None:
    """InvalidSettings where a path is no folder of models; a sentence where it holds none yet."""
    if path.is_file():
        raise InvalidSettings(f"{path} is a file, expected a folder of models; --models names one")
    if not path.is_dir():
        raise InvalidSettings(
            f"there is no folder {path} to take models from; --models names another"
        )
    full = path.absolute()
    if (path / POINTER).is_file():
        raise InvalidSettings(
            f"{path} is the folder of one model, since it holds {POINTER}; --models {full.parent}"
            f" serves that as {full.name}, and all others in there"
        )
    if (path / MODEL_FILE).is_file():
        raise InvalidSettings(
            f"{path} is the folder of one version, since it holds {MODEL_FILE}, expected a folder"
            f" of models; --models {full.parent.parent} may be meant"
        )
    with suppress(OSError):  # which the look at it says
        if not any(_is_pointed(state) for state in Store(path).look().values()):
            return (
                f"{path} holds no model yet, expected {path}/NAME/{POINTER}; they are served as"
                " they come"
            )
    return None


def _is_pointed(state: tuple[object, ...]) -> bool:
    return not state or state[0] is not None


def name_of(path: Path) -> str:
    """MODELS/<name>/<version>/model.onnx is called <name>, any other file what it is called."""
    in_store = path.name == MODEL_FILE and path.parent.parent.name
    return path.parent.parent.name if in_store else path.stem


def read_file(path: Path, *, max_bytes: int) -> ModelFile:
    """An artifact by its path; InvalidArtifact where it cannot be read, is too large, or is not of
    the version whose folder it lies in.
    """
    try:
        file = read_regular(path, max_bytes=max_bytes)
    except FileNotFoundError as error:
        raise unreadable(path, error, "missing") from error
    except OSError as error:
        raise unreadable(path, error) from error
    version = path.parent.name
    if _VERSION.fullmatch(version) and (found := version_of(file.data)) != version:
        raise InvalidArtifact(
            f"{path} has the SHA-256 {found}: it was changed, or cut short", "damaged"
        )
    return file


def _look_into(folder: str, trust: Trust | None) -> tuple[object, ...]:
    try:
        pointer: tuple[int, ...] | None = _status(f"{folder}/{POINTER}")
    except PermissionError:
        return ()  # a look at the model says so
    except OSError:
        pointer = None
    look = pointer, _stamp(f"{folder}/{THRESHOLD_FILE}")
    return (*look, trust.stamp()) if trust else look


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        return _status(path)
    except OSError:
        return None


def _status(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino

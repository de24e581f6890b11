"""Store: the layout of MODELS on disk, known here and nowhere else.

    MODELS/<name>/<version>/model.onnx   a version, the SHA-256 of this file; reports lie beside it
    MODELS/<name>/current                the pointer: one line, the version in service
    MODELS/<name>/threshold.json         the false-alarm budget changed while running, if it was

Whatever is written is written beside its place under a name that begins with a dot, and moved in:
nobody ever reads half of it. Such names are no versions and no models.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import MODEL_NAME, version_of

MODEL_FILE = "model.onnx"
POINTER = "current"
THRESHOLD_FILE = "threshold.json"
_VERSION = re.compile(r"[0-9a-f]{64}")

Rate = Annotated[float, Meta(ge=1e-9, le=0.5)]  # under that no number of rows is enough


class StoredThreshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The false-alarm budget chosen while running, in place of the artifact's own."""

    alpha: Rate
    delta: Rate
    uncertified: bool = False


class ModelFile(NamedTuple):
    """One artifact as it lies there."""

    data: bytes
    written_at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The versions of one model, and what is said of them."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def state(self) -> object:
        """Something that differs as soon as the pointer or the threshold is another one."""
        return _signature(self.path / POINTER), _signature(self.path / THRESHOLD_FILE)

    def current(self) -> str:
        """The version that the pointer names; InvalidArtifact where it names none."""
        pointer = self.path / POINTER
        try:
            with pointer.open("rb") as file:
                version = file.read(200).decode(errors="replace").strip()
        except OSError as error:
            raise InvalidArtifact(f"{pointer} cannot be read: {error.strerror}") from error
        if not _VERSION.fullmatch(version):
            raise InvalidArtifact(
                f"{pointer} holds {version[:80]!r}, expected a version (64 hexadecimal digits)"
            )
        return version

    def has_current(self) -> bool:
        """Whether there is a pointer."""
        return (self.path / POINTER).is_file()

    def file(self, version: str) -> Path:
        """Where the artifact of a version lies, or would."""
        return self.path / version / MODEL_FILE

    def read(self, version: str, *, max_bytes: int) -> ModelFile:
        """The artifact of a version; InvalidArtifact where it is not what its name says."""
        file = read_file(self.file(version), max_bytes=max_bytes)
        if (found := version_of(file.data)) != version:
            raise InvalidArtifact(
                f"{self.file(version)} has the SHA-256 {found}: it was changed, or cut short"
            )
        return file

    def versions(self) -> list[str]:
        """Those that are there, in the order of their names."""
        found = [file.parent.name for file in self.path.glob(f"*/{MODEL_FILE}")]
        return sorted(version for version in found if not version.startswith("."))

    def is_intact(self, version: str) -> bool:
        """Whether the artifact of a version is there, and is what its name says."""
        try:
            return version_of(self.file(version).read_bytes()) == version
        except (FileNotFoundError, NotADirectoryError):
            return False

    def threshold(self) -> StoredThreshold | None:
        """The budget changed while running, if it was; InvalidArtifact where it cannot be read."""
        try:
            data = (self.path / THRESHOLD_FILE).read_bytes()
            return msgspec.json.decode(data, type=StoredThreshold)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidArtifact(f"it cannot be read: {error}") from error

    def set_threshold(self, stored: StoredThreshold) -> None:
        """Keep another budget for restarts and other workers; OSError where that fails."""
        write_atomically(self.path / THRESHOLD_FILE, msgspec.json.encode(stored))

    def publish(self, data: bytes, beside: Mapping[str, str]) -> str:
        """Write an artifact and the texts beside it (file name -> text), point at it, and return
        its version; OSError where that fails.
        """
        version = version_of(data)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.is_intact(version):
            shutil.rmtree(self.path / version, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=".publishing-", dir=self.path))
            try:
                _write(scratch / MODEL_FILE, data)
                for file, text in beside.items():
                    _write(scratch / file, text.encode())
                scratch.chmod(0o755)
                scratch.rename(self.path / version)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        self.point(version)
        return version

    def point(self, version: str) -> None:
        """Replace the pointer in one step: readers see the old version or the new one."""
        write_atomically(self.path / POINTER, f"{version}\n".encode())


@dataclass(frozen=True, slots=True)
class Store:
    """The models of one folder."""

    path: Path

    def model(self, name: str) -> ModelFolder:
        """The model of that name, whether it is there or not."""
        return ModelFolder(self.path / name)

    def candidates(self) -> list[str]:
        """Names of the folders that have a pointer, also such as no model may have; OSError where
        the folder cannot be read.
        """
        return sorted(folder.name for folder in self.path.iterdir() if _has_pointer(folder))


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


def name_of(path: Path) -> str:
    """MODELS/<name>/<version>/model.onnx is called <name>, any other file what it is called."""
    in_store = path.name == MODEL_FILE and path.parent.parent.name
    return path.parent.parent.name if in_store else path.stem


def read_file(path: Path, *, max_bytes: int) -> ModelFile:
    """An artifact by its path; InvalidArtifact where it cannot be read or is too large."""
    try:
        status = path.stat()
        if status.st_size > max_bytes:
            raise InvalidArtifact(
                f"the model file has {status.st_size} bytes, at most {max_bytes} are loaded"
            )
        return ModelFile(path.read_bytes(), status.st_mtime)
    except OSError as error:
        raise InvalidArtifact(f"{path} cannot be read: {error.strerror}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the place and move in; OSError where that fails, with nothing left behind."""
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).chmod(0o644)  # of itself its owner's alone; a service may run as another
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _has_pointer(folder: Path) -> bool:
    """Whether there is a pointer, or may be: of a closed folder a look at the model says why."""
    try:
        (folder / POINTER).stat()
    except PermissionError:
        return MODEL_NAME.fullmatch(folder.name) is not None
    except OSError:
        return False
    return True


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

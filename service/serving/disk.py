"""Files: what is read is a regular one of bounded size, what is written is moved in whole."""

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from hourglass.service.errors import Fault, InvalidArtifact

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class ModelFile(NamedTuple):
    """One artifact as it lies there."""

    data: bytes
    written_at: float  # seconds since the epoch


def read_regular(path: Path, *, max_bytes: int) -> ModelFile:
    """A regular file; InvalidArtifact where it is none, or too large.

    What is opened does not make us wait, as a FIFO would for its writer.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise InvalidArtifact(
                f"{path} is a socket, or a device that is not there, expected a regular file",
                "unreadable",
            ) from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise InvalidArtifact(f"{path} is {kind}, expected a regular file", "unreadable")
        size = status.st_size
        if size <= max_bytes:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(size + 1)  # it may grow meanwhile
            size = max(size, len(data))
    finally:
        os.close(descriptor)
    if size > max_bytes:
        raise InvalidArtifact(f"{path} has {size} bytes, at most {max_bytes} are loaded")
    return ModelFile(data, status.st_mtime)


def unreadable(path: Path, error: OSError, fault: Fault = "unreadable") -> InvalidArtifact:
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        fault = "resources"
    return InvalidArtifact(f"{path} cannot be read: {error.strerror}", fault)


def write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


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

"""The file of keys: a first line that says what it is, and for each key one JSON object on a line.

    {"format":"hourglass-keys","version":1}
    {"name":"pumps","id":"3f2a9c1e","sha256":"…","scopes":["score"],"created":"2026-03-04T00:00:00Z"}

A key is `hourglass_`, its id of eight hex digits, `_` and a secret of 64. The file holds the
SHA-256 of the whole. A slow hash such as scrypt protects what can be guessed; nobody guesses 256
random bits, and a fast hash costs a request a microsecond. A key of any other form is refused
before it is hashed, so that no secret that somebody made up by hand can ever be one.

Rules of change: the service refuses a field or a version that it does not know, since it may be a
restriction. An empty file is a broken one: it lost its first line.
"""

import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar, get_args

import msgspec
from msgspec import Meta

from hourglass.service.errors import InvalidKeys

Scope = Literal["score", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
FORM = re.compile(rb"hourglass_([0-9a-f]{8})_[0-9a-f]{64}")  # of a key; its id
MAX_BYTES = 2**20  # of the file, a few thousand keys
ALL_MODELS = ("*",)
_FIRST_LINE = b'{"format":"hourglass-keys","version":1}'


_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["hourglass-keys"]
    version: Literal[1]


class Key(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the file says of one key; two may have one name, while one takes over from the other."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]  # a metric's label
    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    # of names, where * is any characters and ? is one
    models: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z0-9._*?-]{1,64}\Z")], ...], Meta(min_length=1)
    ] = ALL_MODELS
    rate: Annotated[float, Meta(gt=0, le=1e6)] | None = None  # requests a second, a process
    created: Annotated[datetime, Meta(tz=True)]
    expires: Annotated[datetime, Meta(tz=True)] | None = None


class KeysFile(NamedTuple):
    """The keys of a file, and the lines that they stand in."""

    keys: list[Key]
    lines: list[bytes]  # the first of keys[0], without their ends
    is_readable_by_all: bool


def read_keys(path: Path) -> KeysFile:
    """The file; InvalidKeys names the line, what was expected and what came.

    What is opened does not make us wait, as a FIFO would for its writer.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidKeys(f"the file of keys {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidKeys(f"{path} is no regular file, which a file of keys is")
        if status.st_mode & stat.S_IWOTH:
            raise InvalidKeys(f"anybody may write {path}, and so let himself in: chmod 600 {path}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise InvalidKeys(f"{path} has more than {MAX_BYTES} bytes, the most that is read")
    keys, lines = _parse(path, data)
    return KeysFile(keys, lines, bool(status.st_mode & stat.S_IROTH))


def add_key(
    path: Path,
    name: str,
    scopes: Sequence[Scope],
    *,
    models: Sequence[str] = ALL_MODELS,
    rate: float | None = None,
    expires: datetime | None = None,
) -> str:
    """Write a new key into the file, which is made where there is none, and return the key: it is
    nowhere else. InvalidKeys where the file or what is asked for cannot be.
    """
    with _changing(path) as (known, write):
        taken = {key.id for key in known.keys}
        identifier = next(each for each in iter(_new_id, None) if each not in taken)
        text = f"hourglass_{identifier}_{secrets.token_hex(32)}"
        asked = Key(
            name=name,
            id=identifier,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            scopes=tuple(dict.fromkeys(scopes)),
            models=tuple(models),
            rate=rate,
            created=datetime.now(UTC).replace(microsecond=0),
            expires=expires,
        )
        line = msgspec.json.encode(asked)
        _decode(line, Key, "the key")  # a name or a pattern may be none
        write([*known.lines, line])
    return text


def remove_keys(path: Path, name: str, *, id: str | None, all: bool = False) -> list[Key]:  # noqa: A002
    """Take the keys of a name out of the file, which are returned: the one of that id, the only
    one, or all. InvalidKeys where there is none, or several are meant.
    """
    with _changing(path) as (known, write):
        named = [key for key in known.keys if key.name == name and id in (None, key.id)]
        if not named:
            names = ", ".join(sorted({key.name for key in known.keys})) or "none"
            which = f"{name!r} with the id {id!r}" if id else repr(name)
            raise InvalidKeys(f"{path} has no key {which}; it has {names}")
        if len(named) > 1 and not all:
            ids = ", ".join(key.id for key in named)
            raise InvalidKeys(
                f"{name!r} has several keys: --id takes one of {ids}, --all takes all"
            )
        gone = {key.id for key in named}
        write(
            [line for key, line in zip(known.keys, known.lines, strict=True) if key.id not in gone]
        )
    return named


def _parse(path: Path, data: bytes) -> tuple[list[Key], list[bytes]]:
    first, *rest = data.split(b"\n")
    _decode(first, _Header, f"{path}, line 1")
    keys: list[Key] = []
    lines: list[bytes] = []
    for number, line in enumerate(rest, start=2):
        if not line.strip():
            continue
        key = _decode(line, Key, f"{path}, line {number}")
        if any(key.id == other.id for other in keys):
            raise InvalidKeys(f"{path}, line {number}: the id {key.id} is another key's too")
        keys.append(key)
        lines.append(line)
    return keys, lines


def _decode(line: bytes, kind: type[_Struct], where: str) -> _Struct:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidKeys(f"{where}: {str(error).replace('`', '')}") from error


def _new_id() -> str:
    return secrets.token_hex(4)


@contextmanager
def _changing(path: Path) -> Iterator[tuple[KeysFile, Callable[[list[bytes]], None]]]:
    """The file, and what writes it anew, while no other process changes it: the folder is locked.

    Nobody reads half of it. Mode and owner stay what they are; a new file is its owner's alone.
    """
    path = path.resolve()
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidKeys(f"{path.parent} holds no file of keys: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        known = read_keys(path) if path.exists() else KeysFile([], [], False)

        def write(lines: list[bytes]) -> None:
            _write(path, b"".join(b"%b\n" % line for line in (_FIRST_LINE, *lines)))
            os.fsync(folder)

        yield known, write
    finally:
        os.close(folder)


def _write(path: Path, data: bytes) -> None:
    try:
        descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise InvalidKeys(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():
                status = path.stat()
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(scratch).replace(path)
    except OSError as error:
        raise InvalidKeys(f"{path} cannot be written: {error.strerror}") from error
    finally:
        Path(scratch).unlink(missing_ok=True)

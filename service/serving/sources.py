"""Sources: from where rows may come that a request names, and the series read from there.

What a request names must lie below a root that the operator has named, once every link is followed:
a folder, or a URL of object storage. Of an archive nothing is written under a name that it holds,
and what it may unpack to is bounded.
"""

import csv
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import numpy as np

from hourglass.service.errors import InvalidSettings, InvalidTable
from hourglass.service.model.artifact import Feature
from hourglass.service.rows.aligned import MOST_TIMES, Series
from hourglass.service.rows.tables import encode_table, read_table
from hourglass.service.rows.times import to_seconds
from hourglass.service.serving.objects import SCHEMES, Objects

if TYPE_CHECKING:
    import polars as pl

TIME, VALUE = "timestamp", "value"  # columns
MOST_VARIABLES = 300
MOST_BYTES = 2**30  # of all files of a source, unpacked
MOST_DIRECTORY_BYTES = 2**20  # of an archive's list of its entries
MOST_HEADER_BYTES = 2**21  # of a CSV
CSV = ".csv"
_STEP_BYTES = 2**20
_END, _END64 = b"PK\x05\x06", b"PK\x06\x07"  # of an archive, and of one with 64-bit sizes
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # whose unpacking needs little memory
_UNREADABLE = (  # what the archive's library says of one that is damaged, locked or of other kinds
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)


def roots_of(text: str) -> tuple[str, ...]:
    """The roots that an operator has named, by commas; a relative folder is meant from here."""
    roots = []
    for each in filter(None, map(str.strip, text.split(","))):
        if _scheme(each) not in ("", "file", *SCHEMES):
            raise InvalidSettings(
                f"data cannot be taken from {each}, expected a folder or a URL such as"
                " s3://BUCKET/PREFIX"
            )
        roots.append(each if "://" in each else str(Path(each).absolute()))
    return tuple(roots)


def require_allowed(source: str, roots: Iterable[str]) -> None:
    """InvalidTable where a source lies below none of the roots; it need not be there."""
    if _scheme(source) in SCHEMES:
        _root_and_key(source, roots)
    else:
        _local(source, roots)


def read_series(source: str, roots: Sequence[str], *, is_multi_table: bool) -> list[Series]:
    """The series of a source: one CSV with a column timestamp and one for each variable, or as
    MultiTable a folder or a .zip of CSVs with timestamp and value, each named as its variable.
    InvalidTable says what is wrong with it.
    """
    try:
        with _here(source, roots, is_multi_table=is_multi_table) as files:
            if is_multi_table:
                if len(files) > MOST_VARIABLES:
                    raise _too_many(len(files))
                return [_read_variable(variable, file) for variable, file in files]
            ((variable, file),) = files
            try:
                return _read_table(file)
            except InvalidTable as error:
                raise InvalidTable(str(error).replace(str(file), f"{variable}{CSV}")) from error
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InvalidTable(f"{source[:200]} cannot be read: {error.strerror or error}") from error


Files = list[tuple[str, Path]]  # variables and where their rows lie, here


@contextmanager
def _here(source: str, roots: Sequence[str], *, is_multi_table: bool) -> Iterator[Files]:
    """The files of a source, fetched and unpacked where they are not files here."""
    with TemporaryDirectory(prefix="hourglass-data-") as folder:
        scratch = _Scratch(Path(folder))
        if _scheme(source) in SCHEMES:
            root, key = _root_and_key(source, roots)
            yield _fetch(Objects(root), key, scratch, is_multi_table=is_multi_table)
            return
        path = _local(source, roots)
        if not is_multi_table or path.is_file():
            yield _of_file(path, scratch, is_multi_table=is_multi_table)
            return
        if not path.is_dir():
            raise InvalidTable(f"{source} is neither a folder nor a .zip of CSV files")
        found: Files = []
        for file in sorted(path.iterdir()):
            if file.suffix.lower() == CSV and not file.name.startswith("."):
                found.append((file.stem, _local(str(file), roots)))
        _require_size(source, sum(file.stat().st_size for _, file in found if file.is_file()))
        yield _some(found, source)


def _of_file(path: Path, scratch: "_Scratch", *, is_multi_table: bool) -> Files:
    if is_multi_table:
        if path.suffix.lower() != ".zip":
            raise InvalidTable(
                f"{path.name} is of one table; as MultiTable a folder or a .zip of CSV files is"
                " expected"
            )
        return _some(scratch.unpack(path), path.name)
    if path.suffix.lower() == ".zip":
        found = _some(scratch.unpack(path), path.name)
        if len(found) > 1:
            raise InvalidTable(
                f"{path.name} holds {len(found)} CSV files, expected one table; of a file for each"
                " variable the dataSchema is MultiTable"
            )
        return found
    if path.suffix.lower() != CSV:
        raise InvalidTable(
            f"{path.name} is no .csv file; of a folder of CSV files the dataSchema is MultiTable"
        )
    if not path.is_file():
        raise InvalidTable(f"{path.name} is not a file that is there")
    _require_size(path.name, path.stat().st_size)
    return [(path.stem, path)]


def _fetch(objects: Objects, key: str, scratch: "_Scratch", *, is_multi_table: bool) -> Files:
    """What lies under a key: a file, or of a prefix the CSV files right below it."""
    suffix = PurePosixPath(key).suffix.lower()
    try:
        if suffix in (CSV, ".zip"):
            file = scratch.write(objects.stream(key), key, suffix)
            return _of_file(file, scratch, is_multi_table=is_multi_table)
        if not is_multi_table:
            raise InvalidTable(
                f"{key} is no .csv file; of a folder of CSV files the dataSchema is MultiTable"
            )
        found: Files = []
        for each in sorted(objects.keys(key)):
            name = PurePosixPath(each.removeprefix(f"{key}/"))
            if len(name.parts) != 1 or name.suffix.lower() != CSV or name.name.startswith("."):
                continue
            if len(found) == MOST_VARIABLES:
                raise _too_many(len(found) + 1)
            found.append((name.stem, scratch.write(objects.stream(each), each, CSV)))
    except OSError as error:
        raise InvalidTable(f"{key} cannot be read: {error.strerror or error}") from error
    return _some(found, key)


class _Scratch:
    """A folder of our own, whose files have numbers for names, and its bound."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._files, self._left = folder, 0, MOST_BYTES

    def write(self, pieces: Iterable[bytes], name: str, suffix: str) -> Path:
        """The pieces as a file; InvalidTable as soon as they are too many."""
        self._files += 1
        path = self._folder / f"{self._files}{suffix}"
        with path.open("xb") as file:
            for piece in pieces:
                self._left -= len(piece)
                if self._left < 0:
                    raise InvalidTable(
                        f"{name[:80]!r} and what came before it hold more than {MOST_BYTES} bytes,"
                        " the most that is read"
                    )
                file.write(piece)
        return path

    def unpack(self, archive: Path) -> Files:
        """The CSV files of an archive; whatever else it holds is refused."""
        found: Files = []
        try:
            _require_small_directory(archive)
            with zipfile.ZipFile(archive) as packed:
                for entry in packed.infolist():
                    name = PurePosixPath(entry.filename)
                    if entry.is_dir() or name.parts[:1] == ("__MACOSX",) or name.name[:1] == ".":
                        continue
                    _require_plain(archive.name, entry, name)
                    if len(found) == MOST_VARIABLES:
                        raise _too_many(len(found) + 1)
                    with packed.open(entry) as file:
                        pieces = iter(partial(file.read, _STEP_BYTES), b"")
                        found.append((name.stem, self.write(pieces, entry.filename, CSV)))
        except _UNREADABLE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InvalidTable(f"{archive.name} is no .zip that can be read: {error}") from error
        return found


def _require_plain(archive: str, entry: zipfile.ZipInfo, name: PurePosixPath) -> None:
    """InvalidTable where an entry is no ordinary CSV file."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    reason = None
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
        reason = "leads out of it"
    elif kind not in (0, stat.S_IFREG):
        reason = "is a link or a device"
    elif entry.flag_bits & 1:
        reason = "is encrypted"
    elif entry.compress_type not in _PACKED:
        reason = "is packed in a way not read here"
    elif name.suffix.lower() != CSV:
        reason = "is no .csv file"
    if reason:
        raise InvalidTable(
            f"{archive} holds {entry.filename[:80]!r}, which {reason}: expected CSV files alone"
        )


def _require_small_directory(archive: Path) -> None:
    """Python reads all of an archive's directory at once, an object for each entry: so it must not
    be long, as its last record, found as zipfile finds it, says.
    """
    with archive.open("rb") as file:
        _require_size(archive.name, size := file.seek(0, os.SEEK_END))
        file.seek(max(0, size - 2**16 - 42))
        tail = file.read()
    at = len(tail) - 22
    if at < 0 or tail[at : at + 4] != _END or tail[-2:] != b"\0\0":
        at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("it does not end as one")
    if tail[max(0, at - 20) : at].startswith(_END64):
        raise zipfile.BadZipFile("it is one of more than 4 GiB")
    if (length := int.from_bytes(tail[at + 12 : at + 16], "little")) > MOST_DIRECTORY_BYTES:
        raise zipfile.BadZipFile(
            f"its directory has {length} bytes, the most that is read are {MOST_DIRECTORY_BYTES}"
        )


def _local(source: str, roots: Iterable[str]) -> Path:
    """Where a source here really lies."""
    path = source
    if _scheme(source) == "file":
        parts = urlsplit(source)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise InvalidTable(f"{source[:200]!r} is no file here, expected file:///PATH")
    elif "://" in source:
        raise _outside(source)
    if not path.startswith("/") or "\0" in path:
        raise InvalidTable(f"expected a dataSource with its whole path, got {source[:200]!r}")
    real = Path(os.path.realpath(path))
    for root in roots:
        if _scheme(root) in SCHEMES:
            continue
        below = Path(os.path.realpath(unquote(urlsplit(root).path) if "://" in root else root))
        if real.is_relative_to(below):
            return real
    raise _outside(source)


def _root_and_key(source: str, roots: Iterable[str]) -> tuple[str, str]:
    """Of a URL of object storage the root that it lies below, and what it is there."""
    for root in roots:
        below = root.rstrip("/") + "/"
        if _scheme(root) in SCHEMES and source.startswith(below):
            key = source.removeprefix(below).removesuffix("/")
            if any(part in ("", ".", "..") for part in key.split("/")) or set(key) & set("?#%\\\0"):
                break
            return root.rstrip("/"), key
    raise _outside(source)


def _scheme(source: str) -> str:
    return source.partition("://")[0] if "://" in source else ""


def _outside(source: str) -> InvalidTable:
    return InvalidTable(
        f"the dataSource {source[:200]!r} lies below none of the places that the service's"
        " --azure-data names"
    )


def _require_size(name: str, size: int) -> None:
    if size > MOST_BYTES:
        raise InvalidTable(f"{name} has {size} bytes, the most that is read are {MOST_BYTES}")


def _too_many(count: int) -> InvalidTable:
    return InvalidTable(f"expected at most {MOST_VARIABLES} variables, got {count} or more")


def _some(files: Files, source: str) -> Files:
    if not files:
        raise InvalidTable(f"{source} holds no CSV file")
    return files


def _read(file: Path) -> "pl.DataFrame":
    """A CSV, unless it has so many columns that the names alone would fill the memory."""
    if file.is_file():
        with file.open("rb") as opened:
            head = opened.read(MOST_HEADER_BYTES)
        text = head.decode("utf-8-sig", errors="replace")
        try:
            header = next(filter(None, csv.reader(io.StringIO(text, newline=None))), [])
        except csv.Error as error:  # one name of more than 128 KiB
            raise InvalidTable(f"{file}: the names of columns cannot be read: {error}") from error
        if len(header) > MOST_VARIABLES + 1:
            raise _too_many(len(header) - 1)
        if len(head) == MOST_HEADER_BYTES and len(text.split("\n", 1)) == 1:
            raise InvalidTable(f"{file}: the names of columns have over {MOST_HEADER_BYTES} bytes")
    return read_table(file)


def _read_table(file: Path) -> list[Series]:
    """Of one table with all variables."""
    frame = _read(file)
    time = _column(frame.columns, TIME, file)
    variables = [column for column in frame.columns if column != time]
    if not variables:
        raise InvalidTable("the table has no column but timestamp, expected one for each variable")
    if len(variables) > MOST_VARIABLES:
        raise _too_many(len(variables))
    features = [Feature(name=each, kind="numeric") for each in variables]
    value_ND = encode_table(frame, features).astype(np.float64)
    time_N = to_seconds(frame[time])
    _require_times(len(time_N))
    return [Series(each, time_N, value_ND[:, place]) for place, each in enumerate(variables)]


def _read_variable(variable: str, file: Path) -> Series:
    """Of a table of one variable."""
    if variable.lower() == TIME:
        raise InvalidTable(f"a variable cannot be named {variable!r}: the times of rows are")
    try:
        frame = _read(file)
        time, value = (_column(frame.columns, each, file) for each in (TIME, VALUE))
        value_N = encode_table(frame, [Feature(name=value, kind="numeric")])[:, 0]
        time_N = to_seconds(frame[time])
        _require_times(len(time_N))
    except InvalidTable as error:
        text = str(error).replace(str(file), f"{variable}{CSV}")
        raise InvalidTable(f"variable {variable[:80]!r}: {text}") from error
    return Series(variable, time_N, value_N.astype(np.float64))


def _column(columns: Sequence[str], name: str, file: Path) -> str:
    found = [each for each in columns if each.strip().lower() == name]
    if len(found) != 1:
        shown = ", ".join(repr(each[:40]) for each in columns[:10])
        raise InvalidTable(f"{file}: expected one column {name!r}, got {shown}")
    return found[0]


def _require_times(count: int) -> None:
    if count > MOST_TIMES:
        raise InvalidTable(f"expected at most {MOST_TIMES} timestamps, got {count}")

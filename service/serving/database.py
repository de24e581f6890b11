"""SQLite files of the service: each its owner's alone, known as ours by its head, in WAL mode.

A process that is killed loses what it has not committed and nothing else.
"""

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hourglass.service.errors import InvalidSettings

BUSY_SECONDS = 1.0  # that a writer waits for another one
CHECK_SECONDS = 5.0  # that the start does
RETRY_SECONDS = 0.01
_WAL_BYTES = 4194304


class Kind(NamedTuple):
    """What a file is for."""

    name: str  # as people call it
    flag: str  # that names it
    application: int  # SQLite's application_id
    version: int  # raise it with the schema; a newer one is refused
    schema: str
    is_shared: bool  # whether several processes write it, or one has it alone


def connect(
    path: Path | None, kind: Kind, *, timeout_seconds: float = BUSY_SECONDS
) -> sqlite3.Connection:
    """A connection to the file, which is made where it is not there, or to a memory of its own.

    OSError, or one of sqlite3's: of another program's file DatabaseError.
    """
    if path is not None:
        _make(path)
    database = sqlite3.connect(
        path or ":memory:", timeout=timeout_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        if path is not None:
            if not kind.is_shared:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
            require_ours(database, kind)
            _write_ahead(database, timeout_seconds)
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        database.executescript(  # at once: a process that makes it, too, sees nothing or all
            f"BEGIN IMMEDIATE; {kind.schema} PRAGMA application_id = {kind.application};"
            f" PRAGMA user_version = {kind.version}; COMMIT;"
        )
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def changing(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One transaction: all of it or nothing, and nobody else writes meanwhile."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # of a full disk it is rolled back already
            database.execute("ROLLBACK")
        raise


def prepare(path: Path, kind: Kind) -> None:
    """Make the file where it is not there; InvalidSettings where it is none of ours, is damaged, or
    another process has it.
    """
    name, other = f"the {kind.name} {path}", f"{kind.flag} names another file"
    try:
        seconds = CHECK_SECONDS if kind.is_shared else BUSY_SECONDS
        with closing(connect(path, kind, timeout_seconds=seconds)) as database:
            (sound,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound.splitlines()[-1])
    except OSError as error:
        raise InvalidSettings(
            f"{name} cannot be opened ({error.strerror}); {kind.flag} names a file"
        ) from error
    except sqlite3.OperationalError as error:  # of the disk or of a lock
        has_it = "" if kind.is_shared else ": another process has it, or the disk fails"
        raise InvalidSettings(f"{name} cannot be written ({error}){has_it}; {other}") from error
    except sqlite3.DatabaseError as error:
        raise InvalidSettings(
            f"{name} is no {kind.name} of Hourglass, or is damaged ({error}); {other}"
        ) from error


def _write_ahead(database: sqlite3.Connection, seconds: float) -> None:
    """SQLite itself does not wait for others where a file begins to be written ahead."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _make(path: Path) -> None:
    """A new file is its owner's alone. One that is there is not opened here: to close it would give
    up the locks that other connections of this process have on it, and another process, whose
    connection then seems to be the last, would take their log away.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with suppress(FileExistsError):  # another process made it
            os.close(os.open(os.path.realpath(path), flags, 0o600))  # where a link leads
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(None, "no regular file", str(path))
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def require_ours(database: sqlite3.Connection, kind: Kind) -> None:
    """sqlite3.DatabaseError of another program's file, or of one that a newer version wrote."""
    database.execute("BEGIN")  # of one moment
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    database.execute("COMMIT")
    if application != kind.application and (application or tables):
        raise sqlite3.DatabaseError("another program wrote it")
    if version > kind.version:
        raise sqlite3.DatabaseError("a newer Hourglass wrote it")

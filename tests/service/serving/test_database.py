"""SQLite files of the service: one way to make, know and refuse them, whatever they are for."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.serving.database import Kind, connect, prepare
from hourglass.service.streams.file import STREAMS
from hourglass.service.watch.alarms import JOURNAL

KINDS = pytest.mark.parametrize("kind", [STREAMS, JOURNAL], ids=["streams", "journal"])


def refused(path: Path, kind: Kind) -> str:
    with pytest.raises(InvalidSettings) as raised:
        prepare(path, kind)
    sentence = str(raised.value)
    assert sentence.startswith(f"the {kind.name} {path} ")
    assert kind.flag in sentence
    assert "\n" not in sentence
    return sentence


@KINDS
def test_a_new_file_is_its_owners_alone_and_ours_from_then_on(tmp_path: Path, kind: Kind) -> None:
    prepare(tmp_path / "file", kind)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    prepare(tmp_path / "file", kind)
    with closing(connect(tmp_path / "file", kind)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_so_is_one_where_a_link_leads_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    before = os.umask(0o022)
    try:
        prepare(tmp_path / "link", JOURNAL)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_many_who_make_one_file_at_once_all_get_it(tmp_path: Path) -> None:
    for attempt in range(20):
        together = threading.Barrier(8)

        def make(path: Path, together: threading.Barrier) -> None:
            together.wait()
            connect(path, JOURNAL, timeout_seconds=30).close()

        with ThreadPoolExecutor(8) as pool:
            made = [pool.submit(make, tmp_path / f"{attempt}", together) for _ in range(8)]
            for each in made:
                each.result()


@KINDS
def test_a_file_of_another_kind_or_of_a_newer_version_is_refused_as_it_is(
    tmp_path: Path, kind: Kind
) -> None:
    other = JOURNAL if kind is STREAMS else STREAMS
    prepare(tmp_path / "other", other)
    before = (tmp_path / "other").read_bytes()
    assert "another program wrote it" in refused(tmp_path / "other", kind)
    assert (tmp_path / "other").read_bytes() == before
    prepare(tmp_path / "newer", kind._replace(version=kind.version + 1))
    assert "a newer Hourglass wrote it" in refused(tmp_path / "newer", kind)


@KINDS
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: Kind) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "cannot be opened (no regular file)" in refused(tmp_path / "pipe", kind)
    assert "cannot be opened (Is a directory)" in refused(tmp_path, kind)
    assert "cannot be opened (No such file" in refused(tmp_path / "gone" / "file", kind)


@KINDS
def test_a_damaged_file_is_refused(tmp_path: Path, kind: Kind) -> None:
    with closing(connect(tmp_path / "file", kind)) as database:
        database.execute("CREATE TABLE more (a TEXT)")
        database.executemany("INSERT INTO more VALUES (?)", [("x" * 1000,)] * 200)
    data = bytearray((tmp_path / "file").read_bytes())
    data[-40_000:] = os.urandom(40_000)
    (tmp_path / "file").write_bytes(data)
    assert "is damaged" in refused(tmp_path / "file", kind)


def test_only_a_shared_file_is_written_by_two(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "journal", JOURNAL)):
        connect(tmp_path / "journal", JOURNAL).close()
    with closing(connect(tmp_path / "streams", STREAMS)), pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "streams", STREAMS, timeout_seconds=0.1)


def test_who_copies_a_file_that_several_connections_write_takes_nothing_away(
    tmp_path: Path,
) -> None:
    """A process that closes the last connection writes the log ahead into the file and removes it;
    that others have it open is told by locks, which one process must not lose by a look of its own.
    """
    path = tmp_path / "file"
    prepare(path, JOURNAL)
    with closing(connect(path, JOURNAL)) as one, closing(connect(path, JOURNAL)) as other:
        one.execute("CREATE TABLE kept (row INTEGER)")
        copying = (
            "import sqlite3, sys; a = sqlite3.connect(sys.argv[1]);"
            " b = sqlite3.connect(sys.argv[2]); a.backup(b); b.close(); a.close()"
        )
        subprocess.run([sys.executable, "-c", copying, path, tmp_path / "copy"], check=True)
        assert (tmp_path / "file-wal").exists()
        for database in (one, other):
            database.execute("INSERT INTO kept VALUES (1)")
        with closing(sqlite3.connect(path)) as reader:
            assert reader.execute("SELECT count(*) FROM kept").fetchone() == (2,)
            assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)

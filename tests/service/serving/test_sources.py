"""Where rows may come from, and that nothing else is ever read."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from hourglass.service.errors import InvalidSettings, InvalidTable
from hourglass.service.serving import sources
from hourglass.service.serving.sources import read_series, require_allowed, roots_of
from tests.buckets import Buckets

TABLE = "timestamp,a,b\n2021-01-01T00:00:00Z,1,2\n2021-01-01T00:01:00.5Z,,NaN\n"
VARIABLE = "timestamp,value\n2021-01-01T00:00:00Z,1.5\n2021-01-01T00:01:00Z,\n"
START = 1609459200.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "root").mkdir()
    (folder / "one.csv").write_text(TABLE)
    (folder / "many").mkdir()
    for name in ("x", "y z"):
        (folder / "many" / f"{name}.csv").write_text(VARIABLE)
    (folder / "many" / ".hidden.csv").write_text("secret")
    (folder / "many" / "notes.txt").write_text("notes")
    (tmp_path / "outside.csv").write_text(TABLE)
    (tmp_path / "rootless").mkdir()
    (tmp_path / "rootless" / "one.csv").write_text(TABLE)
    return folder


def archive(path: Path, entries: dict[str | zipfile.ZipInfo, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry, data in entries.items():
            packed.writestr(entry, data)
    return path


def read(path: Path | str, root: Path | str, *, many: bool = False) -> dict[str, object]:
    found = read_series(str(path), (str(root),), is_multi_table=many)
    return {each.variable: (each.time_M.tolist(), each.value_M.tolist()) for each in found}


def test_one_table_is_read_with_its_gaps(root: Path):
    for source in (root / "one.csv", f"file://{root}/one.csv", f"file://localhost{root}/one.csv"):
        found = read(source, root)
        assert [*found] == ["a", "b"]
        assert found["a"][0] == [START, START + 60.5]
        assert repr(found["a"][1]) == "[1.0, nan]"
        assert repr(found["b"][1]) == "[2.0, nan]"


def test_a_folder_and_an_archive_are_many_tables_named_by_their_files(root: Path):
    files = {f"deep/{name}.csv": VARIABLE for name in ("x", "y z")}
    packed = archive(root / "many.zip", {**files, "__MACOSX/._x.csv": "junk", "deep/": ""})
    for source in (root / "many", packed):
        found = read(source, root, many=True)
        assert [*found] == ["x", "y z"]
        assert repr(found["x"]) == f"([{START}, {START + 60}], [1.5, nan])"
    alone = archive(root / "alone.zip", {"table.csv": TABLE})
    assert [*read(alone, root)] == ["a", "b"]


@pytest.mark.parametrize(
    "source",
    [
        "{root}/../outside.csv",
        "{root}/many/../../outside.csv",
        "{root}less/one.csv",
        "{root}/link.csv",
        "{root}/folder/one.csv",
        "file://{root}/%2e%2e/outside.csv",
        "/etc/passwd",
        "http://127.0.0.1/x.csv",
        "s3://other/x.csv",
    ],
)
def test_nothing_outside_of_a_root_is_read_or_told_of(root: Path, source: str):
    (root / "link.csv").symlink_to(root.parent / "outside.csv")
    (root / "folder").symlink_to(root.parent / "rootless")
    named = source.format(root=root)
    for call in (require_allowed, lambda *asked: read_series(*asked, is_multi_table=False)):
        with pytest.raises(InvalidTable, match="lies below none of the places"):
            call(named, (str(root),))


@pytest.mark.parametrize("source", ["one.csv", "file://host/x.csv", "/root\0/x.csv", ""])
def test_a_source_that_is_no_place_is_refused(root: Path, source: str):
    with pytest.raises(InvalidTable, match=r"whole path|no file here"):
        require_allowed(source, (str(root),))


def test_a_link_within_a_folder_of_tables_leads_nowhere_else(root: Path):
    (root / "many" / "w.csv").symlink_to(root.parent / "outside.csv")
    with pytest.raises(InvalidTable, match="lies below none of the places"):
        read(root / "many", root, many=True)
    (root / "many" / "w.csv").unlink()
    (root / "many" / "w.csv").symlink_to(root / "many" / "x.csv")
    assert [*read(root / "many", root, many=True)] == ["w", "x", "y z"]


def test_a_root_that_is_a_link_is_what_it_leads_to(root: Path):
    (root.parent / "alias").symlink_to(root)
    assert [*read(root.parent / "alias/one.csv", root.parent / "alias")] == ["a", "b"]
    assert [*read(root / "one.csv", root.parent / "alias")] == ["a", "b"]


def a_link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"../up.csv": VARIABLE}, "'../up.csv', which leads out of it"),
        ({"/etc/x.csv": VARIABLE}, "'/etc/x.csv', which leads out of it"),
        ({"a\\..\\x.csv": VARIABLE}, "which leads out of it"),
        ({a_link("x.csv"): "/etc/passwd"}, "'x.csv', which is a link or a device"),
        ({"x.csv": VARIABLE, "run.sh": "rm"}, "'run.sh', which is no .csv file"),
        ({"a/x.csv": VARIABLE, "b/x.csv": VARIABLE}, None),  # join refuses two of one name
        ({}, "holds no CSV file"),
    ],
)
def test_an_archive_holds_plain_files_alone(
    root: Path, entries: dict[str | zipfile.ZipInfo, str], message: str | None
):
    packed = archive(root / "p.zip", entries)
    if message is None:
        assert len(read_series(str(packed), (str(root),), is_multi_table=True)) == 2
        return
    with pytest.raises(InvalidTable) as refused:
        read(packed, root, many=True)
    assert message in str(refused.value)
    assert not (root.parent / "up.csv").exists()


def test_an_archive_unpacks_to_so_many_bytes_and_no_more(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    packed = archive(root / "bomb.zip", {f"v{i}.csv": b"0" * 2**22 for i in range(8)})
    assert packed.stat().st_size < 2**16
    monkeypatch.setattr(sources, "MOST_BYTES", 2**23)
    written: list[int] = []
    real = sources._Scratch.write

    def counted(self: object, pieces: object, name: str, suffix: str) -> Path:
        try:
            return real(self, pieces, name, suffix)
        finally:
            written.append(sum(file.stat().st_size for file in self._folder.iterdir()))

    monkeypatch.setattr(sources._Scratch, "write", counted)
    with pytest.raises(
        InvalidTable, match=r"'v2.csv' and what came before it hold more than 8388608"
    ):
        read(packed, root, many=True)
    assert max(written) <= 2**23


def test_a_header_that_lies_of_its_size_is_found_out(root: Path, monkeypatch: pytest.MonkeyPatch):
    packed = archive(root / "liar.zip", {"x.csv": b"timestamp,value\n" + b"0" * 2**20})
    data = packed.read_bytes()
    size = (16 + 2**20).to_bytes(4, "little")
    assert data.count(size) == 2
    packed.write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(InvalidTable, match=r"liar.zip is no .zip that can be read|x.csv"):
        read(packed, root, many=True)


def test_an_archive_of_very_many_entries_is_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch):
    packed = archive(root / "wide.zip", {f"v{i}.csv": VARIABLE for i in range(301)})
    with pytest.raises(InvalidTable, match="expected at most 300 variables, got 301"):
        read(packed, root, many=True)
    monkeypatch.setattr(sources, "MOST_DIRECTORY_BYTES", 2**10)
    with pytest.raises(InvalidTable, match=r"its directory has .* bytes, the most that is read"):
        read(packed, root, many=True)
    commented = io.BytesIO(packed.read_bytes())
    with zipfile.ZipFile(commented, "a") as again:
        again.comment = b"a comment moves the end"
    packed.write_bytes(commented.getvalue())
    with pytest.raises(InvalidTable, match="its directory has"):
        read(packed, root, many=True)


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"x" * 100, b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_archive_is_refused(root: Path, data: bytes):
    (root / "no.zip").write_bytes(data)
    with pytest.raises(InvalidTable, match=r"no.zip (is no .zip that can be read|holds no CSV)"):
        read(root / "no.zip", root, many=True)


@pytest.mark.parametrize(
    ("name", "text", "many", "message"),
    [
        (
            "t.csv",
            "time,a\n1,2\n",
            False,
            "t.csv: expected one column 'timestamp', got 'time', 'a'",
        ),
        ("t.csv", "timestamp\n2021-01-01\n", False, "no column but timestamp"),
        (
            "t.csv",
            "timestamp,a\nsoon,2\n",
            False,
            "time column 'timestamp', row 1: expected a date",
        ),
        ("t.csv", "timestamp,a\n2021-01-01,2\n2021-01-02,x\n", False, "'x'"),
        ("t.csv", "timestamp,a\n", False, "t.csv holds no rows"),
        ("t.txt", TABLE, False, "t.txt is no .csv file"),
        ("t.csv", TABLE, True, "t.csv is of one table"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(
    root: Path, name: str, text: str, many: bool, message: str
):
    (root / name).write_text(text)
    with pytest.raises(InvalidTable) as refused:
        read(root / name, root, many=many)
    assert message in str(refused.value)


def test_a_table_of_a_variable_that_cannot_be_read_names_it(root: Path):
    (root / "many/x.csv").write_text("timestamp,level\n2021-01-01,1\n")
    with pytest.raises(InvalidTable, match=r"variable 'x': x.csv: expected one column 'value'"):
        read(root / "many", root, many=True)
    (root / "many/x.csv").rename(root / "many/Timestamp.csv")
    with pytest.raises(InvalidTable, match="a variable cannot be named 'Timestamp'"):
        read(root / "many", root, many=True)


def test_what_is_no_regular_file_does_not_make_us_wait(root: Path):
    os.mkfifo(root / "pipe.csv")
    with pytest.raises(InvalidTable, match=r"pipe.csv is not a file that is there"):
        read(root / "pipe.csv", root)
    with pytest.raises(InvalidTable, match=r"none.csv is not a file that is there"):
        read(root / "none.csv", root)
    with pytest.raises(InvalidTable, match="neither a folder nor"):
        read(root / "none", root, many=True)
    with pytest.raises(InvalidTable, match="of a folder of CSV files the dataSchema is MultiTable"):
        read(root / "many", root)


def test_what_the_file_system_refuses_is_said(root: Path):
    with pytest.raises(InvalidTable, match="cannot be read: File name too long"):
        read(root / f"{'x' * 300}.csv", root)


def test_rows_come_from_object_storage_below_a_root(root: Path, s3: Buckets):
    url = s3.make()
    s3.put(url, "data/one.csv", TABLE.encode())
    for name in ("x", "y z"):
        s3.put(url, f"data/many/{name}.csv", VARIABLE.encode())
    s3.put(url, "data/many/deep/w.csv", VARIABLE.encode())
    s3.put(url, "data/manyfold/v.csv", VARIABLE.encode())
    packed = archive(root / "m.zip", {"x.csv": VARIABLE})
    s3.put(url, "data/m.zip", packed.read_bytes())
    s3.put(url, "secret.csv", TABLE.encode())
    allowed = f"{url}/data"
    assert [*read(f"{allowed}/one.csv", allowed)] == ["a", "b"]
    assert [*read(f"{allowed}/many", f"{allowed}/", many=True)] == ["x", "y z"]
    assert [*read(f"{allowed}/many/", allowed, many=True)] == ["x", "y z"]
    assert [*read(f"{allowed}/m.zip", allowed, many=True)] == ["x"]
    for outside in (
        f"{url}/secret.csv",
        f"{allowed}/../secret.csv",
        f"{allowed}/%2e%2e/secret.csv",
        f"{allowed}//secret.csv",
        f"{allowed}/one.csv?versionId=1",
        allowed,
    ):
        with pytest.raises(InvalidTable, match="lies below none of the places"):
            require_allowed(outside, (allowed, str(root)))
    for absent, many in ((f"{allowed}/none.csv", False), (f"{allowed}/none", True)):
        with pytest.raises(InvalidTable, match=r"none.csv cannot be read|none holds no CSV file"):
            read(absent, allowed, many=many)


def test_roots_are_named_by_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert roots_of("data, /srv/x ,s3://a/b,") == (f"{tmp_path}/data", "/srv/x", "s3://a/b")
    with pytest.raises(InvalidSettings, match="data cannot be taken from http://x"):
        roots_of("http://x")


def test_a_table_of_very_many_columns_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "read_table", lambda _: pytest.fail("it is read"))
    names = "\n".join(["timestamp", *(f'"v\n{i}"' for i in range(100_000))]).replace('\n"', ',"')
    root.joinpath("wide.csv").write_text(f"{names}\n2021-01-01,1\n")
    with pytest.raises(InvalidTable, match="expected at most 300 variables, got 100000"):
        read(root / "wide.csv", root)
    root.joinpath("long.csv").write_bytes(b"timestamp" * 2**18)
    with pytest.raises(InvalidTable, match="the names of columns"):
        read(root / "long.csv", root)

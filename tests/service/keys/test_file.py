"""The file of keys: what it may hold, and that changes of it are whole and lose nothing."""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hourglass.service.errors import InvalidKeys
from hourglass.service.keys.file import FORM, add_key, read_keys, remove_keys
from tests.serving import ROOT

FIRST = '{"format":"hourglass-keys","version":1}'
KEY = {
    "name": "pumps",
    "id": "00c0ffee",
    "sha256": "ab" * 32,
    "scopes": ["score"],
    "created": "2026-03-04T00:00:00Z",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


def test_a_key_is_random_and_the_file_has_its_hash_alone(path):
    text = add_key(path, "pumps", ["score", "score"])
    (key,) = read_keys(path).keys
    assert FORM.fullmatch(text.encode())[1].decode() == key.id
    assert key.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (key.name, key.scopes, key.models) == ("pumps", ("score",), ("*",))
    assert text.rpartition("_")[2] not in path.read_text()
    assert add_key(path, "pumps", ["score"]) != text


def test_the_file_is_its_owners_alone_and_keeps_a_mode_that_was_chosen(path):
    add_key(path, "a", ["read"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    add_key(path, "b", ["read"])
    remove_keys(path, "a", id=None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_link_is_followed_and_stays_one(path, tmp_path):
    behind = tmp_path / "behind.jsonl"
    add_key(behind, "a", ["read"])
    path.symlink_to(behind)
    add_key(path, "b", ["read"])
    assert path.is_symlink()
    assert [key.name for key in read_keys(behind).keys] == ["a", "b"]


def test_lines_of_other_keys_stay_as_somebody_wrote_them(path):
    odd = json.dumps(KEY, indent=None, separators=(" , ", " : "))
    write(path, FIRST, "", odd)
    add_key(
        path, "b", ["admin"], models=["pump-*"], rate=0.5, expires=datetime(2030, 1, 1, tzinfo=UTC)
    )
    remove_keys(path, "b", id=None)
    assert path.read_text() == f"{FIRST}\n{odd}\n"


def test_of_several_keys_of_a_name_the_one_that_goes_is_named(path):
    for _ in range(3):
        add_key(path, "a", ["read"])
    ids = [key.id for key in read_keys(path).keys]
    with pytest.raises(InvalidKeys, match=f"--id takes one of {', '.join(ids)}, --all takes all"):
        remove_keys(path, "a", id=None)
    assert [key.id for key in remove_keys(path, "a", id=ids[1])] == [ids[1]]
    assert [key.id for key in remove_keys(path, "a", id=None, all=True)] == [ids[0], ids[2]]
    assert path.read_text() == FIRST + "\n"
    with pytest.raises(InvalidKeys, match="has no key 'a'; it has none"):
        remove_keys(path, "a", id=None)


@pytest.mark.slow
def test_two_processes_that_change_it_at_once_lose_nothing(path):
    code = (
        "import sys; from pathlib import Path; from hourglass.service.keys.file import *\n"
        "for n in range(25): add_key(Path(sys.argv[1]), f'{sys.argv[2]}-{n}', ['read'])\n"
        "for n in range(0, 25, 2): remove_keys(Path(sys.argv[1]), f'{sys.argv[2]}-{n}', id=None)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, path, name], cwd=ROOT) for name in "ab"
    ]
    seen = 0
    while any(each.poll() is None for each in running):
        if path.exists():
            seen = max(seen, len(read_keys(path).keys))  # never half of it
    assert [each.wait() for each in running] == [0, 0]
    assert seen > 0
    left = {f"{name}-{n}" for name in "ab" for n in range(1, 25, 2)}
    assert {key.name for key in read_keys(path).keys} == left


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([""], "line 1: Input data was truncated"),
        (["[]"], "line 1: Expected object, got array"),
        ([FIRST.replace("1}", "2}")], "line 1: Invalid enum value 2 - at $.version"),
        ([FIRST, "{"], "line 2: Input data was truncated"),
        ([FIRST, json.dumps(KEY | {"scopes": []})], "line 2: Expected array of length >= 1 - at $.scopes"),
        ([FIRST, json.dumps(KEY | {"scopes": ["write"]})], "line 2: Invalid enum value 'write' - at $.scopes[0]"),
        ([FIRST, json.dumps(KEY | {"sha256": "letmein"})], "$.sha256"),
        ([FIRST, json.dumps(KEY | {"name": 'a",b="c'})], "line 2: Expected str matching regex"),
        ([FIRST, json.dumps(KEY | {"only_from": "10.0.0.0/8"})], "line 2: Object contains unknown field only_from"),
        ([FIRST, json.dumps(KEY | {"expires": "2030-01-01T00:00:00"})], "line 2: Expected datetime with a timezone component"),
        ([FIRST, json.dumps(KEY | {"rate": 0})], "line 2: Expected float > 0.0 - at $.rate"),
        ([FIRST, json.dumps(KEY), "", json.dumps(KEY)], "line 4: the id 00c0ffee is another key's too"),
        ([FIRST + "x" * 2**20], "has more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line_and_nothing_is_changed(path, lines, said):
    write(path, *lines)
    before = path.read_bytes()
    for act in (read_keys, lambda path: add_key(path, "a", ["read"])):
        with pytest.raises(InvalidKeys, match=re.escape(said)) as caught:
            act(path)
        assert str(path) in str(caught.value)
        assert "abab" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a b", 'a"', "ü", "a\n", "x" * 65])
def test_a_name_that_is_no_label_is_refused_before_anything_is_written(path, name):
    with pytest.raises(InvalidKeys, match=r"the key: Expected str matching regex .* \$\.name"):
        add_key(path, name, ["read"])
    assert not path.exists()


def test_who_may_not_be_trusted_with_it_is_said(path):
    add_key(path, "a", ["read"])
    assert not read_keys(path).is_readable_by_all
    path.chmod(0o644)
    assert read_keys(path).is_readable_by_all
    path.chmod(0o602)
    with pytest.raises(InvalidKeys, match="anybody may write"):
        read_keys(path)


def test_what_is_no_regular_file_is_refused_at_once(path, tmp_path):
    with pytest.raises(InvalidKeys, match="cannot be read: No such file"):
        read_keys(path)
    with pytest.raises(InvalidKeys, match="holds no file of keys: No such file"):
        add_key(tmp_path / "nowhere" / "keys", "a", ["read"])
    os.mkfifo(path)
    with pytest.raises(InvalidKeys, match="is no regular file"):
        read_keys(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InvalidKeys, match="is no regular file"):
        read_keys(path)

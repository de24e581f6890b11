"""Fitting, retraining and what a person does with versions, straight to a bucket of a real S3
server.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hourglass.service.serving.bucket import Bucket
from hourglass.service.serving.places import open_store
from hourglass.service.serving.signatures import SIGNATURE_FILE, Trust
from hourglass.training.gate import DECISION
from tests.buckets import Buckets
from tests.training import tables
from tests.training.conftest import Outcome

Command = Callable[..., Outcome]
QUICK = ("--variant", "linear", "--epochs", "3", "--folds", "0", "--no-report", "--quiet")


@pytest.fixture
def place(s3: Buckets, tmp_path: Path) -> tuple[str, ...]:
    return "--models", s3.make(), "--cache", str(tmp_path / "cache")


def lies_there(place: tuple[str, ...], tmp_path: Path) -> Bucket:
    store = open_store(place[1], cache=tmp_path / "another machine")
    assert isinstance(store, Bucket)
    return store


@pytest.mark.slow
def test_a_model_s_life_in_a_bucket(
    s3: Buckets, place: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    key, data = tmp_path / "signing.pem", tmp_path / "old.csv"
    tables.write(tables.correlated(600), data)
    made = command("sign", "--new-key", key)
    assert made.out == (
        f"{key} signs, and stays secret; {key}.pub goes to hourglass serve --trust\n"
    )

    fitted = command("fit", data, "--name", "pump", *QUICK, *place, "--sign-with", key)
    assert (fitted.code, fitted.err) == (0, "")
    model = lies_there(place, tmp_path).model("pump")
    model.pull()
    first = model.current()
    file = model.read(first, max_bytes=2**24)
    signature = s3.read(place[1], f"pump/{first}/{SIGNATURE_FILE}")
    Trust(Path(f"{key}.pub")).require(file.data, signature, model.file(first))
    run = (model.path / first / "run.toml").read_text()
    assert f'models = "{place[1]}"' in run
    assert not any(word in run for word in ("sign_with", "cache"))

    tables.write(tables.correlated(600, seed=1), tmp_path / "new.csv")
    again = command("retrain", "pump", tmp_path / "new.csv", *place, "--quiet")
    assert (again.code, again.err) == (0, "")
    model.pull()
    second = model.current()
    assert second != first
    assert s3.keys(place[1]) >= {f"pump/{DECISION}", f"pump/{second}/{DECISION}"}

    (tmp_path / "zeros.csv").write_text("x0,x1,x2,x3\n" + "0,0,0,0\n" * 600)
    header = data.read_text().partition("\n")[0]
    zeros = ",".join("0" for _ in header.split(","))
    (tmp_path / "zeros.csv").write_text(f"{header}\n" + f"{zeros}\n" * 600)
    refused = command("retrain", "pump", tmp_path / "zeros.csv", *place, "--quiet")
    assert refused.code == 3, refused.err
    assert json.loads(s3.read(place[1], f"pump/{DECISION}"))["published"] is False
    assert s3.read(place[1], "pump/current") == f"{second}\n".encode()

    assert f"pump/{second}/{SIGNATURE_FILE}" not in s3.keys(place[1])
    signed = command("sign", "pump", "--key", key, *place)
    assert (signed.code, signed.out) == (0, f"version {second[:12]} of pump is signed\n")
    assert f"pump/{second}/{SIGNATURE_FILE}" in s3.keys(place[1])

    listed = json.loads(command("versions", "pump", *place, "--json").out)
    assert {each["version"]: each["current"] for each in listed} == {first: False, second: True}
    assert command("promote", "pump", first[:9], *place).code == 0
    assert s3.read(place[1], "pump/current") == f"{first}\n".encode()
    assert command("prune", "pump", "--keep", "1", *place).code == 0
    assert lies_there(place, tmp_path).model("pump").versions() == [first]

    retired = command("retire", "pump", *place)
    assert retired.out == (
        f"pump is out of service; {place[1]}/pump holds its versions, of which promote brings one"
        " into service again\n"
    )
    assert "pump/current" not in s3.keys(place[1])
    nobody = command("retrain", "pump", data, *place)
    assert (nobody.code, "there is no model 'pump' in service" in nobody.err) == (2, True)
    assert command("promote", "pump", first, *place).code == 0


def test_a_bucket_that_is_away_is_said_before_anything_is_fitted(
    s3: Buckets, place: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    tables.write(tables.correlated(100), tmp_path / "rows.csv")
    s3.stop()
    try:
        for words in (
            ("fit", tmp_path / "rows.csv", "--name", "pump", *QUICK),
            ("versions", "pump"),
            ("promote", "pump", "1fec"),
            ("prune", "pump", "--keep", "1"),
            ("retire", "pump"),
        ):
            ended = command(*words, *place)
            assert (ended.code, ended.out) == (2, "")
            assert f"hourglass-train: {place[1]} does not answer: " in ended.err
            assert ended.err.count("\n") == 1
    finally:
        s3.start()


def test_a_key_that_cannot_sign_is_said_before_anything_is_fitted(
    tmp_path: Path, command: Command
) -> None:
    tables.write(tables.correlated(100), tmp_path / "rows.csv")
    (tmp_path / "key").write_text("none")
    words = ("fit", tmp_path / "rows.csv", "--name", "pump", "--models", tmp_path, *QUICK)
    ended = command(*words, "--sign-with", tmp_path / "key")
    assert ended.code == 2
    assert "is no private key in PEM without a password" in ended.err
    assert not (tmp_path / "pump").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "expected NAME and --key KEY, or --new-key FILE alone"),
        (("pump",), "expected NAME and --key KEY, or --new-key FILE alone"),
        (("pump", "--new-key", "k"), "--new-key makes a pair of keys, and signs nothing"),
    ],
)
def test_what_sign_cannot_do_is_said(
    words: tuple[str, ...], sentence: str, command: Command
) -> None:
    ended = command("sign", *words)
    assert (ended.code, ended.err) == (2, f"hourglass-train: {sentence}\n")

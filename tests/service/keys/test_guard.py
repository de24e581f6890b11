"""The guard: which requests a key lets through, how often, and what a changed file changes."""

import time

import pytest

from hourglass.service.errors import Forbidden, InvalidKeys, RateExceeded, Unauthenticated
from hourglass.service.keys import guard as module
from hourglass.service.keys.file import FORM, add_key, read_keys, remove_keys
from hourglass.service.keys.guard import WHICHEVER, Asked, Keys


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.jsonl"


def bearer(key: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode()))


def asked(headers, *scopes, model="pump-1"):
    return Asked("/v1", headers, scopes or ("score",), model)


def test_a_key_comes_as_bearer_or_as_x_api_key(path):
    key = add_key(path, "a", ["score"])
    keys = Keys(path)
    for headers in (
        bearer(key),
        ((b"authorization", f"bEARER   {key} ".encode()),),
        ((b"x-api-key", key.encode()),),
        ((b"ocp-apim-subscription-key", key.encode()),),
        # a proxy's own, and the same twice
        ((b"authorization", b"Basic YTpi"), (b"x-api-key", key.encode())),
        (*bearer(key), (b"x-api-key", key.encode())),
    ):
        assert keys(asked(headers)).key.name == "a"
    assert keys(Asked("/health/live", (), (), None)) is None
    assert keys.take_counts() == {("a", "allowed"): 6}
    assert keys.take_counts() == {}


def test_whatever_is_not_the_key_itself_is_refused_in_the_same_words(path):
    key, other = add_key(path, "a", ["score"]), add_key(path, "b", ["score"])
    keys = Keys(path)
    said = set()
    for wrong in (
        key[:-1], key + "0", key.upper(), key[:-1] + ("0" if key[-1] != "0" else "1"),
        key[:19] + other[19:], "letmein", "", "hourglass_00000000_" + "0" * 64, key + "\xe9",
    ):  # fmt: skip
        with pytest.raises(Unauthenticated) as caught:
            keys(asked(((b"x-api-key", wrong.encode("latin-1")),)))
        said.add(str(caught.value))
    (sentence,) = said
    assert sentence.endswith("got one that is not known here")
    with pytest.raises(Unauthenticated, match="got none"):
        keys(asked(((b"authorization", b"Basic " + key.encode()), (b"cookie", key.encode()))))
    with pytest.raises(Unauthenticated, match="got several"):
        keys(asked((*bearer(key), (b"x-api-key", other.encode()))))
    assert keys.take_counts() == {}


def test_a_made_up_secret_is_no_key_whatever_its_hash_says(path):
    """The file cannot tell what it holds the hash of, so the form is asked for at the door."""
    add_key(path, "a", ["score"])
    import hashlib

    (key,) = read_keys(path).keys
    weak = f"hourglass_{key.id}_letmein"
    path.write_text(path.read_text().replace(key.sha256, hashlib.sha256(weak.encode()).hexdigest()))
    with pytest.raises(Unauthenticated):
        Keys(path)(asked(bearer(weak)))


def test_digests_are_compared_in_constant_time_also_where_the_id_is_unknown(path, monkeypatch):
    key = add_key(path, "a", ["score"])
    keys, compared = Keys(path), []
    compare = module.hmac.compare_digest

    def counted(one, other):
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", counted)
    unknown = key.replace(FORM.fullmatch(key.encode())[1].decode(), "00000000")
    keys(asked(bearer(key)))
    with pytest.raises(Unauthenticated):
        keys(asked(bearer(unknown)))
    assert compared == [(32, 32)] * 2


def test_a_scope_and_a_model_that_the_key_is_not_for_are_forbidden(path):
    key = add_key(path, "pumps", ["score", "read"], models=["pump-*", "fan-?"])
    keys = Keys(path)
    for model in ("pump-1", "pump-", "fan-a", None):
        assert keys(asked(bearer(key), "read", "admin", model=model)).covers("pump-9")
    with pytest.raises(Forbidden) as caught:
        keys(asked(bearer(key), "admin"))
    assert str(caught.value) == (
        "expected a key with the scope admin, got 'pumps', which has score, read"
    )
    for model in ("fan-10", "xpump-1", "pump", "FAN-a", "pump-1\n"[:4] + "x"):
        with pytest.raises(Forbidden, match=r"for the models pump-\*, fan-\?, got"):
            keys(asked(bearer(key), model=model))
    with pytest.raises(Forbidden, match="got a path that names no model"):
        keys(asked(bearer(key), model=WHICHEVER))
    assert keys.take_counts() == {("pumps", "allowed"): 4, ("pumps", "forbidden"): 7}


def test_a_rate_lets_so_many_through_as_time_allows(path, monkeypatch):
    """A bucket of one second: over any time t no more than rate * (t + 1) requests pass."""
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    key, free = add_key(path, "a", ["score"], rate=4), add_key(path, "b", ["score"])
    slow = add_key(path, "c", ["score"], rate=0.1)
    keys = Keys(path)

    def passes(text) -> float:
        try:
            keys(asked(bearer(text)))
        except RateExceeded as error:
            return error.seconds
        return 0.0

    assert [passes(key) for _ in range(6)] == [0, 0, 0, 0, 0.25, 0.25]
    assert not any(passes(free) for _ in range(100))
    now += 0.5
    assert [passes(key) for _ in range(3)] == [0, 0, 0.25]
    now += 3600
    assert [passes(key) for _ in range(5)] == [0, 0, 0, 0, 0.25]
    assert [passes(slow) for _ in range(2)] == [0, pytest.approx(10)]
    assert keys.take_counts()["a", "limited"] == 4
    let_through = 0
    for _ in range(1000):
        now += 0.01
        let_through += passes(key) == 0
    assert 39 <= let_through <= 40


def test_an_expired_key_is_refused_by_the_clock_and_not_by_a_reading_of_the_file(path, monkeypatch):
    from datetime import UTC, datetime, timedelta

    now = time.time()
    at = datetime.fromtimestamp(int(now), UTC) + timedelta(days=90)
    key = add_key(path, "a", ["score"], expires=at)
    keys = Keys(path)
    keys(asked(bearer(key)))
    monkeypatch.setattr(module, "time", lambda: at.timestamp())
    with pytest.raises(Unauthenticated, match=f"'a' expired at {at:%Y-%m-%dT%H:%M:%SZ}"):
        keys(asked(bearer(key)))


def test_a_changed_file_is_read_and_what_a_rate_has_left_stays(path, monkeypatch):
    monkeypatch.setattr(module, "monotonic", lambda: 1000.0)
    old = add_key(path, "a", ["score"], rate=2)
    keys = Keys(path)
    keys(asked(bearer(old)))
    new = add_key(path, "a", ["score"])
    with pytest.raises(Unauthenticated):
        keys(asked(bearer(new)))
    keys.look()
    keys(asked(bearer(new)))
    keys(asked(bearer(old)))
    with pytest.raises(RateExceeded):
        keys(asked(bearer(old)))
    remove_keys(path, "a", id=FORM.fullmatch(old.encode())[1].decode())
    keys.look()
    with pytest.raises(Unauthenticated):
        keys(asked(bearer(old)))
    keys(asked(bearer(new)))
    remove_keys(path, "a", id=None)  # the last one too
    keys.look()
    with pytest.raises(Unauthenticated):
        keys(asked(bearer(new)))


def test_a_broken_file_leaves_the_last_keys_in_force_is_said_once_and_read_when_mended(
    path, caplog
):
    key = add_key(path, "a", ["score"])
    keys = Keys(path)
    whole = path.read_bytes()
    for broken in (b"", whole[:-9], b"nonsense"):
        path.write_bytes(broken)
        caplog.clear()
        for _ in range(3):
            keys.look()
        assert len(caplog.records) == 1
        assert caplog.records[0].message.endswith("the keys read before stay in force")
        assert str(path) in keys.problem
        keys(asked(bearer(key)))
    path.unlink()
    keys.look()
    assert "No such file" in keys.problem
    keys(asked(bearer(key)))
    path.write_bytes(whole)
    keys.look()
    assert keys.problem is None
    path.chmod(0o666)
    keys.look()
    assert "anybody may write" in keys.problem
    path.chmod(0o644)
    keys.look()
    assert keys.problem is None
    assert "anybody may read" in caplog.text


def test_a_broken_file_at_the_start_is_an_error(path):
    with pytest.raises(InvalidKeys):
        Keys(path)

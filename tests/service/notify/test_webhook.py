"""A webhook: signed, tried again until it is taken, in order for each event, bounded."""

import asyncio
import base64
import hashlib
import hmac
import re
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import msgspec
import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.notify import posting, webhook
from hourglass.service.notify.posting import addresses_of
from hourglass.service.notify.webhook import Webhook, read_secret, sign
from hourglass.service.streams.events import Event
from tests.receivers import HANG, RESET, receiving
from tests.serving import ROOT

SECRET = b"sixteen bytes or more"
START = datetime(2026, 11, 29, 1, 0, tzinfo=UTC)


def event(key: str, *, is_open: bool, model: str = "pumps") -> Event:
    return Event(
        id=key,
        model=model,
        version="1fec",
        entity="p1",
        start=START,
        peak=START,
        end=None if is_open else START,
        open=is_open,
        rows=1,
        severity=4.5,
        p_value=1e-3,
        features=["pressure"],
        sentence="pressure is 9 sd too high",
    )


@asynccontextmanager
async def running(hook):
    clock = asyncio.create_task(hook.clock())
    try:
        yield
    finally:
        clock.cancel()
        with suppress(asyncio.CancelledError):
            await clock


async def until(is_so):
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch):
    """Attempts follow each other, and none hangs for long."""
    monkeypatch.setattr(webhook, "wait_seconds", lambda attempts, draw: 0.02)
    monkeypatch.setattr(posting, "TIMEOUT_SECONDS", 0.3)


def deliver(receiver, *events, outcomes):
    """Tell of these, until each was delivered or dropped."""

    async def story():
        hook = Webhook(addresses_of(receiver.url, "")[0], SECRET, outcomes.append)
        async with running(hook):
            for each in events:
                hook.tell(each)
            await until(lambda: len(outcomes) - outcomes.count("failed") == len(events))

    asyncio.run(story())


def kinds(receiver):
    return [msgspec.json.decode(each.body)["type"] for each in receiver.received]


def test_the_body_is_the_event_and_the_signature_is_of_id_time_and_body():
    outcomes = []
    with receiving() as receiver:
        deliver(receiver, event("e1", is_open=True), outcomes=outcomes)
    sent = receiver.received[0]
    body = msgspec.json.decode(sent.body)
    assert body["type"] == "event.opened"
    assert body["data"] == msgspec.to_builtins(event("e1", is_open=True)) | {
        "start": "2026-11-29T01:00:00Z",
        "peak": "2026-11-29T01:00:00Z",
    }
    seconds = sent.headers["webhook-timestamp"]
    assert abs(int(seconds) - time.time()) < 10
    signed = f"e1.event.opened.{seconds}.".encode() + sent.body
    expected = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    assert sent.headers["webhook-id"] == "e1.event.opened"
    assert sent.headers["webhook-signature"] == f"v1,{expected}"
    assert outcomes == ["delivered"]


def test_the_signature_is_that_of_the_standards_own_example():
    """Of the libraries of Standard Webhooks."""
    secret = read_secret(None, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert (
        sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("failures", [[500], [503, 429], [RESET], [HANG, 500]])
def test_what_fails_is_tried_again_with_the_same_id_until_it_is_taken(quick, failures):
    outcomes = []
    with receiving(*failures) as receiver:
        deliver(receiver, event("e1", is_open=True), outcomes=outcomes)
    assert outcomes == ["failed"] * len(failures) + ["delivered"]
    assert len(receiver.received) == len(failures) + 1
    assert {each.headers["webhook-id"] for each in receiver.received} == {"e1.event.opened"}
    assert len({each.body for each in receiver.received}) == 1


def test_changes_of_one_event_arrive_in_order_also_where_the_first_fails(quick):
    outcomes = []
    with receiving(500, 500, 500) as receiver:
        deliver(receiver, event("e1", is_open=True), event("e1", is_open=False), outcomes=outcomes)
    assert kinds(receiver) == ["event.opened"] * 4 + ["event.closed"]


def test_other_events_do_not_wait_for_one_that_fails(monkeypatch):
    monkeypatch.setattr(webhook, "wait_seconds", lambda attempts, draw: 0.5)
    outcomes = []
    with receiving(500) as receiver:
        deliver(receiver, event("e1", is_open=True), event("e2", is_open=True), outcomes=outcomes)
    ids = [each.headers["webhook-id"] for each in receiver.received]
    assert ids == ["e1.event.opened", "e2.event.opened", "e1.event.opened"]
    assert receiver.received[2].at - receiver.received[0].at >= 0.45


def test_what_is_refused_is_dropped_and_the_next_change_is_told(quick, caplog):
    outcomes = []
    with receiving(400) as receiver:
        deliver(receiver, event("e1", is_open=True), event("e1", is_open=False), outcomes=outcomes)
    assert outcomes == ["failed", "dropped", "delivered"]
    assert kinds(receiver) == ["event.opened", "event.closed"]
    assert "was not told of e1.event.opened: it was refused" in caplog.text


def test_a_change_is_given_up_after_its_time(quick, monkeypatch):
    monkeypatch.setattr(webhook, "GIVE_UP_SECONDS", 0.2)
    outcomes = []
    with receiving(*[500] * 100) as receiver:
        deliver(receiver, event("e1", is_open=True), outcomes=outcomes)
    assert outcomes[-1] == "dropped"
    assert 3 <= outcomes.count("failed") <= 20


def test_the_oldest_changes_make_room_and_are_counted(monkeypatch):
    monkeypatch.setattr(webhook, "MOST_WAITING", 3)
    outcomes = []
    with receiving() as receiver:
        deliver(receiver, *(event(f"e{n}", is_open=True) for n in range(5)), outcomes=outcomes)
    assert outcomes == ["dropped"] * 2 + ["delivered"] * 3
    assert [each.headers["webhook-id"][:2] for each in receiver.received] == ["e2", "e3", "e4"]


def test_telling_takes_no_time_while_the_receiver_hangs():
    async def story():
        hook = Webhook(addresses_of(receiver.url, "")[0], SECRET)
        async with running(hook):
            hook.tell(event("e0", is_open=True))
            await until(lambda: receiver.received)
            began = time.monotonic()
            for n in range(200):
                hook.tell(event(f"e{n + 1}", is_open=True))
                await asyncio.sleep(0)
            return time.monotonic() - began

    with receiving(HANG) as receiver:
        seconds = asyncio.run(story())
    assert seconds < 1
    assert len(receiver.received) == 1


def test_the_function_of_the_readme_knows_what_is_genuine():
    readme = (ROOT / "service/README.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (program,) = (each for each in programs if "def is_genuine" in each)
    exec(program, names := {})
    is_genuine = names["is_genuine"]
    with receiving() as receiver:
        deliver(receiver, event("e1", is_open=True), outcomes=[])
    headers, body = receiver.received[0].headers, receiver.received[0].body
    assert is_genuine(headers, body, SECRET)
    assert not is_genuine(headers, body + b" ", SECRET)
    assert not is_genuine(headers, body, SECRET + b"!")
    assert not is_genuine(headers | {"webhook-id": "e2.event.opened"}, body, SECRET)
    earlier = str(int(headers["webhook-timestamp"]) - 3600)
    again = headers | {"webhook-timestamp": earlier}
    again["webhook-signature"] = sign(SECRET, headers["webhook-id"], earlier, body)
    assert not is_genuine(again, body, SECRET)  # replayed


class TestSecret:
    def test_it_is_the_files_content_or_that_of_the_environment(self, tmp_path):
        (tmp_path / "secret").write_text("0123456789abcdef\n")
        assert read_secret(tmp_path / "secret", "other") == b"0123456789abcdef"
        assert read_secret(None, "0123456789abcdefgh") == b"0123456789abcdefgh"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "",
                "--webhook needs a secret to sign with, from --webhook-secret-file or from HOURGLASS_WEBHOOK_SECRET",
            ),
            ("hunter2", "HOURGLASS_WEBHOOK_SECRET: expected a secret of at least 16 bytes, got 7"),
            ("whsec_hunter2!", "HOURGLASS_WEBHOOK_SECRET: expected base64 after whsec_"),
        ],
    )
    def test_one_that_will_not_do_is_one_sentence_that_does_not_repeat_it(self, text, message):
        with pytest.raises(InvalidSettings) as caught:
            read_secret(None, text)
        assert str(caught.value) == message
        assert "hunter2" not in message

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path):
        with pytest.raises(InvalidSettings, match=r"gone: No such file or directory$"):
            read_secret(tmp_path / "gone", "")
        (tmp_path / "bytes").write_bytes(b"\xff" * 20)
        with pytest.raises(InvalidSettings, match=r"bytes: expected text$"):
            read_secret(tmp_path / "bytes", "")

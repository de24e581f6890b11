"""One POST to somebody else's server: its bytes, its deadline, and the addresses it goes to."""

import asyncio
import gc
import socket
import threading
import time

import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.notify import posting
from hourglass.service.notify.posting import Receiver, addresses_of, post, wait_seconds
from tests.receivers import HANG, NONSENSE, RESET, receiving
from tests.serving import free_port


def test_a_post_has_path_query_host_length_and_the_headers_given():
    with receiving(202) as receiver:
        address = addresses_of(receiver.url + "?a=b", "--webhook")[0]
        assert asyncio.run(post(address, b'{"a":1}', {"webhook-id": "x"})) == 202
    sent = receiver.received[0]
    assert (sent.path, sent.body) == ("/hook?a=b", b'{"a":1}')
    assert sent.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "content-type": "application/json",
        "content-length": "7",
        "user-agent": "hourglass",
        "connection": "close",
        "webhook-id": "x",
    }


def test_a_receiver_that_hangs_is_let_go_at_the_deadline_while_the_loop_goes_on(monkeypatch):
    monkeypatch.setattr(posting, "TIMEOUT_SECONDS", 0.3)

    async def story():
        turns, began = 0, time.monotonic()
        attempt = asyncio.create_task(post(addresses_of(receiver.url, "")[0], b"{}", {}))
        while not attempt.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(TimeoutError):
            await attempt
        return turns, time.monotonic() - began

    with receiving(HANG) as receiver:
        turns, seconds = asyncio.run(story())
    assert 0.25 < seconds < 3
    assert turns >= 5


def test_a_name_server_that_is_silent_holds_up_neither_the_loop_nor_its_end(monkeypatch, caplog):
    monkeypatch.setattr(posting, "TIMEOUT_SECONDS", 0.2)
    is_over, left = threading.Event(), []

    def silent(*_, **__):
        is_over.wait(20)
        left.append(threading.current_thread())
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(posting.socket, "getaddrinfo", silent)

    async def story():
        turns = 0
        attempts = [
            asyncio.create_task(Receiver("webhook", address, lambda _: None).tell(b"{}", {}))
            for address in addresses_of(",".join(f"http://h{k}.example/" for k in range(40)), "")
        ]
        while not all(each.done() for each in attempts):
            await asyncio.to_thread(time.sleep, 0.01)  # the loop's threads are free
            turns += 1
        return turns, {await each for each in attempts}

    began = time.monotonic()
    turns, answers = asyncio.run(story())
    assert time.monotonic() - began < 10
    assert (turns >= 3, answers) == (True, {"later"})
    is_over.set()
    deadline = time.monotonic() + 10
    while len(left) < 40 or any(each.is_alive() for each in left):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gc.collect()
    assert {each.name for each in caplog.records} == {"hourglass.service.notify.posting"}


@pytest.mark.parametrize("answer", [RESET, NONSENSE])
def test_what_is_no_answer_is_an_error(answer):
    with receiving(answer) as receiver, pytest.raises(ConnectionError):
        asyncio.run(post(addresses_of(receiver.url, "")[0], b"{}", {}))


def test_nobody_there_is_an_error():
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(post(addresses_of(f"http://127.0.0.1:{free_port()}/", "")[0], b"{}", {}))


def test_a_redirect_is_not_followed_and_not_tried_again():
    with receiving() as elsewhere, receiving(302, location=elsewhere.url) as receiver:
        outcomes = []
        told = Receiver("webhook", addresses_of(receiver.url, "")[0], outcomes.append)
        assert asyncio.run(told.tell(b"{}", {})) == "refused"
    assert outcomes == ["failed"]
    assert elsewhere.received == []


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, "taken"),
        (204, "taken"),
        (304, "refused"),
        (400, "refused"),
        (404, "refused"),
        (408, "later"),
        (429, "later"),
        (500, "later"),
        (503, "later"),
    ],
)
def test_the_status_says_whether_another_attempt_is_worth_it(status, answer):
    with receiving(status) as receiver:
        told = Receiver("webhook", addresses_of(receiver.url, "")[0], lambda _: None)
        assert asyncio.run(told.tell(b"{}", {})) == answer


def test_the_log_says_once_that_a_receiver_fails_and_once_that_it_works_again(caplog):
    async def story():
        told = Receiver(
            "webhook", addresses_of(receiver.url + "/secret-token", "")[0], lambda _: None
        )
        for _ in range(4):
            await told.tell(b"{}", {})

    with receiving(500, 503) as receiver:
        asyncio.run(story())
    lines = [each.getMessage() for each in caplog.records if each.name.endswith("posting")]
    assert lines == [
        f"webhook 127.0.0.1:{receiver.port} fails: it answered 500",
        f"webhook 127.0.0.1:{receiver.port} works again",
    ]


def test_attempts_are_apart_by_powers_of_two_up_to_a_minute_and_a_half_of_it_is_drawn():
    assert [wait_seconds(attempts, 0) for attempts in (1, 2, 3, 7, 8, 1000)] == [
        0.5,
        1,
        2,
        30,
        30,
        30,
    ]
    assert [wait_seconds(attempts, 1) for attempts in (1, 2, 7)] == [1, 2, 60]


def test_addresses_are_separated_by_commas():
    first, second = addresses_of("http://a.example, https://[::1]:8443/x?y=z ,", "--webhook")
    assert (first.host, first.port, first.path, first.context) == ("a.example", 80, "/", None)
    assert (second.host, second.port, second.path) == ("::1", 8443, "/x?y=z")
    assert second.context is not None
    assert (first.authority, second.authority) == ("a.example", "[::1]:8443")
    assert addresses_of("", "--webhook") == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "example.com/hook",
            "expected http://HOST/PATH or https://HOST/PATH, got 'example.com/hook'",
        ),
        (
            "ftp://example.com",
            "expected http://HOST/PATH or https://HOST/PATH, got 'ftp://example.com'",
        ),
        ("http://", "expected http://HOST/PATH or https://HOST/PATH, got 'http://'"),
        ("http://a:99999/", "expected a URL, got 'http://a:99999/' (Port out of range 0-65535)"),
        ("http://me:word@a/", "expected a URL without a user and a password in it"),
        (
            "http://a/b c",
            "expected printable ASCII without spaces and without a fragment, got 'http://a/b c'",
        ),
        (
            "http://a/#b",
            "expected printable ASCII without spaces and without a fragment, got 'http://a/#b'",
        ),
        (
            "http://a/é",
            "expected printable ASCII without spaces and without a fragment, got 'http://a/é'",
        ),
        (
            "http://a..b/",
            "expected a host whose names between dots have 1 to 63 characters, got 'http://a..b/'",
        ),
        (
            f"https://{'a' * 64}.example/",
            "expected a host whose names between dots have 1 to 63 characters,"
            f" got 'https://{'a' * 64}.example/'",
        ),
    ],
)
def test_an_address_that_is_none_is_one_sentence_that_names_its_flag(url, message):
    with pytest.raises(InvalidSettings) as caught:
        addresses_of(url, "--webhook")
    assert str(caught.value) == f"--webhook: {message}"

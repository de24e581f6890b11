"""From rows to a person: an event opens and closes in a stream, and others are told of it."""

import sqlite3

import httpx
import msgspec
import pytest

from tests.artifacts import make_artifact, publish
from tests.receivers import receiving
from tests.service.api.test_streams import rows_of, send, strange, times
from tests.serving import Process, serving, wait_until

SECRET = "0123456789abcdef"


@pytest.fixture
def models(tmp_path):
    publish(tmp_path / "models", "rows", make_artifact(conditional=True))
    return tmp_path / "models"


def bodies(receiver):
    return [msgspec.json.decode(each.body) for each in receiver.received]


def test_a_webhook_and_an_alertmanager_are_told_of_an_event_once_when_it_opens_and_when_it_closes(
    models,
):
    with (
        receiving(500) as hook,
        receiving() as manager,
        serving(
            models, webhook=hook.url, webhook_secret=SECRET, alertmanager=manager.url
        ) as client,
    ):
        send(client, "rows", "a", rows_of(20), times(0, 20))
        opened = send(client, "rows", "a", strange(10), times(20, 10))["changes"]
        wait_until(lambda: len(hook.received) == 2 and manager.received)
        closed = send(client, "rows", "a", rows_of(40), times(30, 40))["changes"]
        wait_until(lambda: len(hook.received) == 3 and len(manager.received) == 2)
        metrics = client.get("/metrics").text
    assert [each["type"] for each in bodies(hook)] == ["event.opened"] * 2 + ["event.closed"]
    assert [each["data"] for each in bodies(hook)] == [*opened, *opened, *closed]
    (first,), (last,) = bodies(manager)
    assert (
        first["labels"]
        == last["labels"]
        == {
            "alertname": "HourglassEvent",
            "model": "rows",
            "entity": "a",
        }
    )
    assert last["startsAt"] == opened[0]["start"]
    assert last["endsAt"] == closed[0]["end"]
    for outcome, count in (("delivered", 2), ("failed", 1), ("dropped", 0)):
        wanted = f'hourglass_notices_total{{outcome="{outcome}",receiver="webhook"}} {count}.0'
        assert wanted in metrics


def test_after_a_restart_alertmanager_is_told_again_of_what_is_open_and_a_webhook_is_not(models):
    with serving(models) as client:
        send(client, "rows", "a", rows_of(20), times(0, 20))
        (opened,) = send(client, "rows", "a", strange(10), times(20, 10))["changes"]
    with (
        receiving() as hook,
        receiving() as manager,
        serving(models, webhook=hook.url, webhook_secret=SECRET, alertmanager=manager.url),
    ):
        wait_until(lambda: manager.received)
    assert bodies(manager)[0][0]["annotations"]["event"] == opened["id"]
    assert hook.received == []


@pytest.mark.slow
def test_a_host_that_cannot_be_looked_up_is_one_line_in_the_log_and_stops_nothing(models):
    flags = ("--webhook", "http://no-such-host.invalid/", "--alertmanager", "http://-/")
    with Process(models, *flags, HOURGLASS_WEBHOOK_SECRET=SECRET) as process:
        with httpx.Client(base_url=process.url) as client:
            send(client, "rows", "a", rows_of(20), times(0, 20))
            send(client, "rows", "a", strange(10), times(20, 10))
            failed = 'hourglass_notices_total{outcome="failed",receiver="webhook"} '
            wait_until(lambda: f"{failed}2.0" in client.get("/metrics").text)  # it tries again
            assert client.get("/health/ready", timeout=2).status_code == 200
        assert process.stop() == 0
    log = "".join(process.log)
    assert log.count("webhook no-such-host.invalid fails: ") == 1
    assert log.count("Alertmanager - fails: ") == 1
    assert "Traceback" not in log


def test_who_is_told_after_a_restart_of_an_event_that_no_state_knows_is_told_its_end(models):
    with serving(models) as client:
        send(client, "rows", "a", rows_of(20), times(0, 20))
        (opened,) = send(client, "rows", "a", strange(10), times(20, 10))["changes"]
    with sqlite3.connect(models / "streams.sqlite") as database:
        database.execute("DELETE FROM states")
    database.close()
    with (
        receiving() as hook,
        receiving() as manager,
        serving(
            models, webhook=hook.url, webhook_secret=SECRET, alertmanager=manager.url
        ) as client,
    ):
        wait_until(lambda: manager.received and hook.received)
        events = client.get("/v1/models/rows/events").json()["events"]
    (told,) = bodies(hook)
    assert told["type"] == "event.closed"
    assert (
        told["data"]
        == events[0]
        == opened
        | {
            "open": False,
            "end": opened["last"],
            "end_reason": "lost",
        }
    )
    assert bodies(manager)[0][0]["endsAt"] == opened["last"]

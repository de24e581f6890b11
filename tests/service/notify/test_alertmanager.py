"""Alertmanager: open events again and again, closed ones with their end until that was taken."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from hourglass.service.notify import alertmanager, posting
from hourglass.service.notify.alertmanager import LASTS, Alertmanager
from hourglass.service.notify.posting import addresses_of
from tests.receivers import HANG, receiving
from tests.service.notify.test_webhook import event, running, until


def told(receiver, story, count=lambda _: None):
    """What it was told, by a story of events."""

    async def run():
        told = Alertmanager(addresses_of(receiver.url, "")[0], "http://here:8000", count)
        async with running(told):
            await story(told)

    asyncio.run(run())
    return [msgspec.json.decode(each.body) for each in receiver.received]


def test_an_open_event_is_an_alert_that_ends_unless_it_is_repeated():
    async def story(told):
        told.tell(event("e1", is_open=True))
        await until(lambda: receiver.received)

    with receiving() as receiver:
        (alert,) = told(receiver, story)[0]
    ends_at = datetime.fromisoformat(alert.pop("endsAt"))
    assert abs(ends_at - datetime.now(UTC) - LASTS) < timedelta(seconds=10)
    assert receiver.received[0].path == "/hook/api/v2/alerts"
    assert alert == {
        "labels": {"alertname": "HourglassEvent", "model": "pumps", "entity": "p1"},
        "annotations": {
            "summary": "pressure is 9 sd too high",
            "features": "pressure",
            "severity": "4.50",
            "peak": "2026-11-29T01:00:00+00:00",
            "event": "e1",
            "version": "1fec",
        },
        "startsAt": "2026-11-29T01:00:00Z",
        "generatorURL": "http://here:8000/v1/models/pumps/events?entity=p1",
    }


def test_open_events_are_repeated_and_closed_ones_told_once(monkeypatch):
    monkeypatch.setattr(alertmanager, "AGAIN_SECONDS", 0.1)

    async def story(told):
        told.tell(event("e1", is_open=True))
        await until(lambda: len(receiver.received) >= 3)
        told.tell(event("e1", is_open=False))
        await until(lambda: b'"endsAt":"2026-11-29T01:00:00Z"' in receiver.received[-1].body)
        count = len(receiver.received)
        await asyncio.sleep(0.3)
        assert len(receiver.received) == count

    with receiving() as receiver:
        bodies = told(receiver, story)
    assert [len(each) for each in bodies] == [1] * len(bodies)
    assert sum(each[0]["endsAt"] == "2026-11-29T01:00:00Z" for each in bodies) == 1


@pytest.mark.parametrize("failures", [[500, 503], [HANG]])
def test_what_failed_is_told_in_the_state_that_it_has_then(monkeypatch, failures):
    monkeypatch.setattr(alertmanager, "wait_seconds", lambda attempts, draw: 0.05)
    monkeypatch.setattr(posting, "TIMEOUT_SECONDS", 0.3)
    outcomes = []

    async def story(told):
        told.tell(event("e1", is_open=True))
        await until(lambda: receiver.received)
        told.tell(event("e1", is_open=False))
        await until(lambda: "delivered" in outcomes)

    with receiving(*failures) as receiver:
        bodies = told(receiver, story, outcomes.append)
    assert outcomes == ["failed"] * len(failures) + ["delivered"]
    assert bodies[-1][0]["endsAt"] == "2026-11-29T01:00:00Z"


def test_a_refused_end_is_dropped_rather_than_told_for_ever(monkeypatch):
    monkeypatch.setattr(alertmanager, "AGAIN_SECONDS", 0.05)
    outcomes = []

    async def story(told):
        told.tell(event("e1", is_open=False))
        await until(lambda: "dropped" in outcomes)
        await asyncio.sleep(0.2)

    with receiving(400, 400, 400) as receiver:
        told(receiver, story, outcomes.append)
    assert outcomes == ["failed", "dropped"]


def test_events_that_were_open_when_the_service_ended_are_told_from_its_start_on():
    async def run():
        told = Alertmanager(addresses_of(receiver.url, "")[0], "http://here:8000")
        told.begin([event("e1", is_open=True), event("e2", is_open=True)])
        async with running(told):
            await until(lambda: receiver.received)

    with receiving() as receiver:
        asyncio.run(run())
    alerts = msgspec.json.decode(receiver.received[0].body)
    assert [each["annotations"]["event"] for each in alerts] == ["e1", "e2"]


def test_those_told_of_first_make_room(monkeypatch):
    monkeypatch.setattr(alertmanager, "MOST_ALERTS", 2)
    outcomes = []

    async def story(told):
        for n in range(3):
            told.tell(event(f"e{n}", is_open=True))
        await until(lambda: receiver.received)

    with receiving() as receiver:
        bodies = told(receiver, story, outcomes.append)
    assert outcomes[0] == "dropped"
    assert [each["annotations"]["event"] for each in bodies[0]] == ["e1", "e2"]


def test_an_alert_of_rows_ahead_of_the_clock_begins_by_now_and_ends_after_it_began():
    later = datetime.now(UTC) + timedelta(days=1)
    ahead = msgspec.structs.replace(event("e1", is_open=False), start=later, peak=later, end=later)

    async def story(told):
        told.tell(ahead)
        await until(lambda: receiver.received)

    with receiving() as receiver:
        (alert,) = told(receiver, story)[0]
    assert alert["startsAt"] <= alert["endsAt"] <= datetime.now(UTC).isoformat()

"""The events in SQLite: written over by id, found by what is asked, bounded."""

import sqlite3
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from hourglass.service.streams.chronicle import SCHEMA, Chronicle
from hourglass.service.streams.events import Event
from tests.service.notify.test_webhook import event

START = datetime(2026, 11, 29, tzinfo=UTC)


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def made(start: float, end: float | None, *, model: str = "pumps", entity: str = "p1") -> Event:
    """An event between two minutes."""
    return msgspec.structs.replace(
        event(f"{model}-{entity}-{start}", is_open=end is None, model=model),
        entity=entity,
        start=at(start),
        end=None if end is None else at(end),
    )


@pytest.fixture
def database(tmp_path):
    database = sqlite3.connect(tmp_path / "streams.sqlite", isolation_level=None)
    database.executescript(SCHEMA)
    yield database
    database.close()


def test_events_are_found_by_what_is_asked_the_last_first(database):
    first, second = made(0, 5), made(10, 12, entity="p2")
    third, fourth = made(20, None), made(30, None, model="fans")
    chronicle = Chronicle(database)
    chronicle.write([second, first, fourth, third])
    assert chronicle.events("pumps") == [third, second, first]
    assert chronicle.events("pumps", most=2) == [third, second]
    assert chronicle.events("pumps", entity="p1") == [third, first]
    assert chronicle.events("pumps", is_open=True) == [third]
    assert chronicle.events("pumps", is_open=False) == [second, first]
    assert chronicle.events("pumps", since=at(12).timestamp()) == [third, second]
    assert chronicle.events("pumps", since=at(13).timestamp()) == [third]
    assert chronicle.events("nobody") == []
    assert chronicle.open_events() == [third, fourth]


def test_an_event_is_written_over_by_its_id(database):
    chronicle = Chronicle(database)
    chronicle.write([made(0, None)])
    chronicle.write([closed := made(0, 4)])
    assert chronicle.events("pumps") == [closed]
    assert chronicle.open_events() == []


def test_another_connection_finds_what_was_written(database, tmp_path):
    Chronicle(database).write([made(0, None)])
    other = sqlite3.connect(tmp_path / "streams.sqlite")
    assert Chronicle(other).open_events() == [made(0, None)]
    other.close()


def test_those_that_ended_first_are_forgotten_and_open_ones_never(database):
    chronicle = Chronicle(database, most=3)
    chronicle.write([made(0, None), made(1, 9), made(2, 3), made(4, 6), made(5, 7)])
    assert [each.start for each in chronicle.events("pumps")] == [at(5), at(1), at(0)]


def test_what_a_transaction_takes_back_was_never_written(database):
    chronicle = Chronicle(database)
    database.execute("BEGIN")
    chronicle.write([made(0, None)])
    database.execute("ROLLBACK")
    assert chronicle.events("pumps") == []

"""Streams: silence, a disk that fails, a process that is killed, several requests at once."""

import asyncio
import logging
import resource
import signal
import sqlite3
import time

import httpx
import msgspec
import numpy as np
import pytest

from hourglass.service.serving.batcher import Batcher
from hourglass.service.serving.observers import UNOBSERVED
from hourglass.service.streams import streams as module
from hourglass.service.streams.state import State
from hourglass.service.streams.streams import Streams
from tests.artifacts import (
    NUMERIC,
    make_artifact,
    make_served,
    make_windowed_served,
    publish,
    sample_rows,
)
from tests.serving import Process


def rows_of(count, shift=0.0):
    rows = sample_rows(NUMERIC, 100)[:count].copy()
    rows[:, 1] += shift
    return rows


def run(path, story, **options):
    """A story of streams that are started before it and closed after it."""

    async def whole():
        batcher = Batcher(
            UNOBSERVED, inline_cells=options.pop("inline_cells", 8192), max_rows=65536
        )
        streams = Streams(batcher, path, **options)
        await streams.start()
        try:
            return await story(streams)
        finally:
            await streams.close()
            batcher.close()

    return asyncio.run(whole())


def seconds(first, count):
    return np.arange(first, first + count) * 60.0


def test_the_clock_closes_the_event_of_an_entity_that_is_silent(monkeypatch):
    told = []
    served = make_served(NUMERIC)

    async def story(streams):
        await streams.take(served, "a", rows_of(20), seconds(0, 20))
        await streams.take(served, "a", rows_of(10, shift=40.0), seconds(20, 10))
        assert [event.open for event in told] == [True]
        streams._lapse()
        assert len(told) == 1  # it is not silent yet
        later = time.monotonic() + 31 * 60
        monkeypatch.setattr(module.time, "monotonic", lambda: later)
        streams._lapse()
        assert await streams.ask(lambda file: file.chronicle().open_events()) == []

    run(None, story, tell=told.append)
    assert [event.open for event in told] == [True, False]
    assert told[0].id == told[1].id
    assert told[1].end.timestamp() == 29 * 60


class TestEventsWithoutAState:
    """An event ends when its entity leaves, or with the next start: nobody is told of it for ever."""

    @staticmethod
    async def open_one(streams, name="a", since=0.0):
        served = make_served(NUMERIC)
        await streams.take(served, name, rows_of(20), since + seconds(0, 20))
        await streams.take(served, name, rows_of(10, shift=40.0), since + seconds(20, 10))

    @staticmethod
    def events_of(path):
        """What is told at a start, what was open then and all events; one after the other."""
        told = []

        async def look(streams):
            return await streams.ask(lambda file: file.chronicle().events("tiny"))

        events = run(path, look, tell=told.append)
        return told, events

    @pytest.mark.parametrize("ending", ["forgotten", "evicted"])
    def test_it_ends_when_the_entity_leaves(self, tmp_path, ending):
        told = []

        async def story(streams):
            await self.open_one(streams)
            if ending == "forgotten":
                streams.forget("tiny", "a")
            else:
                await streams.take(make_served(NUMERIC), "b", rows_of(1), seconds(0, 1))

        run(tmp_path / "streams.sqlite", story, most=1, tell=told.append)
        opened, closed = told
        assert (opened.end, opened.end_reason) == (None, None)
        assert opened.last.timestamp() == 29 * 60
        assert (closed.id, closed.open, closed.end_reason) == (opened.id, False, ending)
        assert closed.end.timestamp() == 29 * 60  # of its last row
        assert self.events_of(tmp_path / "streams.sqlite") == ([], [closed])

    def test_it_ends_with_the_start_where_fewer_entities_are_kept(self, tmp_path):
        path, told = tmp_path / "streams.sqlite", []

        async def story(streams):
            await self.open_one(streams)
            await streams.take(make_served(NUMERIC), "b", rows_of(1), seconds(100, 1))

        async def look(streams):
            assert [each.entity for each in streams.entities(make_served(NUMERIC))] == ["b"]

        run(path, story)
        run(path, look, most=1, tell=told.append)
        (closed,) = told
        assert (closed.entity, closed.open, closed.end_reason) == ("a", False, "lost")
        assert closed.end.timestamp() == 29 * 60
        assert self.events_of(path) == ([], [closed])  # and its state is not there any more

    @pytest.mark.parametrize(
        "change",
        [
            "DELETE FROM states",
            "UPDATE states SET body = x'80'",  # of another State
            "UPDATE states SET body = x'c1'",  # of none
        ],
    )
    def test_it_ends_with_the_start_where_its_state_knows_nothing_of_it(self, tmp_path, change):
        path = tmp_path / "streams.sqlite"
        run(path, self.open_one)
        database = sqlite3.connect(path)
        database.execute(change)
        database.commit()
        database.close()
        told, (event,) = self.events_of(path)
        assert told == [event]
        assert (event.open, event.end_reason) == (False, "lost")

    def test_what_is_written_of_an_event_and_of_its_state_is_of_one_moment(self, monkeypatch):
        """A process that is killed then leaves no event that its state does not know."""
        monkeypatch.setattr(module, "ENCODED_AT_ONCE", 1)  # each time, and others run meanwhile

        async def story(streams):
            await self.open_one(streams)
            calm = streams.take(make_served(NUMERIC), "a", rows_of(40), seconds(30, 40))
            parts = [await asyncio.gather(streams._changes(), calm), (await streams._changes(), 0)]
            for changes, _ in parts:
                spans = {
                    key: msgspec.msgpack.decode(body, type=State).watch.open
                    for key, (_, body) in changes.states.items()
                }
                for event in changes.events:
                    assert (spans[event.model, event.entity] is not None) == event.open
            return [event.open for changes, _ in parts for event in changes.events]

        assert run(None, story) == [False]

    @pytest.mark.parametrize(("since", "minutes"), [(1.76e9, 30), (0.0, 60)])
    def test_after_a_restart_the_clock_closes_it_by_what_its_times_are(
        self, tmp_path, monkeypatch, since, minutes
    ):
        """Times that are counts say nothing of how long 30 rows take: that is an hour."""
        path, told = tmp_path / "streams.sqlite", []

        async def story(streams):
            now = time.monotonic()
            for later in (60 * minutes - 5, 60 * minutes + 5):
                assert told == []
                monkeypatch.setattr(module.time, "monotonic", lambda later=later: now + later)
                streams._lapse()
            monkeypatch.undo()

        run(path, lambda streams: self.open_one(streams, since=since))
        run(path, story, tell=told.append)
        assert [(event.open, event.end_reason) for event in told] == [(False, "silence")]

    def test_an_event_of_a_model_that_only_warms_ends(self):
        told = []

        async def story(streams):
            await streams.take(make_served(NUMERIC), "a", rows_of(20), seconds(0, 20))
            await streams.take(make_served(NUMERIC), "a", rows_of(10, shift=40.0), seconds(20, 10))
            other = make_windowed_served(NUMERIC, rows=4, gap=1.0)  # rows are a minute apart
            for first in (30, 100):
                taken = await streams.take(other, "a", rows_of(70), seconds(first, 70))
                assert taken.answers.answers["warming"].all()

        run(None, story, tell=told.append)
        assert [event.open for event in told] == [True, False]
        assert told[1].end.timestamp() == 29 * 60


def test_requests_for_one_entity_are_taken_one_after_the_other():
    served = make_served(NUMERIC)

    async def story(streams):
        parts = [streams.take(served, "a", rows_of(5), seconds(5 * k, 5)) for k in range(20)]
        await asyncio.gather(*parts)
        return streams.seen(served, "a")

    # no cell is inline: each of them goes to the thread
    assert run(None, story, inline_cells=0).rows == 100


def test_a_disk_that_fails_stops_no_answer_and_what_waits_is_written_later(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    served = make_served(NUMERIC)
    path = tmp_path / "streams.sqlite"
    failures = []

    async def story(streams):
        write = streams._file.write

        def fail(_):
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(streams._file, "write", fail)
        for k in range(3):
            await streams.take(served, "a", rows_of(1), seconds(k, 1))
            await streams.ask(lambda _: None)
        monkeypatch.setattr(streams._file, "write", write)

    with caplog.at_level(logging.WARNING):
        run(path, story, count_failure=lambda: failures.append(1))
    assert len(failures) == 3

    async def look(streams):
        return streams.seen(served, "a").rows

    assert run(path, look) == 3
    said = [each.getMessage() for each in caplog.records]
    assert [each.split(" to ")[0] for each in said] == [
        "streams cannot be written",
        "streams are written again",
    ]


def test_a_full_disk_stops_no_answer_and_loses_no_state(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    served, path = make_served(NUMERIC), tmp_path / "streams.sqlite"

    async def story(streams):
        await streams.take(served, "a", rows_of(20), seconds(0, 20))
        assert await streams.ask(lambda file: file.states(9)[1]) == []
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            taken = await streams.take(served, "a", rows_of(10, shift=40.0), seconds(20, 10))
            assert taken.event is not None
            assert await streams.ask(lambda _: 7) == 7
            for k in range(50):
                await streams.take(served, f"b{k}", rows_of(1), seconds(0, 1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(streams._gone) <= 1  # of those that the file never had nothing is remembered
        return taken.event

    event = run(path, story, most=10)
    assert "streams cannot be written" in caplog.text
    assert "streams are written again" in caplog.text

    async def look(streams):
        (kept,) = await streams.ask(lambda file: file.chronicle().events("tiny"))
        return kept, [each.entity for each in streams.entities(served)]

    kept, entities = run(path, look)
    assert (kept.id, kept.end_reason) == (event.id, "evicted")
    assert sorted(entities) == sorted(f"b{k}" for k in range(40, 50))


def test_a_request_that_is_cancelled_leaves_the_entity_as_it_was(tmp_path):
    served = make_served(NUMERIC)

    async def story(streams):
        await streams.take(served, "a", rows_of(20), seconds(0, 20))
        thread = streams._batcher._long_thread
        busy = asyncio.get_running_loop().run_in_executor(thread, time.sleep, 0.3)
        asked = asyncio.create_task(
            streams.take(served, "a", rows_of(10, shift=40.0), seconds(20, 10))
        )
        new = asyncio.create_task(streams.take(served, "b", rows_of(10), seconds(0, 10)))
        await asyncio.sleep(0.05)  # both wait for the thread
        asked.cancel(), new.cancel()
        await asyncio.gather(asked, new, return_exceptions=True)
        await busy
        assert [(each.entity, each.rows) for each in streams.entities(served)] == [("a", 20)]
        taken = await streams.take(served, "a", rows_of(10, shift=40.0), seconds(20, 10))
        assert taken.answers.repeated == 0
        assert [event.open for event in taken.changes] == [True]

    run(None, story, inline_cells=0)


def test_what_is_being_written_when_the_clock_is_cancelled_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.01)
    served = make_served(NUMERIC)
    path = tmp_path / "streams.sqlite"

    async def story(streams):
        busy = asyncio.create_task(streams._run(lambda: time.sleep(0.3)))  # before the writing
        await streams.take(served, "a", rows_of(3), seconds(0, 3))
        clock = asyncio.create_task(streams.clock())
        await asyncio.sleep(0.1)  # it has taken what waits, and its writing is queued
        assert not streams._dirty
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
        await busy

    run(path, story)

    async def look(streams):
        return streams.seen(served, "a").rows

    assert run(path, look) == 3


def test_a_file_that_another_process_has_leaves_streams_in_memory(tmp_path, caplog):
    served = make_served(NUMERIC)
    path = tmp_path / "streams.sqlite"

    async def other(streams):
        await streams.take(served, "a", rows_of(1), seconds(0, 1))
        await streams.ask(lambda _: None)
        return len(streams.entities(served))

    async def first(streams):
        await streams.take(served, "b", rows_of(1), seconds(0, 1))
        await streams.ask(lambda _: None)
        second = Streams(Batcher(UNOBSERVED, inline_cells=8192, max_rows=10), path)
        await second.start()
        count = await other(second)
        await second.close()
        return count

    assert run(path, first) == 1
    assert "streams are in memory alone" in caplog.text


@pytest.mark.slow
def test_a_process_that_is_killed_loses_about_a_second(tmp_path):
    publish(tmp_path, "rows", make_artifact())
    body = {"rows": rows_of(1).tolist()}
    with Process(tmp_path) as process:
        url = f"{process.url}/v1/models/rows/streams/a"
        for second in range(20):
            httpx.post(url, json=body | {"time": second}).raise_for_status()
        time.sleep(1.2)
        process.stop(signal.SIGKILL)
    with Process(tmp_path) as process:
        (seen,) = httpx.get(f"{process.url}/v1/models/rows/streams").json()["entities"]
        assert seen["rows"] == 20
        again = httpx.post(f"{process.url}/v1/models/rows/streams/a", json=body | {"time": 19})
        assert again.json()["repeated"] == [True]

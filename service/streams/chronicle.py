"""Chronicle: the events that were and are, a table of the streams' SQLite file.

It writes within the transaction of who has the file, and is used by that one's thread.
"""

import sqlite3
from collections.abc import Iterable

import msgspec

from hourglass.service.streams.events import Event

MOST_EVENTS = 100_000  # that are kept; from there on those that ended first are forgotten
# end: NULL while it is open; body: the event in JSON
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, entity TEXT NOT NULL, start REAL NOT NULL,
    end REAL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_of_model ON events (model, start);
CREATE INDEX IF NOT EXISTS events_by_end ON events (end);
"""


class Chronicle:
    """The events in a database that has the SCHEMA."""

    def __init__(self, database: sqlite3.Connection, *, most: int = MOST_EVENTS) -> None:
        self._database, self._most = database, most

    def write(self, events: Iterable[Event]) -> None:
        """Events as they are now; of each id the last is kept."""
        self._database.executemany(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    event.id,
                    event.model,
                    event.entity,
                    event.start.timestamp(),
                    event.end.timestamp() if event.end else None,
                    msgspec.json.encode(event).decode(),
                )
                for event in events
            ],
        )
        (count,) = self._database.execute("SELECT count(*) FROM events").fetchone()
        if count > self._most:
            self._database.execute(
                "DELETE FROM events WHERE id IN"
                " (SELECT id FROM events WHERE end IS NOT NULL ORDER BY end LIMIT ?)",
                (count - self._most,),
            )

    def events(
        self,
        model: str,
        *,
        since: float | None = None,
        entity: str | None = None,
        is_open: bool | None = None,
        most: int = 100,
    ) -> list[Event]:
        """Those of a model that did not end before `since`, those that began last first."""
        found = self._database.execute(
            "SELECT body FROM events WHERE model = :model"
            " AND (:since IS NULL OR end IS NULL OR end >= :since)"
            " AND (:entity IS NULL OR entity = :entity)"
            " AND (:is_open IS NULL OR (end IS NULL) = :is_open)"
            " ORDER BY start DESC, id LIMIT :most",
            {"model": model, "since": since, "entity": entity, "is_open": is_open, "most": most},
        )
        return [_event(body) for (body,) in found]

    def open_events(self) -> list[Event]:
        """Those of all models that are open, those that began first first."""
        found = self._database.execute("SELECT body FROM events WHERE end IS NULL ORDER BY start")
        return [_event(body) for (body,) in found]


def _event(body: str) -> Event:
    return msgspec.json.decode(body, type=Event)

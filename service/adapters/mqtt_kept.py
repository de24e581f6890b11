"""What `hourglass stream --mqtt` knows of its entities, in an SQLite file: their states, and the
values of sensors that wait for the rest of their row.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from hourglass.service.serving.database import Kind, changing, connect
from hourglass.service.streams.state import State

KEPT = Kind(
    "session's file",
    "--session",
    0x4847534D,
    1,
    """
CREATE TABLE IF NOT EXISTS states (entity TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (entity TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
""",
    is_shared=False,
)


class Kept:
    """The file, or a memory where there is no path; errors are sqlite3's."""

    def __init__(self, path: Path | None) -> None:
        self._database: sqlite3.Connection = connect(path, KEPT)

    def states(self) -> dict[str, State]:
        """Of all entities."""
        found = self._database.execute("SELECT entity, body FROM states")
        return {entity: msgspec.msgpack.decode(body, type=State) for entity, body in found}

    def waiting(self) -> Iterable[tuple[str, bytes]]:
        """What waits of each entity, as it was written."""
        return self._database.execute("SELECT entity, body FROM waiting").fetchall()

    def write(self, states: Mapping[str, State], waiting: Mapping[str, bytes | None]) -> None:
        """All of it or nothing; of an entity of which nothing waits None."""
        encode = msgspec.msgpack.encode
        with changing(self._database) as database:
            database.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?)",
                [(entity, encode(state)) for entity, state in states.items()],
            )
            database.executemany(
                "INSERT OR REPLACE INTO waiting VALUES (?, ?)",
                [(entity, body) for entity, body in waiting.items() if body is not None],
            )
            database.executemany(
                "DELETE FROM waiting WHERE entity = ?",
                [(entity,) for entity, body in waiting.items() if body is None],
            )

    def close(self) -> None:
        self._database.close()

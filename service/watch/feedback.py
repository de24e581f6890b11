"""Feedback: what people say of alarms, in the journal's file, where it is only ever added to.

`real` and `expected` are of rows: those of a group that are kept when it is said, or one that was
sent. `mute` is of a pattern, alarms of one model and entity for which the same features are to
blame: until then they open no group and make none grow, but are counted. What was said last holds.
"""

import json
import sqlite3
import time
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from hourglass.service.errors import FullJournal
from hourglass.service.rows.times import time_of

Verdict = Literal["real", "expected", "mute"]
MOST_FEEDBACK = 100_000  # entries of one file
MOST_NOTE = 1000  # characters
SCHEMA = """
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, model TEXT NOT NULL, key TEXT,
    entity TEXT, features TEXT, verdict TEXT NOT NULL, until REAL, note TEXT,
    count INTEGER NOT NULL, rows TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS feedback_by_key ON feedback (key);
CREATE INDEX IF NOT EXISTS feedback_by_pattern ON feedback (model, features);
CREATE TRIGGER IF NOT EXISTS feedback_stays BEFORE UPDATE ON feedback
    BEGIN SELECT RAISE(ABORT, 'feedback is only added to'); END;
CREATE TRIGGER IF NOT EXISTS feedback_is_kept BEFORE DELETE ON feedback
    BEGIN SELECT RAISE(ABORT, 'feedback is only added to'); END;
CREATE TABLE IF NOT EXISTS muted (model TEXT PRIMARY KEY, alarms INTEGER NOT NULL);
"""
# of a group, for a query of groups: the last verdict, and until when its pattern is muted
OF_GROUP = (
    "(SELECT verdict FROM feedback WHERE feedback.key = groups.key AND verdict != 'mute'"
    " ORDER BY id DESC LIMIT 1),"
    " (SELECT until FROM feedback WHERE feedback.model = groups.model AND verdict = 'mute'"
    " AND feedback.features = groups.features AND feedback.entity IS groups.entity"
    " ORDER BY id DESC LIMIT 1)"
)


class Word(NamedTuple):
    """What is said; of a group, or of a row that was sent."""

    verdict: Verdict
    key: str | None
    row: str | None  # JSON
    entity: str | None
    until: float | None  # of mute, seconds since the epoch
    note: str | None


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of a group of alarms, or of a row."""

    id: int
    time: datetime
    verdict: Verdict
    key: str | None  # of the group; null of a row that was sent
    entity: str | None
    features: list[str] | None  # to blame in the group
    until: datetime | None  # of mute
    note: str | None
    rows: int  # whose values are kept with it: what the next fit can learn from


def add(
    database: sqlite3.Connection,
    model: str,
    word: Word,
    features: str | None,
    rows: list[str],
) -> Feedback:
    """Of a pattern, and with rows that are JSON; FullJournal."""
    (count,) = database.execute("SELECT count(*) FROM feedback").fetchone()
    if count >= MOST_FEEDBACK:
        raise FullJournal(f"the journal holds {count:,} entries of feedback, and takes no more")
    now = time.time()
    number = database.execute(
        "INSERT INTO feedback (time, model, key, entity, features, verdict, until, note, count,"
        " rows) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(now, model, word.key, word.entity, features, word.verdict, word.until, word.note),
            *(len(rows), f"[{','.join(rows)}]"),
        ),
    ).lastrowid
    assert number is not None
    return _feedback(
        *(number, now, word.verdict, word.key, word.entity, features, word.until, word.note),
        len(rows),
    )


def newest(database: sqlite3.Connection, model: str, most: int) -> list[Feedback]:
    """What was said last, first."""
    found = database.execute(
        "SELECT id, time, verdict, key, entity, features, until, note, count FROM feedback"
        " WHERE model = ? ORDER BY id DESC LIMIT ?",
        (model, most),
    )
    return [_feedback(*row) for row in found]


def is_muted(
    database: sqlite3.Connection, model: str, entity: str | None, features: str, at: float
) -> bool:
    """Whether alarms of that pattern are, at that time."""
    found = database.execute(
        "SELECT time, until FROM feedback WHERE model = ? AND features = ? AND entity IS ?"
        " AND verdict = 'mute' ORDER BY id DESC LIMIT 1",
        (model, features, entity),
    ).fetchone()
    return found is not None and found[0] <= at < found[1]


def count_muted(database: sqlite3.Connection, model: str, alarms: int) -> None:
    """So many more of them."""
    database.execute(
        "INSERT INTO muted VALUES (?, ?) ON CONFLICT (model) DO UPDATE"
        " SET alarms = alarms + excluded.alarms",
        (model, alarms),
    )


def muted(database: sqlite3.Connection, model: str) -> int:
    """How many alarms were."""
    found = database.execute("SELECT alarms FROM muted WHERE model = ?", (model,)).fetchone()
    return found[0] if found else 0


def said_of_rows(database: sqlite3.Connection, model: str) -> dict[str, Verdict]:
    """Rows as JSON, and what was said of each last, `real` or `expected`; none of a file of before
    there was feedback.
    """
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'feedback'").fetchone():
        return {}
    found = database.execute(
        "SELECT verdict, rows FROM feedback WHERE model = ? AND verdict != 'mute' ORDER BY id",
        (model,),
    )
    return {
        bytes(row).decode(): verdict
        for verdict, rows in found
        for row in msgspec.json.decode(rows, type=list[msgspec.Raw])
    }


def _feedback(
    number: int,
    at: float,
    verdict: Verdict,
    key: str | None,
    entity: str | None,
    features: str | None,
    until: float | None,
    note: str | None,
    rows: int,
) -> Feedback:
    return Feedback(
        id=number,
        time=time_of(at),
        verdict=verdict,
        key=key,
        entity=entity,
        features=None if features is None else json.loads(features),
        until=None if until is None else time_of(until),
        note=note,
        rows=rows,
    )

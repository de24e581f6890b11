"""Drift store: rows of windows that are not complete, and windows that are, in SQLite.

The file is that of the alarms, which several processes write; without one it is memory. Of rows it
holds the codes of their bins, not their values. A window is complete when it has rows enough and is
old enough, and whoever sees it first, in one transaction, closes it.
"""

import sqlite3
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from hourglass.service.serving.database import changing
from hourglass.service.watch.alarms import connect
from hourglass.service.watch.drift_window import DriftWindow
from hourglass.service.watch.reference import Codes, Float32

KEPT_WINDOWS = 50  # of a model
MOST_TIMES = 16  # as many rows as a window needs, of which the oldest give way to newer ones
_SCHEMA = """
CREATE TABLE IF NOT EXISTS drift_pieces (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, began REAL NOT NULL,
    ended REAL NOT NULL, rows INTEGER NOT NULL, share REAL NOT NULL, threshold TEXT NOT NULL,
    codes BLOB NOT NULL, p_values BLOB NOT NULL, alarms BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS drift_pieces_by_model ON drift_pieces (model, version);
CREATE TABLE IF NOT EXISTS drift_windows (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, version TEXT NOT NULL,
    judged TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS drift_windows_by_model ON drift_windows (model, id);
"""


class Piece(NamedTuple):
    """Rows that one process looked at between two writings."""

    model: str
    version: str
    began: float
    ended: float
    share: float  # how likely each scored row was to be among them
    threshold: str  # names the one by which they alarmed
    codes_ND: Codes
    p_value_N: Float32
    alarm_N: "np.ndarray[tuple[int], np.dtype[np.bool_]]"


class Open(NamedTuple):
    """How far a window is that is not complete."""

    began: float
    rows: float  # of one probability
    pieces: int


class DriftStore:
    """The file, or the memory; used by one thread, and opened when it is first used.

    Its errors are sqlite3's.
    """

    def __init__(self, path: Path | None, began: float) -> None:
        self._path, self._began = path, began
        self._connection: sqlite3.Connection | None = None

    def add(self, pieces: Collection[Piece], needed: Callable[[str], int]) -> None:
        """All or none of them; what is of other versions of their models is over."""
        with self.changing() as database:
            for each in pieces:
                database.execute(
                    "DELETE FROM drift_pieces WHERE model = ? AND version != ?",
                    (each.model, each.version),
                )
                database.execute(
                    "INSERT INTO drift_pieces (model, version, began, ended, rows, share,"
                    " threshold, codes, p_values, alarms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        each.model,
                        each.version,
                        each.began,
                        each.ended,
                        len(each.codes_ND),
                        each.share,
                        each.threshold,
                        each.codes_ND.tobytes(),
                        each.p_value_N.tobytes(),
                        each.alarm_N.tobytes(),
                    ),
                )
                self._bound(database, each.model, MOST_TIMES * needed(each.model))

    def open_windows(self) -> dict[tuple[str, str], Open]:
        """By model and version."""
        found = self.database().execute(
            "SELECT model, version, min(began), sum(rows / share) * min(share), count(*)"
            " FROM drift_pieces GROUP BY model, version"
        )
        return {(model, version): Open(*rest) for model, version, *rest in found}

    def pieces(self, model: str, version: str) -> list[Piece]:
        """Of the window that is not complete, in order."""
        found = self.database().execute(
            "SELECT began, ended, rows, share, threshold, codes, p_values, alarms FROM drift_pieces"
            " WHERE model = ? AND version = ? ORDER BY began, id",
            (model, version),
        )
        return [
            Piece(
                model,
                version,
                began,
                ended,
                share,
                threshold,
                np.frombuffer(codes, np.uint8).reshape(rows, -1),
                np.frombuffer(p_values, np.float32),
                np.frombuffer(alarms, np.bool_),
            )
            for began, ended, rows, share, threshold, codes, p_values, alarms in found
        ]

    def close_window(self, model: str, version: str, judged: DriftWindow) -> None:
        """Its pieces make room for what came of them; part of a `changing`."""
        database = self.database()
        database.execute(
            "DELETE FROM drift_pieces WHERE model = ? AND version = ?", (model, version)
        )
        database.execute(
            "INSERT INTO drift_windows (model, version, judged) VALUES (?, ?, ?)",
            (model, version, msgspec.json.encode(judged).decode()),
        )
        database.execute(
            "DELETE FROM drift_windows WHERE model = ? AND id NOT IN"
            " (SELECT id FROM drift_windows WHERE model = ? ORDER BY id DESC LIMIT ?)",
            (model, model, KEPT_WINDOWS),
        )

    def newest(self) -> dict[str, int]:
        """The number of each model's newest window."""
        found = self.database().execute("SELECT model, max(id) FROM drift_windows GROUP BY model")
        return dict(found.fetchall())

    def windows(self, model: str, version: str) -> list[DriftWindow]:
        """Those of a version, the last ones first."""
        found = self.database().execute(
            "SELECT judged FROM drift_windows WHERE model = ? AND version = ? ORDER BY id DESC",
            (model, version),
        )
        return [msgspec.json.decode(judged, type=DriftWindow) for (judged,) in found]

    def forget(self, models: Collection[str]) -> None:
        """Have nothing of these."""
        with self.changing() as database:
            for model in models:
                database.execute("DELETE FROM drift_pieces WHERE model = ?", (model,))
                database.execute("DELETE FROM drift_windows WHERE model = ?", (model,))

    def known(self) -> set[str]:
        """The models of which there is something."""
        found = self.database().execute(
            "SELECT model FROM drift_pieces UNION SELECT model FROM drift_windows"
        )
        return {model for (model,) in found}

    def changing(self) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction; no other process writes meanwhile."""
        return changing(self.database())

    def database(self) -> sqlite3.Connection:
        """The connection."""
        if self._connection is None:
            opened = connect(self._path, self._began)
            try:
                opened.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            except BaseException:
                opened.close()
                raise
            self._connection = opened
        return self._connection

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _bound(self, database: sqlite3.Connection, model: str, most: int) -> None:
        (rows,) = database.execute(
            "SELECT sum(rows) FROM drift_pieces WHERE model = ?", (model,)
        ).fetchone()
        while rows > most:
            first, count = database.execute(
                "SELECT id, rows FROM drift_pieces WHERE model = ? ORDER BY id LIMIT 1", (model,)
            ).fetchone()
            database.execute("DELETE FROM drift_pieces WHERE id = ?", (first,))
            rows -= count

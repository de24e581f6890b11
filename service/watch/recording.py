"""Recording: scored rows as Parquet files, for a retraining to read.

A file has a column for each feature, with its values as they were sent, and beside them what was
answered. Numbers are float32, as the model saw them. record_place.py says where the files lie.
Needs polars (the `files` extra).

Shapes: N rows, D features.
"""

import importlib.util
import os
import re
import secrets
import socket
import time
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidSettings
from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.watch.record_place import SUFFIX, Place, open_place

if TYPE_CHECKING:
    import polars as pl

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

PREFIX = "hourglass_"
TIME = f"{PREFIX}time"  # of the row, in its own unit, or seconds since 1970 when it was scored
ENTITY = f"{PREFIX}entity"
ALARM = f"{PREFIX}alarm"
# the names of features of which the row holds a category that the model does not know, by commas;
# the cell itself is empty then
UNKNOWN = f"{PREFIX}unknown"
VERSION, SCORE, P_VALUE = f"{PREFIX}version", f"{PREFIX}score", f"{PREFIX}p_value"
ANSWERS = (TIME, ENTITY, VERSION, SCORE, P_VALUE, ALARM, UNKNOWN)


class Recorded(NamedTuple):
    """Rows of one model that were scored, [N] each but for the rows [N, D]."""

    rows_ND: Float32
    time_N: Float64
    score_N: Float32  # NaN where the model could not judge
    p_value_N: Float32
    alarm_N: NDArray[np.bool_]
    entities: Sequence[str | None]


class Recording:
    """The files of a place; its errors are OSError, ValueError and polars'. `most_bytes` are kept
    of all models together.
    """

    def __init__(self, place: Place, *, most_bytes: int) -> None:
        self._place, self._most_bytes = place, most_bytes
        self._writer = f"{re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())}-{os.getpid()}"

    def write(
        self, model: str, version: str, features: Sequence[Feature], parts: Sequence[Recorded]
    ) -> None:
        """Rows of one version, as one file."""
        buffer = BytesIO()
        frame_of(version, features, joined(parts)).write_parquet(buffer)
        at = time.strftime("%Y-%m-%d/%H%M%S", time.gmtime())
        name = f"{model}/{at}-{self._writer}-{secrets.token_hex(4)}{SUFFIX}"
        self._place.put(name, buffer.getbuffer())

    def bound(self) -> int:
        """Take the oldest files away where there are too many bytes; how many went."""
        sizes = self._place.sizes()
        total, gone = sum(sizes.values()), 0
        for key in sorted(sizes, key=lambda key: key.split("/")[1:]):  # by day and time
            if total <= self._most_bytes:
                break
            gone += self._place.remove(key)
            total -= sizes[key]
        return gone


def joined(parts: Sequence[Recorded]) -> Recorded:
    """All of their rows, in order."""
    if len(parts) == 1:
        return parts[0]
    return Recorded(
        rows_ND=np.concatenate([each.rows_ND for each in parts]),
        time_N=np.concatenate([each.time_N for each in parts]),
        score_N=np.concatenate([each.score_N for each in parts]),
        p_value_N=np.concatenate([each.p_value_N for each in parts]),
        alarm_N=np.concatenate([each.alarm_N for each in parts]),
        entities=[entity for each in parts for entity in each.entities],
    )


def frame_of(version: str, features: Sequence[Feature], recorded: Recorded) -> "pl.DataFrame":
    """Rows as a table: a column for each feature, and the answers'. ValueError where a feature has
    the name of an answer's column.
    """
    import polars as pl

    if taken := {feature.name for feature in features}.intersection(ANSWERS):
        raise ValueError(f"a feature has the name of what is recorded beside it: {min(taken)}")
    unknown: list[list[str]] = [[] for _ in recorded.rows_ND]
    columns = []
    for feature, column_N in zip(features, recorded.rows_ND.T, strict=True):
        column = pl.Series(feature.name, np.ascontiguousarray(column_N)).fill_nan(None)
        if feature.kind == "boolean":
            column = column >= 0.5
        if feature.kind == "categorical":
            for row in np.flatnonzero(column_N == UNSEEN).tolist():
                unknown[row].append(feature.name)
            names = pl.Series(feature.categories, dtype=pl.String)
            code = column.to_frame().select(
                pl.when(pl.first() >= 0).then(pl.first().cast(pl.Int64))
            )
            column = names.gather(code.to_series()).alias(feature.name)
        columns.append(column)
    answers = {
        TIME: recorded.time_N,
        ENTITY: pl.Series(recorded.entities, dtype=pl.String),
        VERSION: pl.repeat(version, len(recorded.rows_ND), eager=True),
        SCORE: pl.Series(recorded.score_N).fill_nan(None),
        P_VALUE: pl.Series(recorded.p_value_N).fill_nan(None),
        ALARM: recorded.alarm_N,
        UNKNOWN: pl.Series([",".join(names) or None for names in unknown], dtype=pl.String),
    }
    return pl.DataFrame(columns).hstack(pl.DataFrame(answers))


def prepare(url: str) -> None:
    """InvalidSettings where nothing can be recorded there."""
    place = open_place(url)
    if importlib.util.find_spec("polars") is None:
        raise InvalidSettings("--record needs polars: pip install 'hourglass[files]'")
    try:
        place.check()
    except OSError as error:
        raise InvalidSettings(
            f"--record is {url!r}: nothing can be written there ({error.strerror})"
        ) from error

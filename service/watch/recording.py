"""Recording: scored rows as Parquet files in a folder, for a retraining to read.

    FOLDER/<model>/<day>/<time>-<host>-<process>-<random>.parquet

A file is written under another name and moved in when it is whole: whoever reads sees closed files
alone. It has a column for each feature, with its values as they were sent, and beside them what was
answered. Numbers are float32, as the model saw them. Needs polars (the `files` extra).

Shapes: N rows, D features.
"""

import importlib.util
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidSettings
from hourglass.service.model.artifact import UNSEEN, Feature

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
SUFFIX = ".parquet"
STALE_SECONDS = 86400.0  # after which a half-written file is nobody's any more
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://")


class Recorded(NamedTuple):
    """Rows of one model that were scored, [N] each but for the rows [N, D]."""

    rows_ND: Float32
    time_N: Float64
    score_N: Float32  # NaN where the model could not judge
    p_value_N: Float32
    alarm_N: NDArray[np.bool_]
    entities: Sequence[str | None]


class Recording:
    """The folder; its errors are OSError, ValueError and polars'. `most_bytes` are kept of all
    models together.
    """

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._writer = f"{re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())}-{os.getpid()}"

    def write(
        self, model: str, version: str, features: Sequence[Feature], parts: Sequence[Recorded]
    ) -> None:
        """Rows of one version, as one file."""
        buffer = BytesIO()
        frame_of(version, features, joined(parts)).write_parquet(buffer)
        day, at = time.strftime("%Y-%m-%d %H%M%S", time.gmtime()).split()
        folder = self._folder / model / day
        for each in (self._folder, folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{at}-{self._writer}-{secrets.token_hex(4)}{SUFFIX}"
        descriptor, scratch = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            Path(scratch).replace(folder / name)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def bound(self) -> int:
        """Take the oldest files away where there are too many bytes; how many went."""
        found, total, gone = [], 0, 0
        for path in self._folder.glob("*/*/*"):
            with suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                if path.suffix == SUFFIX and not path.name.startswith("."):
                    found.append((status.st_mtime, path, status.st_size))
                    total += status.st_size
                elif path.name.startswith(".") and status.st_mtime < time.time() - STALE_SECONDS:
                    path.unlink(missing_ok=True)  # of a process that was killed
        for _, path, size in sorted(found):
            if total <= self._most_bytes:
                break
            with suppress(FileNotFoundError):
                path.unlink()
                gone += 1
            total -= size
            with suppress(OSError):  # it holds others
                path.parent.rmdir()
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


def folder_of(url: str) -> Path:
    """Where `--record` leads: a path, or a file:// URL; InvalidSettings of anything else."""
    if _SCHEME.match(url) is None:
        return Path(url)
    split = urlsplit(url)
    if split.scheme != "file" or split.netloc not in ("", "localhost"):
        raise InvalidSettings(
            f"--record is {url!r}: expected a folder, or file:///FOLDER; buckets are not written"
        )
    return Path(unquote(split.path))


def prepare(url: str) -> None:
    """InvalidSettings where nothing can be recorded there."""
    folder = folder_of(url)
    if importlib.util.find_spec("polars") is None:
        raise InvalidSettings("--record needs polars: pip install 'hourglass[files]'")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidSettings(
            f"--record is {url!r}: nothing can be written there ({error.strerror})"
        ) from error

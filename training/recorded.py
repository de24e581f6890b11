"""Recorded: rows that the service has recorded, as a table that a run can read.

`hourglass serve --record FOLDER` writes them, in a folder for each model;
service/watch/recording.py says what is in them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature
from hourglass.service.rows.tables import encode_table
from hourglass.service.watch.record_place import SUFFIX, Bucket, is_bucket
from hourglass.service.watch.recording import ALARM, ANSWERS, TIME, UNKNOWN
from hourglass.training.errors import RunError
from hourglass.training.parquet import columns_of, files_below

MOST_NAMED = 5


def is_recording(data: str) -> bool:
    """Whether the data of a run is a bucket, or a folder that is none of other Parquet files."""
    if is_bucket(data):
        return True
    if not Path(data).is_dir():
        return False
    first = next(iter(files_below(Path(data))), None)
    return first is None or {*ANSWERS} <= columns_of(first)


def read_recording(data: str, name: str) -> pl.DataFrame:
    """All rows of a model, those of older files first, with the columns of the answers; RunError
    where there are none, or files do not go together.
    """
    frames = {}
    for path, read in _files(data, name):
        try:
            frames[path] = pl.read_parquet(read(), hive_partitioning=False)
        except FileNotFoundError:  # it just made room for a newer one
            continue
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RunError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not frames:
        raise RunError(
            f"{data} holds no Parquet files, and no recorded rows of {name!r}: expected"
            f" {data.rstrip('/')}/{name}/DAY/*{SUFFIX} of hourglass serve --record"
        )
    newest, last = list(frames.items())[-1]
    for path, frame in frames.items():
        if absent := [column for column in ANSWERS if column not in frame.columns]:
            raise RunError(
                f"{path} was not written by hourglass serve --record: it lacks {absent[0]}"
            )
        if frame.schema != last.schema:
            differing = sorted({each for each, _ in frame.schema.items() ^ last.schema.items()})
            raise RunError(
                f"{path} holds other columns than {newest} (differing:"
                f" {', '.join(differing[:MOST_NAMED]) or 'their order'}): it is of another model of"
                " that name; take it away"
            )
    return pl.concat(frames.values())


def newest_time(frame: pl.DataFrame) -> float:
    """Of recorded rows, as they were recorded."""
    return float(frame[TIME].max())  # type: ignore[arg-type]  # of numbers, some at least


def alarms_of(frame: pl.DataFrame, features: Sequence[Feature]) -> NDArray[np.float32]:
    """[A, D] those of recorded rows at which the version in service then alarmed."""
    return encode_table(frame.filter(pl.col(ALARM)), features)


def say_unknown(frame: pl.DataFrame) -> str | None:
    """A sentence where rows held categories that were not known; they are missing here."""
    rows = frame[UNKNOWN].count()
    if not rows:
        return None
    names = sorted(
        {each for said in frame[UNKNOWN].drop_nulls().unique() for each in said.split(",")}
    )
    return (
        f"{rows:,} of {frame.height:,} recorded rows hold a category that the model in service did"
        f" not know (of {', '.join(names[:MOST_NAMED])}): what it was is not recorded, and is"
        " missing here"
    )


def _files(data: str, name: str) -> list[tuple[str, Callable[[], Path | BytesIO]]]:
    """Those of a model in a place of several, or those of the folder of one, by day and time: the
    path of each, and what reads it.
    """
    if is_bucket(data):
        place = Bucket(data)
        try:
            keys = sorted(key for key in place.sizes() if key.startswith(f"{name}/"))
        except OSError as error:
            raise RunError(str(error.strerror)) from error
        return [(f"{data}/{key}", lambda key=key: BytesIO(place.read(key))) for key in keys]  # type: ignore[misc]
    own = Path(data) / name
    found = (own if own.is_dir() else Path(data)).glob(f"*/[!.]*{SUFFIX}")
    ordered = sorted(found, key=lambda path: path.parts[-2:])
    return [(str(path), partial(Path, path)) for path in ordered]

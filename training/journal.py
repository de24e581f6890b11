"""Journal: what the service kept of a model's answers, as rows that a run can compare with its own.

The service keeps the last rows of each group of alarms, and some rows that did not alarm. Alarms
whose groups a person confirmed are anomalies; the others may be anything.

Shapes: A alarms, K confirmed rows, O ordinary rows, N rows, D features.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature
from hourglass.service.rows.tables import encode_table
from hourglass.service.watch.alarms import read_rows
from hourglass.training.errors import RunError
from hourglass.training.fingerprints import hash_rows

KINDS = {"numeric": pl.Float64, "boolean": pl.Boolean, "categorical": pl.String}

Float32 = NDArray[np.float32]


class Journal(NamedTuple):
    """Rows as the model in service encodes them."""

    alarms_AD: Float32
    confirmed_KD: Float32
    ordinary_OD: Float32
    exclude_alarms: bool  # leave all alarms out of the fit, not the confirmed ones alone

    def left_out(self, rows_ND: Float32) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """[N] each: rows that equal a confirmed anomaly, and those that equal another alarm and are
        to be left out for that.
        """
        confirmed_N = _are_among(rows_ND, self.confirmed_KD)
        if not self.exclude_alarms:
            return confirmed_N, np.zeros(len(rows_ND), dtype=bool)
        return confirmed_N, _are_among(rows_ND, self.alarms_AD) & ~confirmed_N


def read_journal(
    path: Path,
    model: str,
    features: Sequence[Feature],
    *,
    confirmed: Sequence[str],
    exclude_alarms: bool,
    ordinary_since: float = 0.0,
) -> Journal:
    """What a service's file has of a model, of ordinary rows those since a time, in seconds since
    1970; RunError or HourglassError where it has nothing to compare rows with.
    """
    rows = read_rows(path, model, confirmed, ordinary_since=ordinary_since)
    if not rows.alarms and (confirmed or exclude_alarms):
        raise RunError(
            f"the journal {path} has no row of an alarm of {model}: none was raised, or the service"
            " keeps no values"
        )
    return Journal(
        _encode(rows.alarms, features, path),
        _encode(rows.confirmed, features, path),
        _encode(rows.ordinary, features, path),
        exclude_alarms,
    )


def with_alarms(journal: Journal | None, alarms_AD: Float32) -> Journal:
    """The same with more alarms, which are to be left out; of none these alone."""
    none_0D = alarms_AD[:0]
    known = journal or Journal(none_0D, none_0D, none_0D, exclude_alarms=True)
    return known._replace(alarms_AD=np.concatenate([known.alarms_AD, alarms_AD]))


def _encode(rows: Sequence[str], features: Sequence[Feature], path: Path) -> Float32:
    """[N, D] of rows in JSON; those of an earlier model that had other features are left out."""
    values = [json.loads(row) for row in rows]
    table = [row for row in values if len(row) == len(features)]
    columns = zip(*table, strict=True) if table else ((),) * len(features)
    try:
        frame = pl.DataFrame(
            [
                pl.Series(feature.name, list(column), dtype=KINDS[feature.kind])
                for feature, column in zip(features, columns, strict=True)
            ]
        )
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise RunError(
            f"the journal {path} holds alarms of a model with features of other kinds: {error}"
        ) from error
    return encode_table(frame, features)


def _are_among(rows_ND: Float32, others_MD: Float32) -> NDArray[np.bool_]:
    """[N] equal in every cell to one of the others."""
    return np.isin(hash_rows(rows_ND, b"journal"), hash_rows(others_MD, b"journal"))

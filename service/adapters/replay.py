"""What other false-alarm budgets would have done with the rows of a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from hourglass.service.adapters.files import CHUNK_ROWS, as_columns, require_order, stretches_of
from hourglass.service.errors import InvalidTable
from hourglass.service.model.replay import Interval, RowsOutcome, replay, thresholds
from hourglass.service.model.served import Served
from hourglass.service.rows.dialect import USUAL, Dialect
from hourglass.service.rows.ordered import in_places, score_stretches
from hourglass.service.rows.tables import encode_table, read_rows
from hourglass.service.serving.disk import write_atomically

if TYPE_CHECKING:
    import polars as pl

Float32 = NDArray[np.float32]


class ReplayedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What each budget does with a file's rows, which count from 0."""

    model: str
    version: str
    data: str
    rows: int
    refused_rows: int  # hold too few values, or values too far out, and have no score
    warming_rows: int  # of a model of ordered rows: too few come before them to judge them
    alphas: list[RowsOutcome]


def replay_file(
    served: Served,
    data: Path,
    dialect: Dialect = USUAL,
    *,
    alphas: Sequence[float] = (),
    label: str | None = None,
    normal: str | None = None,
    rows_per_day: float | None = None,
    time: str | None = None,
    entity: str | None = None,
    progress: Callable[[int, int], None],
) -> ReplayedFile:
    """Score the file's rows and hold them against each alpha; of none, against the usual ones.

    `label` is a column that tells anomalies from normal rows, whose value is 0, false or `normal`;
    `time` and `entity` say, of a windowed model, which rows follow each other.
    """
    features, table = served.schema.features, served.detector.table
    budgets = thresholds(table, served.threshold, alphas)
    require_order(served, time=time, entity=entity)
    frame = read_rows(data, features, dialect, time=time, entity=entity)
    labels_N = None if label is None else _labels(frame, label, normal)
    rows_ND = encode_table(frame, features, dialect)
    score_N = np.full(len(rows_ND), np.nan, np.float32)
    warming_N, order_N = np.zeros(len(rows_ND), np.bool_), None
    if served.detector.window > 1:
        stretches = stretches_of(served, frame, time, entity)
        order_N = np.concatenate([stretch.rows_T for stretch in stretches])
        runs = score_stretches(served, rows_ND, stretches)
        (score_N, *_), warming_N = in_places(len(rows_ND), runs)
    else:
        for start in range(0, len(rows_ND), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            score_N[part] = served.detector.score(rows_ND[part]).score
            if len(rows_ND) > CHUNK_ROWS:
                progress(min(start + CHUNK_ROWS, len(rows_ND)), len(rows_ND))
    known_N = np.isfinite(score_N) & served.schema.has_enough(rows_ND)
    score_N[~known_N] = np.nan
    return ReplayedFile(
        model=served.name,
        version=served.detector.version,
        data=str(data),
        rows=int(known_N.sum()),
        refused_rows=int((~known_N & ~warming_N).sum()),
        warming_rows=int(warming_N.sum()),
        alphas=replay(
            table,
            served.threshold,
            budgets,
            score_N,
            labels_N=labels_N,
            rows_per_day=rows_per_day,
            order_N=order_N,
        ),
    )


def write_replay(replayed: ReplayedFile, path: Path) -> None:
    """Write it as JSON, whole or not at all."""
    if path.suffix.lower() != ".json":
        raise InvalidTable(f"{path} is not .json, which is what a replay is written as")
    try:
        write_atomically(path, msgspec.json.format(msgspec.json.encode(replayed), indent=2) + b"\n")
    except OSError as error:
        raise InvalidTable(f"{path} cannot be written: {error.strerror or error}") from error


def summarise(replayed: ReplayedFile) -> str:
    """A line for each budget."""
    outcomes = replayed.alphas
    labelled = bool(outcomes) and outcomes[0].precision is not UNSET
    per_day = bool(outcomes) and outcomes[0].alarms_per_day is not UNSET
    lines = [
        ["alpha", "promised", "alarms", "share of rows", "episodes", "longest"]
        + ["alarms a day"] * per_day
        + ["precision", "recall", "false alarms"] * labelled
    ]
    for outcome in outcomes:
        longest = max((episode.rows for episode in outcome.episodes), default=0)
        lines.append(
            [
                f"{outcome.alpha:g}{' (in force)' if outcome.in_force else ''}",
                f"{outcome.promised:.2%}",
                str(outcome.alarms),
                _share(outcome.alarm_rate, outcome.interval),
                str(len(outcome.episodes)),
                f"{longest} rows" if longest else "",
            ]
        )
        if per_day:
            lines[-1].append(f"{outcome.alarms_per_day or 0:.3g}")
        if labelled:
            lines[-1] += [
                _share(outcome.precision, outcome.precision_interval),
                _share(outcome.recall, outcome.recall_interval),
                _share(outcome.false_alarm_rate, outcome.false_alarm_interval),
            ]
    head = f"{replayed.rows} rows scored by {replayed.model}, version {replayed.version[:12]}"
    if replayed.refused_rows:
        head += (
            f"; {replayed.refused_rows} hold too few values, or values too far out, and have no"
            " score"
        )
    if replayed.warming_rows:
        head += f"; {replayed.warming_rows} have too few rows before them"
    return f"{head}\n\n{as_columns(lines)}\n\nin brackets what the share may be, with 95 %"


def _share(rate: object, interval: Interval | object) -> str:
    if not isinstance(rate, float) or not isinstance(interval, tuple):
        return "-"
    low, high = interval
    return f"{rate:.2%} ({low:.2%} to {high:.2%})"


def _labels(frame: "pl.DataFrame", label: str, normal: str | None) -> NDArray[np.float64]:
    """1 of an anomaly, 0 of a normal row, NaN where there is no label."""
    import polars as pl

    if label not in frame.columns:
        names = ", ".join(map(repr, frame.columns[:20]))
        raise InvalidTable(f"there is no column {label!r} to be the label; the columns are {names}")
    column = frame[label]
    if column.dtype.is_float():
        column = column.fill_nan(None)
    known_N = column.is_not_null().to_numpy()
    if normal is not None:
        said = column.cast(pl.String, strict=False).str.strip_chars()
        if column.dtype.is_numeric():
            normal, said = normal.removesuffix(".0"), said.str.replace(r"\.0$", "")
        is_normal = said.str.to_lowercase() == normal.strip().lower()
    elif column.dtype.is_numeric() or column.dtype == pl.Boolean:
        is_normal = column.cast(pl.Float64) == 0
    else:
        found = ", ".join(map(repr, column.drop_nulls().unique().sort().head(5).to_list()))
        raise InvalidTable(
            f"label column {label!r}: expected 0 for normal rows, got {found}; --normal VALUE names"
            " the normal one"
        )
    normal_N = is_normal.fill_null(value=False).to_numpy()
    if not normal_N.any() and normal is not None:
        raise InvalidTable(f"label column {label!r}: no row has the normal value {normal!r}")
    return np.where(known_N, np.where(normal_N, 0.0, 1.0), np.nan)

"""CSV and Parquet in: which columns are features, of what kind, and which rows are normal."""

import shlex
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.errors import InvalidTable
from hourglass.service.model.artifact import Feature
from hourglass.service.rows.dialect import USUAL, Dialect
from hourglass.service.rows.numerals import as_missing, misread, shorten, to_numbers
from hourglass.service.rows.tables import (
    CODE,
    FLOAT32_MAX,
    MOST_NAMED,
    encode_table,
    first_value,
    refusals,
    require_finite,
)
from hourglass.service.rows.times import is_clock as are_unix
from hourglass.service.rows.times import to_seconds
from hourglass.training.columns import (
    equals_label,
    holds_dates,
    no_feature,
    suspect_order,
    suspect_sentinel,
)
from hourglass.training.errors import RunError
from hourglass.training.labels import is_anomalous
from hourglass.training.parquet import Parquet
from hourglass.training.sums import Measures, measure

TEXT = (pl.String, pl.Categorical, pl.Enum)
EXPECTED = "expected numbers, true/false or text"

LONGEST_CATEGORY = 1000  # characters
MOST_WORDS = 8  # among the numbers of a column, that a message has all of
FEWEST_UNITS, UNITS_OVER = 2, 2  # columns with a unit in the first row, over more cells than these
STEPS = 8  # of float32 that a standard deviation has to be, or rounding is what is seen


OddKind = Literal["leaking", "id-like", "sentinel", "sorted", "empty"]
# what is said of a column that stays a feature
SUSPECTED: dict[OddKind, Callable[[pl.Series], str | None]] = {
    "sentinel": suspect_sentinel,
    "sorted": suspect_order,
}


class Oddity(NamedTuple):
    """What is wrong with one column, as its values show."""

    kind: OddKind
    column: str
    text: str  # a sentence


class History(NamedTuple):
    """H rows in order of time that windows look back at, and nothing is learnt from."""

    rows_HD: NDArray[np.float32]
    number_H: NDArray[np.int64]  # in the file, from 1 without the header
    time_H: NDArray[np.float64]
    entity_H: NDArray[np.int64]
    is_anomaly_H: NDArray[np.bool_]  # by their label

    def beside(self, others: "History") -> "History":
        """These rows, then the others."""
        return History(
            np.concatenate([self.rows_HD, others.rows_HD]),
            np.concatenate([self.number_H, others.number_H]),
            np.concatenate([self.time_H, others.time_H]),
            np.concatenate([self.entity_H, others.entity_H]),
            np.concatenate([self.is_anomaly_H, others.is_anomaly_H]),
        )


class Undrawn(NamedTuple):
    """The normal rows of a table that memory need not hold which were not drawn."""

    table: Parquet
    rows_R: NDArray[np.bool_]  # of all R rows of the table, those
    dialect: Dialect


class Data(NamedTuple):
    """N rows, A anomalies, D features."""

    features: tuple[Feature, ...]
    normal_ND: NDArray[np.float32]
    anomalies_AD: NDArray[np.float32]  # [0, D] without a label column
    number_N: NDArray[np.int64]  # of the normal rows in the file, from 1 without the header
    time_N: NDArray[np.float64] | None = None  # of the normal rows; None without a time column
    group_N: NDArray[np.int64] | None = None  # a number for each group, of the normal rows
    warnings: tuple[str, ...] = ()  # sentences a person should read
    oddities: tuple[Oddity, ...] = ()  # of columns; the warnings name them, too
    group_names: tuple[str, ...] = ()  # by the numbers of group_N
    entity_N: NDArray[np.int64] | None = None  # a number for each entity, of the normal rows
    entity_names: tuple[str, ...] = ()  # by these numbers; none without a column of them
    is_clock: bool = False  # whether the times are seconds since 1970, or other numbers that grow
    history: History | None = None  # of rows in order, those that are not normal; else None
    undrawn: Undrawn | None = None  # rows drawn singly that sums are over as well

    def without(self, left_out_N: NDArray[np.bool_]) -> "Data":
        """The same but for some of the normal rows."""
        kept_N, history = ~left_out_N, self.history
        if history is not None:
            assert self.time_N is not None
            assert self.entity_N is not None
            gone = History(
                self.normal_ND[left_out_N],
                self.number_N[left_out_N],
                self.time_N[left_out_N],
                self.entity_N[left_out_N],
                np.zeros(int(left_out_N.sum()), dtype=bool),
            )
            history = history.beside(gone)
        return self._replace(
            history=history,
            # of rows that were not drawn nobody knows which are as strange
            undrawn=None if left_out_N.any() else self.undrawn,
            entity_N=None if self.entity_N is None else self.entity_N[kept_N],
            normal_ND=self.normal_ND[kept_N],
            number_N=self.number_N[kept_N],
            time_N=None if self.time_N is None else self.time_N[kept_N],
            group_N=None if self.group_N is None else self.group_N[kept_N],
        )


def prepare(
    frame: pl.DataFrame | Parquet,
    *,
    label: str | None = None,
    ignore: tuple[str, ...] = (),
    units: dict[str, str] | None = None,
    max_categories: int = 100,
    time: str | None = None,
    group: str | None = None,
    exclude: Sequence[int] = (),
    normal: str | None = None,
    keep: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    dialect: Dialect = USUAL,
    max_rows: int | None = None,
    seed: int = 0,
    entity: str | None = None,
    ordered: bool = False,
) -> Data:
    """A table -> features with their kinds, and float32 rows; the excluded ones, by their numbers
    from 1, are neither normal nor anomalous. `normal` is the label of normal rows, `keep` names
    columns that are features whatever they look like, `categorical` those that are categories; of
    more than `max_rows` normal rows, or anomalous ones, so many are drawn. Of rows that are
    `ordered` by their time the newest are taken, and what is not normal is the others' history.

    RunError or InvalidTable names the column and row (from 1).
    """
    named = [column for column in (label, time, group, entity) if column]
    for column in (*named, *ignore, *(units or {}), *keep, *categorical):
        if column not in frame.columns:
            raise RunError(
                f"there is no column {column!r}; the columns are {_names(frame.columns)}"
            )
    coded = [column for column in categorical if _is_coded(frame[column])]
    frame = frame.cast(dict.fromkeys(coded, pl.String()))
    anomalous_N = (
        is_anomalous(frame, label, normal) if label else np.zeros(frame.height, dtype=bool)
    )
    no_features, certain = {*named, *ignore}, {*keep, *categorical}
    columns = [column for column in frame.columns if column not in no_features]
    asked = [column for column in columns if column not in certain]
    oddities = _look_for_no_features(frame, asked, label, anomalous_N)
    left_out, warnings = {each.column for each in oddities}, [each.text for each in oddities]
    columns = [column for column in columns if column not in left_out]
    if not columns:
        raise RunError("; ".join(["no feature columns are left", *warnings]))
    excluded_N = np.zeros(frame.height, dtype=bool)
    excluded_N[np.asarray(exclude, dtype=np.int64) - 1] = True
    normal_N = ~anomalous_N & ~excluded_N
    mask = pl.Series(normal_N)
    _refuse_units_row(frame, columns, dialect)
    features, refused = [], dict[str, Exception]()
    for column in columns:
        cells = frame[column]
        try:
            feature = _infer(
                cells,
                cells.filter(mask),
                (units or {}).get(column),
                max_categories,
                dialect,
                as_text=column in categorical,
                warnings=warnings,
            )
            require_finite(cells)
        except (RunError, InvalidTable) as error:
            refused[column] = error
            continue
        features.append(feature)
        for kind, suspect in SUSPECTED.items():
            if column not in certain and (sentence := suspect(cells)):
                oddities.append(Oddity(kind, column, sentence))
                warnings.append(sentence)
        if cells.null_count() == frame.height:
            sentence = (
                f"column {shorten(column)!r} is empty in all rows: any value in it later is an"
                f" anomaly; --ignore {shorten(column)!r} leaves it out"
            )
            oddities.append(Oddity("empty", column, sentence))
            warnings.append(sentence)
    if len(refused) == 1:
        raise refused.popitem()[1]
    if refused:
        lines = [*refusals(refused, "columns cannot be features as they are")]
        if len(refused) <= MOST_NAMED:
            lines.append(f"--ignore {shlex.join(refused)} leaves out all of them")
        raise RunError("\n".join(lines))
    drawn_N = np.full(frame.height, ordered)
    if ordered and max_rows is not None and frame.height > max_rows:
        assert time is not None
        drawn_N[np.argsort(-times(frame[time]), kind="stable")[max_rows:]] = False
        warnings.append(
            f"the newest {max_rows:,} of the {frame.height:,} rows are used; max_rows in the run's"
            " file sets how many"
        )
    for rows_N, noun in ((normal_N, "normal"), (anomalous_N & ~excluded_N, "anomalous")):
        rows, count = np.flatnonzero(rows_N), int(rows_N.sum())
        if ordered:
            break
        if max_rows is not None and count > max_rows:
            rows = np.random.default_rng(seed).permutation(rows)[:max_rows]
            warnings.append(
                f"{max_rows:,} of the {count:,} {noun} rows, drawn at random, are used; max_rows in"
                " the run's file sets how many"
            )
        drawn_N[rows] = True
    undrawn_N = normal_N & ~drawn_N
    undrawn = None
    if isinstance(frame, Parquet) and undrawn_N.any() and not (time or group):
        undrawn = Undrawn(frame, undrawn_N, dialect)
    if isinstance(frame, pl.DataFrame) and drawn_N.all():
        drawn = frame
    else:
        drawn = frame.filter(pl.Series(drawn_N))
    rows_ND = encode_table(drawn, features, dialect)
    normal_N, is_anomaly_N = normal_N[drawn_N], (anomalous_N & ~excluded_N)[drawn_N]
    number_N = np.flatnonzero(drawn_N) + 1
    time_N = times(drawn[time]) if time else None
    entity_N = groups(drawn[entity]) if entity else np.zeros(drawn.height, dtype=np.int64)
    rest_N, history = ~normal_N, None
    if ordered:
        assert time_N is not None
        of_rest = [each[rest_N] for each in (rows_ND, number_N, time_N, entity_N, is_anomaly_N)]
        history = History(*of_rest)
    return Data(
        tuple(features),
        rows_ND if normal_N.all() else rows_ND[normal_N],
        rows_ND[is_anomaly_N],
        number_N[normal_N],
        None if time_N is None else time_N[normal_N],
        groups(drawn[group])[normal_N] if group else None,
        tuple(warnings),
        tuple(oddities),
        group_names(drawn[group]) if group else (),
        entity_N[normal_N],
        group_names(drawn[entity]) if entity else (),
        time is not None and time_N is not None and is_clock(drawn[time], time_N),
        history,
        undrawn,
    )


def _refuse_units_row(frame: pl.DataFrame | Parquet, columns: list[str], dialect: Dialect) -> None:
    """RunError where several columns hold numbers but for text in the first row."""
    units = {}
    for column in frame.select([name for name in columns if frame.schema[name] == pl.String]):
        if column[0] is not None and column.count() > UNITS_OVER:
            no_number = to_numbers(column, dialect).is_null() & column.is_not_null()
            if no_number[0] and no_number.sum() == 1:
                units[column.name] = column[0]
    if len(units) < FEWEST_UNITS:
        return
    named, cells = _names(list(units), 3), shlex.join(dict.fromkeys(units.values()))
    corner = frame[frame.columns[0]][0]
    start = str(corner)[:1]
    way = f"--null {cells} reads its cells as missing"
    if isinstance(corner, str) and start.isalpha() and start != frame.columns[0][:1]:
        way = f"--comment {start} leaves out lines of a CSV that begin so"
    raise RunError(
        f"row 1 holds {cells} where all other rows hold numbers (columns {named}), as a line of"
        f" units does: delete it, or {way}"
    )


def _look_for_no_features(
    frame: pl.DataFrame | Parquet,
    columns: list[str],
    label: str | None,
    anomalous_N: NDArray[np.bool_],
) -> list[Oddity]:
    """The columns that are left out, and a sentence about each."""
    found = []
    for column in frame.select(columns):
        kind: OddKind = "id-like"
        why = no_feature(column)
        if why is None and label and equals_label(column, anomalous_N):
            kind = "leaking"
            why = f"it tells the anomalies of {label!r} from all normal rows, as the label does"
        if why is not None:
            name = repr(shorten(column.name))
            text = f"column {name} is left out: {why}; --keep {name} makes it a feature"
            found.append(Oddity(kind, column.name, text))
    return found


def times(column: pl.Series) -> NDArray[np.float64]:
    """[N] of dates and times, in any form polars reads, the seconds since 1970; numbers as they
    are: Unix time, or anything that grows.
    """
    try:
        return to_seconds(column)
    except InvalidTable as error:
        raise RunError(str(error)) from error


def is_clock(column: pl.Series, time_N: NDArray[np.float64]) -> bool:
    """Whether the times of a column are dates, or numbers that may be seconds since 1970."""
    if column.dtype in (pl.Duration, pl.Time):
        return False
    is_number = column.dtype.is_numeric()
    if column.dtype in TEXT:
        text = column.cast(pl.String).str.strip_chars()
        is_number = text.cast(pl.Float64, strict=False).null_count() < len(text)
    return not is_number or are_unix(time_N)


def groups(column: pl.Series) -> NDArray[np.int64]:
    """[N] a number for each distinct value; a missing value is one, too."""
    return column.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64).to_numpy() - 1


def group_names(column: pl.Series) -> tuple[str, ...]:
    """What the numbers of `groups` stand for."""
    return tuple(column.cast(pl.String).fill_null("").unique().sort().to_list())


def describe(features: tuple[Feature, ...], rows_ND: NDArray[np.float32]) -> tuple[Feature, ...]:
    """The features with missing rate and range as seen in the fit rows."""
    return describe_by(features, measure(rows_ND))


def describe_by(features: tuple[Feature, ...], measures: Measures) -> tuple[Feature, ...]:
    """The same of fit rows that have been measured."""
    described = []
    for d, feature in enumerate(features):
        seen = int(measures.seen_D[d])
        described.append(
            Feature(
                name=feature.name,
                kind=feature.kind,
                unit=feature.unit,
                categories=feature.categories,
                missing_rate=(measures.rows - seen) / measures.rows,
                minimum=float(measures.least_D[d]) if seen else None,
                maximum=float(measures.largest_D[d]) if seen else None,
            )
        )
    return tuple(described)


def _is_coded(column: pl.Series) -> bool:
    """Whether what is to be categories is numbers or true/false, to be as a CSV would hold it."""
    if column.dtype.is_integer() or column.dtype == pl.Boolean:
        return True
    if column.dtype.is_numeric():
        row, value = first_value(column)
        raise RunError(
            f"column {column.name!r}, row {row}: expected text or whole numbers to be categories,"
            f" got {value!r}"
        )
    return False


def _names(columns: list[str], most: int = 20) -> str:
    left_out = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(map(repr, columns[:most])) + left_out


def _infer(
    column: pl.Series,
    normal: pl.Series,
    unit: str | None,
    max_categories: int,
    dialect: Dialect,
    *,
    as_text: bool,
    warnings: list[str],
) -> Feature:
    """The kind by the column's type.

    A category known only from anomalies is not known: it is unseen.
    """
    name = column.name
    if column.null_count() == len(column):
        return Feature(name=name, kind="numeric", unit=unit)
    if column.dtype == pl.Boolean:
        return Feature(name=name, kind="boolean", unit=unit)
    if column.dtype.is_numeric():
        _require_resolution(normal)
        return Feature(name=name, kind="numeric", unit=unit)
    row, value = first_value(column)
    if column.dtype == pl.Duration:
        raise RunError(
            f"column {name!r}, row {row}: {EXPECTED}, got the duration {value}; write it as a"
            " number of seconds, or --ignore it"
        )
    if column.dtype.is_temporal():
        raise RunError(
            f"column {name!r}, row {row}: {EXPECTED}, got the date or time {value}; --time {name!r}"
            " orders the rows by it, or --ignore it"
        )
    if column.dtype not in TEXT:
        raise RunError(f"column {name!r}, row {row}: {EXPECTED}, got {column.dtype}")
    if not as_text:
        _refuse_numbers(column.cast(pl.String).str.strip_chars(), dialect, warnings)
    return Feature(
        name=name,
        kind="categorical",
        unit=unit,
        categories=_categories(column, normal, max_categories, as_text=as_text),
    )


def _require_resolution(column: pl.Series) -> None:
    """RunError where float32, which models take, is too coarse for what the values differ by."""
    if column.dtype in (pl.Float32, pl.Float64) and _has_room(column):
        return
    values = column.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    if not len(values) or not np.abs(values).max() <= FLOAT32_MAX:  # encode_table names the cell
        return
    largest = float(np.abs(values).max())
    step, spread = float(np.spacing(np.float32(largest))), float(values.std())
    # of a constant the standard deviation need not come out as 0
    if values.min() < values.max() and spread < STEPS * step:
        row, value = first_value(column)
        raise RunError(
            f"column {column.name!r}, row {row}: values around {value:.10g} differ by {spread:.3g}"
            f" (standard deviation), and float32, which models take, knows steps of {step:.3g} only"
            f" there; subtract a constant such as {float(np.median(values)):.10g} from the column,"
            " or --ignore it"
        )


def _has_room(column: pl.Series) -> bool:
    """Whether values plainly differ by enough, as is told without a copy of them."""
    ends, spread = (column.min(), column.max()), column.cast(pl.Float64).std(ddof=0)
    if None in ends or not isinstance(spread, float):
        return False
    largest = max(abs(float(end)) for end in ends)  # type: ignore[arg-type]  # numbers
    if not largest <= FLOAT32_MAX:
        return False
    return bool(spread > 2 * STEPS * float(np.spacing(np.float32(largest))))


def _refuse_numbers(text: pl.Series, dialect: Dialect, warnings: list[str]) -> None:
    """RunError where text means numbers; of a few names such as 2WD and 4WD a warning."""
    found = misread(text, dialect)
    if found is None:
        return
    as_text = f"--categorical {text.name!r} takes the column as text"
    codes = text.str.contains(CODE)
    if found.cells == 0 and codes.any():
        row = int(codes.arg_max() or 0)
        raise RunError(
            f"column {text.name!r}, row {row + 1}: {text[row]!r} begins with 0, as a code or a"
            f" postcode does and a number does not; {as_text}, --keep {text.name!r} as numbers"
        )
    if found.few_with_unit:
        warnings.append(
            f"column {text.name!r} is taken as categories, such as {found.got}; {as_text} without"
            " this warning"
        )
        return
    units = "; delete the row if it holds units" if found.row == found.cells == 1 else ""
    if 1 < len(found.words) <= MOST_WORDS:
        as_text = f"{as_missing(*found.words)} reads all of its words as missing, {as_text}"
    raise RunError(
        f"column {text.name!r}, row {found.row}: expected a number like the rows around it, got"
        f" {found.got}; {as_text}{units}"
    )


def _categories(
    column: pl.Series, normal: pl.Series, max_categories: int, *, as_text: bool
) -> tuple[str, ...]:
    text = column.cast(pl.String)
    row, value = first_value(text)
    if not as_text and holds_dates(text):
        raise RunError(
            f"column {column.name!r}, row {row}: {EXPECTED}, got the date or time {value}; --time"
            f" {column.name!r} orders the rows by it, or --ignore it"
        )
    known = normal.cast(pl.String).drop_nulls()
    if known.is_empty():  # what anomalies hold must not shape the model
        raise RunError(
            f"column {column.name!r}, row {row}: only anomalous rows have text here; --ignore it"
        )
    longest = int(known.str.len_chars().max())  # type: ignore[arg-type]  # of text, that is not empty
    if longest > LONGEST_CATEGORY:
        raise RunError(
            f"column {column.name!r}, row {row}: expected categories of at most"
            f" {LONGEST_CATEGORY} characters, got one of {longest}; --ignore it"
        )
    distinct = known.n_unique()
    repeats = distinct <= 20 or distinct <= len(known) / 2
    if distinct > max_categories or not repeats:
        expected, more = "categories that repeat", ""
        if repeats:
            expected = f"at most {max_categories} categories"
            more = ", max_categories in the run's file takes more"
        as_an_id = ", as an id or free text has" if distinct == len(known) else ""
        raise RunError(
            f"column {column.name!r}, row {row}: expected {expected}, got text with {distinct}"
            f" values in {len(known)} rows{as_an_id} (the first is {str(value)[:40]!r}); --ignore"
            f" {column.name!r} leaves it out{more}"
        )
    return tuple(sorted(known.unique().to_list()))

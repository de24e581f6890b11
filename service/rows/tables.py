"""Files of rows, CSV and Parquet, and how a table becomes the float32 rows a model takes.

Needs polars (the `files` extra).
"""

import csv
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidTable
from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.rows.dialect import USUAL, Dialect
from hourglass.service.rows.memory import available_bytes
from hourglass.service.rows.numerals import as_missing, explain_cell, shorten, to_numbers

if TYPE_CHECKING:
    import polars as pl

FLOAT32_MAX = float(np.finfo(np.float32).max)
LONGEST_NAME = 1000  # characters
CELL_BYTES = 8  # at least, of a table and the float32 rows that are made of it
SEPARATORS = ",;\t|"
PARQUET = (".parquet", ".pq")  # how a file ends
OTHER_FILES = {  # how one becomes a table
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst"), ": unpack it first"),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), ": save the sheet as 'CSV UTF-8'"),
    **dict.fromkeys(
        (".json", ".jsonl", ".ndjson"),
        ": pandas.read_json(FILE).to_parquet(...) makes it a table (lines=True where each line is a"
        " row)",
    ),
}
CODE = r"^ *0\d+ *$"  # a cell that would be another as a number
MOST_REFUSED, MOST_NAMED = 5, 20  # columns that a message tells of, and names
PEEKED_ROWS = 100_000  # of which such a cell is among the first


def read_table(
    path: Path,
    dialect: Dialect = USUAL,
    text: Collection[str] = (),
    *,
    numbers: Collection[str] | None = None,
) -> "pl.DataFrame":
    """A CSV or Parquet file, whole; InvalidTable in one sentence when it cannot be read. Of a CSV
    the columns named in `text` stay text although they look like numbers; where `numbers` is given,
    so do those of whole numbers of which some begin with 0, as postcodes do, but for these.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise InvalidTable(
            "reading CSV and Parquet needs polars: pip install 'hourglass[files]'"
        ) from error
    if not path.is_file():
        raise InvalidTable(f"{path} is not a file")
    try:
        if path.suffix.lower() in PARQUET:
            _require_memory(path, _parquet_cells(path) * CELL_BYTES)
            frame = pl.read_parquet(path)
        elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
            # two characters of a CSV are a cell at most, and mostly there are more
            _require_memory(path, path.stat().st_size)
            frame = _read_csv(path, dialect, text, numbers)
        else:
            way = OTHER_FILES.get(path.suffix.lower(), "")
            raise InvalidTable(f"{path} is neither .csv nor .parquet{way}")
    except pl.exceptions.NoDataError as error:
        raise InvalidTable(f"{path} holds no rows") from error
    except UnicodeDecodeError as error:
        raise InvalidTable(
            f"{path} is not UTF-8 text: byte {error.object[error.start]:#04x} after"
            f" {error.start:,} others; save it as UTF-8, as Excel's 'CSV UTF-8' does"
        ) from error
    except (pl.exceptions.PolarsError, csv.Error, OSError) as error:
        raise InvalidTable(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if frame.height == 0:
        raise InvalidTable(f"{path} holds no rows")
    longest = max(frame.columns, key=len)
    if len(longest) > LONGEST_NAME:
        raise InvalidTable(
            f"{path}: expected names of at most {LONGEST_NAME} characters, got {len(longest)} in"
            f" that of column {frame.columns.index(longest) + 1}"
        )
    frame.columns = _all_named(frame.columns)
    return without_null_values(frame, dialect.null)


def read_rows(
    path: Path,
    features: Sequence[Feature],
    dialect: Dialect = USUAL,
    *,
    time: str | None,
    entity: str | None,
) -> "pl.DataFrame":
    """A table that holds a model's features, and the columns that say which rows follow each other;
    names of entities stay as the file has them.
    """
    text = [feature.name for feature in features if feature.kind == "categorical"]
    frame = read_table(path, dialect, [*text, entity] if entity else text)
    for flag, name in (("time", time), ("entity", entity)):
        if name is not None and name not in frame.columns:
            columns = ", ".join(map(repr, frame.columns[:MOST_NAMED]))
            raise InvalidTable(
                f"there is no column {name!r} to be the {flag}; the columns are {columns}"
            )
    return frame


def encode_table(
    frame: "pl.DataFrame", features: Sequence[Feature], dialect: Dialect = USUAL
) -> NDArray[np.float32]:
    """A table -> rows [N, D] in the features' order; columns the model does not know are left out.

    A category not among a feature's becomes UNSEEN. InvalidTable names the columns that are wrong,
    and the first such row (from 1) of each.
    """
    present = set(frame.columns)
    absent = [feature.name for feature in features if feature.name not in present]
    if absent:
        near = get_close_matches(absent[0].lower(), [column.lower() for column in present], 1)
        alike = [column for column in frame.columns if near and column.lower() == near[0]]
        raise InvalidTable(
            f"the table has no column {absent[0]!r}, which the model expects ({len(absent)} absent"
            f" in all{f'; there is {alike[0]!r}' if alike else ''})"
        )
    rows_ND = np.empty((frame.height, len(features)), dtype=np.float32)
    refused: dict[str, Exception] = {}
    for place, feature in enumerate(features):
        try:
            rows_ND[:, place] = _encode_column(frame[feature.name], feature, dialect)
        except InvalidTable as error:
            refused[feature.name] = error
    if len(refused) == 1:
        raise refused.popitem()[1]
    if refused:
        raise InvalidTable("\n".join(refusals(refused, "columns are not as the model expects")))
    return rows_ND


def refusals(refused: Mapping[str, Exception], said: str) -> Iterator[str]:
    """Lines: of the first columns what is wrong with each, of the others their names."""
    yield f"{len(refused)} {said}"
    yield from (f"  {error}" for error in list(refused.values())[:MOST_REFUSED])
    if others := list(refused)[MOST_REFUSED:]:
        named = ", ".join(repr(shorten(name)) for name in others[:MOST_NAMED])
        yield f"  and {named}{f' and {len(others) - MOST_NAMED} more' * (len(others) > MOST_NAMED)}"


def _encode_column(column: "pl.Series", feature: Feature, dialect: Dialect) -> NDArray[np.float32]:
    import polars as pl

    if column.null_count() == len(column):
        return np.full(len(column), np.nan, dtype=np.float32)
    is_text = column.dtype in (pl.String, pl.Categorical, pl.Enum)
    if feature.kind == "categorical":
        if not is_text and not _may_be_categories(column, feature):
            raise _misfit(column, feature, column.is_not_null(), "text")
        codes = {category: float(code) for code, category in enumerate(feature.categories)}
        values = [
            np.nan if value is None else codes.get(value, UNSEEN)
            for value in column.cast(pl.String).to_list()
        ]
        return np.array(values, dtype=np.float32)
    if feature.kind == "boolean":
        wrong = _is_no_boolean(column)
        if wrong.any():
            raise _misfit(column, feature, wrong, "true or false")
    elif is_text:
        text = column.cast(pl.String).str.strip_chars()
        wrong = text.is_not_null() & to_numbers(text, dialect).is_null()
        raise _misfit(column, feature, wrong, "a number", dialect)
    elif not column.dtype.is_numeric():
        raise _misfit(column, feature, column.is_not_null(), "a number")
    require_finite(column)
    return column.cast(pl.Float64).to_numpy(allow_copy=True).astype(np.float32)


def require_finite(column: "pl.Series") -> None:
    """InvalidTable naming the first cell, if any, that is a number and no finite float32."""
    import polars as pl

    if not column.dtype.is_numeric():
        return
    ends = (column.min(), column.max())
    if all(end is not None and abs(float(end)) <= FLOAT32_MAX for end in ends):  # type: ignore[arg-type]
        return
    wide = column.cast(pl.Float64).to_numpy(allow_copy=True)
    with np.errstate(over="ignore", invalid="ignore"):
        out_of_range = np.flatnonzero(np.abs(wide) > FLOAT32_MAX)
    if len(out_of_range):
        row = int(out_of_range[0])
        got = f"{wide[row]:g}"
        if np.isinf(wide[row]):
            got += f"; {as_missing(got)} reads it as missing"
        raise InvalidTable(
            f"column {column.name!r}, row {row + 1}: expected a finite number within float32, got"
            f" {got}"
        )


def _may_be_categories(column: "pl.Series", feature: Feature) -> bool:
    """Whether whole numbers or true/false stand for categories that are written so."""
    import polars as pl

    known = pl.Series(feature.categories, dtype=pl.String)
    if column.dtype.is_integer():
        return known.cast(pl.Int64, strict=False).count() > 0
    return column.dtype == pl.Boolean and known.is_in(["true", "false"]).any()


def _is_no_boolean(column: "pl.Series") -> "pl.Series":
    import polars as pl

    if column.dtype.is_numeric():
        return (~column.cast(pl.Float64).fill_nan(None).is_in([0.0, 1.0])).fill_null(False)
    return column.is_not_null() & pl.repeat(column.dtype != pl.Boolean, len(column), eager=True)


def _misfit(
    column: "pl.Series",
    feature: Feature,
    wrong: "pl.Series",
    expected: str,
    dialect: Dialect = USUAL,
) -> InvalidTable:
    """What to raise of the first wrong cell; of a text column the cell's way to be read."""

    row = int((wrong if wrong.any() else column.is_not_null()).arg_max() or 0)
    value = column[row]
    got = f"{shorten(value)!r} ({column.dtype} column)"
    if column.dtype.is_nested():
        got = str(column.dtype)
    elif feature.kind == "numeric" and isinstance(value, str):
        got = explain_cell(value.strip(), dialect)
    return InvalidTable(f"column {feature.name!r}, row {row + 1}: expected {expected}, got {got}")


def first_value(column: "pl.Series") -> tuple[int, object]:
    """The number (from 1) of the first row that has a value, and the value, if long its start."""
    index = column.is_not_null().arg_max() or 0
    return index + 1, shorten(column[index])


def _parquet_cells(path: Path) -> int:
    import polars as pl

    rows = int(pl.scan_parquet(path).select(pl.len()).collect().item())
    return rows * len(pl.read_parquet_schema(path))


def _require_memory(path: Path, needed: int) -> None:
    """InvalidTable before anything is read of what can never be held."""
    available = available_bytes()
    if available is not None and needed > available:
        raise InvalidTable(
            f"{path} takes at least {needed / 1e9:.3g} GB of memory, and {available / 1e9:.3g} GB"
            " are left; take fewer rows or columns"
        )


def without_null_values(frame: "pl.DataFrame", null: tuple[str, ...]) -> "pl.DataFrame":
    """With nothing in cells that say so, numbers among them: -999 is also -999.0."""
    import polars as pl

    if not null:
        return frame
    numbers = pl.Series(null).cast(pl.Float64, strict=False).drop_nulls()
    columns = []
    for column in frame:
        if column.dtype in (pl.String, pl.Categorical, pl.Enum):
            text = column.cast(pl.String)
            columns.append(text.set(text.str.strip_chars().is_in(list(null)), None))
        elif column.dtype.is_numeric() and len(numbers):
            missing = column.cast(pl.Float64).is_in(numbers.to_list()).fill_null(False)
            columns.append(column.set(missing, None) if missing.any() else column)
    return frame.with_columns(columns)


def _all_named(columns: Sequence[str]) -> list[str]:
    """With pandas' name for the columns without one; it writes an index so."""
    named: list[str] = []
    for place, column in enumerate(columns):
        name = column or f"Unnamed: {place}"
        while not column and (name in columns or name in named):
            name += ".1"
        named.append(name)
    return named


def _read_csv(
    path: Path, dialect: Dialect, text: Collection[str], numbers: Collection[str] | None
) -> "pl.DataFrame":
    import polars as pl

    header = _read_header(path, dialect)
    asked: dict[str, object] = {
        "separator": dialect.separator,
        "has_header": dialect.header,
        "comment_prefix": dialect.comment,
        "eol_char": "\r" if _ends_lines_with_cr(path) else "\n",
        "decimal_comma": dialect.decimal == "," != dialect.separator,
        "null_values": list(dialect.null),
        # polars would take 1.510 for a fraction where the point stands between groups
        "infer_schema": not dialect.decimal == "," == dialect.separator,
        "infer_schema_length": None,
    }
    # polars leaves spaces and doubled quotes in names as they are
    names = pl.read_csv(path, n_rows=0, **asked).columns  # type: ignore[arg-type]
    known = dict(zip(_all_named(header), names, strict=True)) if len(names) == len(header) else {}
    text = [name for name in text if name in known]
    try:
        if numbers is not None:
            codes = _codes(path, asked)
            text += [name for name, raw in known.items() if raw in codes and name not in numbers]
        asked["schema_overrides"] = {known[name]: pl.String for name in text}
        frame = pl.read_csv(path, **asked)  # type: ignore[arg-type]
    except pl.exceptions.ComputeError:
        _check_widths(path, dialect)
        raise
    if frame[:, -1].null_count():
        empty_lines = _check_widths(path, dialect)
        frame = frame.filter(~pl.int_range(frame.height, eager=True).is_in(empty_lines))
    if len(header) == frame.width:
        frame.columns = _all_named(header)
        nameless = [column for column, name in zip(frame, header, strict=True) if not name]
        # of lines that end with separators
        empty = [column.name for column in nameless if column.null_count() == frame.height]
        if (full := len(nameless) - len(empty)) > max(1, len(header) - len(nameless)):
            raise InvalidTable(
                f"{path}: expected names of columns in the first line, got {full} columns with"
                " values and without a name: delete the lines above the names"
            )
        frame = frame.drop(empty)
    return frame.with_columns(
        _tidy(column, dialect, as_text=column.name in text)
        for column in frame
        if column.dtype == pl.String
    )


def _codes(path: Path, asked: dict[str, object]) -> list[str]:
    """The columns of whole numbers of which some begin with 0, as far as the first rows show."""
    import polars as pl

    peeked = {**asked, "infer_schema": False, "n_rows": PEEKED_ROWS}
    frame = pl.read_csv(path, **peeked)  # type: ignore[arg-type]
    return [
        column.name
        for column in frame
        if column.str.contains(CODE).any()
        and column.drop_nulls().str.contains(r"^ *(\d+ *)?$").all()
    ]


def _tidy(column: "pl.Series", dialect: Dialect, *, as_text: bool) -> "pl.Series":
    """Spaces around a cell mean nothing, an empty cell is missing, and what is numbers or true and
    false throughout (' 1.5', '-Infinity', ' True') is no text.
    """

    text = column.str.strip_chars()
    text = text.set((text == "") | text.is_in(list(dialect.null)), None)
    if as_text or text.null_count() == len(text):
        return text
    numbers = to_numbers(text, dialect)
    if numbers.null_count() == text.null_count():
        return numbers
    truth = text.str.to_lowercase()
    if truth.drop_nulls().is_in(["true", "false"]).all():
        return (truth == "true").alias(column.name)
    return text


def _lines(path: Path, dialect: Dialect) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = (
            line for line in file if dialect.comment is None or not line.startswith(dialect.comment)
        )
        yield from csv.reader(lines, delimiter=dialect.separator)


def _ends_lines_with_cr(path: Path) -> bool:
    """As Macintosh once did: CR and no LF."""
    with path.open("rb") as file:
        start = file.read(2**16).rstrip(b"\r")
    return b"\r" in start and b"\n" not in start


def _read_header(path: Path, dialect: Dialect) -> list[str]:
    """The columns' names. Polars renames a repeated one silently; we refuse it."""
    header = [name.strip() for name in next(_lines(path, dialect), [""])]
    if not header:
        raise InvalidTable(f"{path}: expected the first line to be a header or a row, got nothing")
    if len(header) == 1 and (
        other := next((sign for sign in SEPARATORS if sign in header[0]), None)
    ):
        raise InvalidTable(
            f"{path}: expected cells separated by {dialect.separator!r}, got a header with"
            f" {other!r} between names: --separator"
            f" {'tab' if other == chr(9) else repr(other)} reads it"
        )
    if not dialect.header:
        return [f"column_{number}" for number in range(1, len(header) + 1)]
    if len(header) == 1 and header[0].startswith("#"):
        raise InvalidTable(
            f"{path}: expected names of columns, got a first line that begins with '#':"
            " --comment '#' leaves out such lines"
        )
    if number := _number_that_is_no_name(header):
        raise InvalidTable(
            f"{path}: expected names of columns in the first line, got the number {number}:"
            " --no-header takes the line as a row, --comment SIGN leaves out lines above the names"
        )
    counts = Counter(name for name in header if name)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        places = [str(place) for place, name in enumerate(header, 1) if name == repeated]
        raise InvalidTable(
            f"{path} has the column {shorten(repeated)!r} more than once (as columns"
            f" {' and '.join(places[:5])}): give each a name of its own"
        )
    return header


def _number_that_is_no_name(header: Sequence[str]) -> str | None:
    """The first of several numbers in a header, unless they are in order, as years, places and
    wavelengths are that are names.
    """
    import polars as pl

    cells = pl.Series(header, dtype=pl.String)
    numbers = cells.cast(pl.Float64, strict=False)
    values = numbers.drop_nulls().drop_nans()
    steps = values.diff().drop_nulls()
    is_whole = bool((values == values.round()).all())
    if len(values) < 2 and (is_whole or len(header) > 1):
        return None
    if len(values) == len(header) == 2:
        in_order = is_whole and steps[0] == 1
    elif len(values) == 2:
        in_order = is_whole
    else:
        ascends, descends = bool((steps > 0).all()), bool((steps < 0).all())
        in_order = len(values) > 2 and (ascends or (is_whole and descends))
    if in_order:
        return None
    return str(cells[numbers.is_not_null().arg_max() or 0])


def _check_widths(path: Path, dialect: Dialect) -> list[int]:
    """Polars fills up a line that is too short, and does not say which one is too long; returns the
    empty lines, which are no rows.
    """
    empty = []
    reader = _lines(path, dialect)
    width = len(next(reader, [])) if dialect.header else None
    for index, cells in enumerate(reader):
        if not cells:
            empty.append(index)
            continue
        width = len(cells) if width is None else width
        if len(cells) != width:
            row = index + 1 - len(empty)
            raise InvalidTable(
                f"{path}, row {row}: expected {width} cells, got {len(cells)}{_why(cells, width)}"
            )
    return empty


def _why(cells: Sequence[str], width: int) -> str:
    if cells[0].startswith("#"):
        return ": --comment '#' leaves out lines that begin so"
    if len(cells) == width + 1 and not cells[-1].strip():
        return ", the last of them empty: end the first line with a separator, too"
    if width == 1:
        return ": if the first line is no header, --comment SIGN or deleting it leaves it out"
    return ""

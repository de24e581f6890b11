"""Request bytes -> float32 rows. Pure functions: what they need of a model comes in as its Schema.

Shapes: N rows, D features, K latent dimensions. A row is an array in feature order or an object by
feature name; null is missing.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import (
    InvalidBody,
    InvalidJSON,
    InvalidRow,
    TooManyRows,
    UnsupportedMediaType,
)
from hourglass.service.floats import read_rows
from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.model.detector import has_gap
from hourglass.service.model.schema import Schema
from hourglass.service.rows.cells import (
    A_NUMBER,
    OVERFLOW,
    NoNumber,
    bad_number,
    misfit,
    parse_float,
    require_cells,
    shown,
)
from hourglass.service.rows.slicing import (
    MARK,
    SLICE_BYTES,
    WHOLE_BYTES,
    count_commas,
    slice_array,
    slices,
)

Float32 = NDArray[np.float32]
Body = bytes | bytearray
Cells = bytes | Float32  # float32, little-endian, row after row
Request = TypeVar("Request", bound=msgspec.Struct)

JSON = "application/json"
# Little-endian float32, row after row. Of a request its features: NaN is missing, a category its
# code, -1 an unseen one. Of an answer to a score request [N, 2], a row's score and its p-value.
RAW = "application/octet-stream"
OF_ORDER = ("entity", "time")  # what may stand beside the rows of a windowed model
LARGE_ROW_BYTES, CELL_BYTES = 2**20, 256  # a row of JSON has either, or for each cell, at most
_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def decode_rows(
    body: Body, content_type: str, schema: Schema, *, max_rows: int, few: bool = False
) -> Float32:
    """Body -> rows [N, D]; an error that names row and feature otherwise. Where `few` values are
    let pass, a row may hold none at all.

    The fast way first, the exact one to say what is wrong.
    """
    cells, _ = decode_cells(body, content_type, schema, max_rows=max_rows, few=few)
    return as_rows(cells, schema.width) if isinstance(cells, bytes) else cells


def as_rows(cells: Body | Float32, width: int) -> Float32:
    """Cells -> rows [N, D]."""
    return np.frombuffer(cells, _LITTLE_FLOAT).reshape(-1, width)


def decode_cells(
    body: Body, content_type: str, schema: Schema, *, max_rows: int, few: bool = False
) -> tuple[Cells, bool]:
    """decode_rows, whose rows are mere bytes where that is the cheapest to have, and whether any
    value is missing.
    """
    media_type = content_type if content_type in (JSON, RAW) else media_type_of(content_type)
    if media_type == JSON:
        if schema.all_numeric and (read := read_rows(body, schema.width, max_rows)) is not None:
            if not read[1]:
                return read
            rows_ND = as_rows(read[0], schema.width)
        else:
            rows_ND = _decode_objects(body, schema, max_rows)
    elif media_type == RAW:
        rows_ND = _raw_rows(body, schema.width, "features", max_rows)
        if schema.all_numeric and math.isfinite(
            np.vdot(rows_ND, rows_ND)
        ):  # finite itself only if every number is
            return rows_ND, False
        return rows_ND, require_raw(rows_ND, schema, few=few)
    else:
        raise UnsupportedMediaType(
            f"expected a body of type {JSON} or {RAW}, got {_shown_type(media_type)}"
        )
    return rows_ND, _has_gap(rows_ND, schema, few=few)


def pick_rows(objects: Sequence[dict[str, Any]], schema: Schema) -> NDArray[np.float64] | None:
    """Objects of JSON that hold more than the features -> their rows [N, D]; None where anything is
    wrong or out of the ordinary, so that pick_row has to look at each.
    """
    if schema.width < 2:
        return None
    try:
        return _numbers([*map(itemgetter(*schema.positions), objects)], schema)
    except KeyError:
        return None


def pick_row(sent: dict[str, Any], place: int, schema: Schema, *, few: bool = False) -> Float32:
    """The same of one object [D]; InvalidRow names it by its place, and the feature."""
    known = {name: value for name, value in sent.items() if name in schema.positions}
    cells = zip(_in_order(known, place, schema), schema.features, schema.codes, strict=True)
    row_D = np.array([_cell(value, each, codes, place) for value, each, codes in cells], "f4")
    if not few and not schema.has_enough(row_D[np.newaxis])[0]:
        raise _too_few(row_D, place, schema)
    return row_D


def decode_codes(body: Body, content_type: str, width: int, *, max_rows: int) -> Float32:
    """Body, JSON {"codes": [[...]]} or mere numbers, -> codes [N, K]."""
    if media_type_of(content_type) == RAW:
        codes_NK = _raw_rows(body, width, "latent numbers", max_rows)
        if not (finite_NK := np.isfinite(codes_NK)).all():
            row, k = np.argwhere(~finite_NK)[0].tolist()
            raise bad_number(row, f"code[{k}]", f"{codes_NK[row, k]:g}")
        return codes_NK
    require_json(content_type)
    names = [f"code[{k}]" for k in range(width)]

    def fill(codes: list[Any], first: int, codes_NK: Float32) -> None:
        for index, code in enumerate(codes, first):
            if not isinstance(code, list) or len(code) != width:
                raise _wrong_width(index, code, width, "latent numbers")
            codes_NK[index] = [_number(value, index, names[k]) for k, value in enumerate(code)]

    return _decode_array(body, "codes", names, "latent numbers", max_rows, fill)


def decode_request(body: Body, content_type: str, kind: type[Request]) -> Request:
    """JSON body -> a small request that holds no rows."""
    require_json(content_type)
    if len(body) > WHOLE_BYTES:
        raise InvalidBody(
            f"expected a JSON object of at most {WHOLE_BYTES} bytes, got {len(body)} bytes"
        )
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        fields = ", ".join(kind.__struct_fields__)
        raise InvalidJSON(
            f"expected a JSON object with {fields}: {what_is_wrong(body, error)}"
        ) from error


def require_json(content_type: str) -> None:
    """UnsupportedMediaType unless the body is JSON."""
    if (media_type := media_type_of(content_type)) != JSON:
        raise UnsupportedMediaType(f"expected a body of type {JSON}, got {_shown_type(media_type)}")


def sent_categories(
    body: Body, content_type: str, schema: Schema, rows_ND: Float32
) -> dict[tuple[int, int], str]:
    """(row, column) -> the string that came, where it is a category the model has not met; of a
    body that decode_rows has read.
    """
    categorical = np.array([feature.kind == "categorical" for feature in schema.features])
    unseen = np.argwhere((rows_ND == UNSEEN) & categorical)
    if len(unseen) == 0 or media_type_of(content_type) != JSON:
        return {}
    names = [feature.name for feature in schema.features]
    sent: dict[tuple[int, int], str] = {}
    columns: dict[int, list[int]] = {}
    for n, d in unseen.tolist():
        columns.setdefault(n, []).append(d)
    for first, rows in _groups(body, "rows"):
        for n in columns.keys() & range(first, first + len(rows)):
            row = rows[n - first]
            sent |= {(n, d): row[d] if isinstance(row, list) else row[names[d]] for d in columns[n]}
    return sent


_LITTLE_FLOAT = np.dtype("<f4")


def _decode_objects(body: Body, schema: Schema, max_rows: int) -> Float32:
    names = [feature.name for feature in schema.features]

    def fill(rows: list[Any], first: int, rows_ND: Float32) -> None:
        if (values_ND := _values(rows, schema)) is not None:
            rows_ND[first : first + len(rows)] = values_ND
            return
        for index, row in enumerate(rows, first):
            if isinstance(row, dict):
                row = _in_order(row, index, schema)
            elif not isinstance(row, list) or len(row) != schema.width:
                raise _wrong_width(index, row, schema.width, "features")
            rows_ND[index] = [
                _cell(value, feature, codes, index)
                for value, feature, codes in zip(row, schema.features, schema.codes, strict=True)
            ]

    return _decode_array(body, "rows", names, "features", max_rows, fill)


def _decode_array(
    body: Body,
    field: str,
    names: Sequence[str],
    what: str,
    max_rows: int,
    fill: Callable[[list[Any], int, Float32], None],
) -> Float32:
    """The rows of a JSON body, as `fill` writes them to their places; of a large body slice after
    slice.
    """
    sliced = slice_array(body, 2)
    rows = _rows_in(_parse(sliced.rest, field, names), field, max_rows)
    if rows != [MARK]:
        rows_ND = np.empty((len(rows), len(names)), dtype=np.float32)
        fill(rows, 0, rows_ND)
        return rows_ND
    if sliced.elements > max_rows:
        raise _too_many(sliced.elements, max_rows)
    rows_ND = np.empty((sliced.elements, len(names)), dtype=np.float32)
    first = 0
    for start, text in slices(sliced):
        require_small(text, first, len(names), what)
        rows = parse_slice(text, start, names, first)
        fill(rows, first, rows_ND)
        first += len(rows)
    return rows_ND


def require_small(text: memoryview, first: int, width: int, what: str) -> None:
    """InvalidRow where a slice is so long, or holds so many cells, that parsing it takes long: its
    last row does.
    """
    if len(text) <= 2 * SLICE_BYTES:
        return
    # SLICE_BYTES are those of rows before that one
    if (sent := count_commas(text, 1) + 1) > 2 * width + SLICE_BYTES:
        message = f"expected {width} {what}, got {sent} in row {first} or one soon after"
        raise InvalidRow(message, expected=f"{width} {what}", got=str(sent), reason="width")
    if len(text) > (most := max(LARGE_ROW_BYTES, CELL_BYTES * width)):
        message = (
            f"expected at most {most} bytes of JSON for one of the {what}' rows, got {len(text)} in"
            f" row {first} or one soon after"
        )
        raise InvalidRow(message, expected=f"at most {most} bytes", got=f"{len(text)} bytes")


def parse_slice(elements: memoryview, start: int, names: Sequence[str], first: int) -> list[Any]:
    """The rows of a slice, the first of which is that of the body; its text began there."""
    text = b"".join((b"[", elements, b"]"))
    try:
        rows: list[Any] = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _name_bad_number(text, names, first)
        place = f"from byte {start - 1} of the body: {str(error)[:200]}"
        raise InvalidJSON(f"the body is not JSON, {place}") from error
    if not rows:
        raise InvalidJSON(f"the body is not JSON: nothing follows a comma at byte {start - 1}")
    return rows


def _groups(body: Body, field: str) -> Iterator[tuple[int, list[Any]]]:
    """The rows of a body that was decoded before, some at a time, with the first one's number."""
    sliced, first = slice_array(body, 2), 0
    if not sliced.cuts:
        yield 0, msgspec.json.decode(sliced.rest)[field]
    for _, text in slices(sliced):
        rows = msgspec.json.decode(b"".join((b"[", text, b"]")))
        yield first, rows
        first += len(rows)


def _raw_rows(body: Body, width: int, what: str, max_rows: int) -> Float32:
    if not body:
        raise InvalidBody("the body is empty, expected rows of float32")
    row_bytes = 4 * width
    if len(body) % row_bytes:
        expected = f"a multiple of {row_bytes} bytes, {width} {what} of 4 bytes in each row"
        message = f"expected {expected}, got {len(body)} bytes"
        raise InvalidRow(message, expected=expected, got=f"{len(body)} bytes", reason="width")
    if len(body) // row_bytes > max_rows:
        raise _too_many(len(body) // row_bytes, max_rows)
    return as_rows(body, width)


def require_raw(rows_ND: Float32, schema: Schema, *, few: bool = False) -> bool:
    """Whether any value is missing of rows that came as numbers; InvalidRow where one is none that
    its feature has.
    """
    require_cells(rows_ND, np.isinf(rows_ND), schema, A_NUMBER)
    for column, feature in enumerate(schema.features):
        if feature.kind == "numeric":
            continue
        last = 1 if feature.kind == "boolean" else len(feature.categories) - 1
        first = 0 if feature.kind == "boolean" else UNSEEN
        wrong_ND = np.zeros(rows_ND.shape, dtype=bool)
        values_N = rows_ND[:, column]
        wrong_ND[:, column] = (
            (values_N < first) | (values_N > last) | (values_N % 1 != 0) & ~np.isnan(values_N)
        )
        require_cells(rows_ND, wrong_ND, schema, f"a whole number from {first:g} to {last}")
    return _has_gap(rows_ND, schema, few=few)


def _parse(body: Body, field: str, names: Sequence[str]) -> object:
    if not body:
        raise InvalidBody(f'the body is empty, expected a JSON object {{"{field}": [...]}}')
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _name_bad_number(body, names, 0, field)
        raise InvalidJSON(f"the body is not JSON: {what_is_wrong(body, error)}") from error


def what_is_wrong(body: Body, error: Exception) -> str:
    """Why JSON cannot be read; a byte order mark by its name, since nobody sees it."""
    for mark, name in _MARKS.items():
        if body.startswith(mark):
            return f"it begins with a byte order mark of {name}, expected UTF-8 without one"
    return str(error)[:200]


def _name_bad_number(
    text: Body, names: Sequence[str], first: int, field: str | None = None
) -> None:
    """InvalidNumber when what keeps little JSON from being it is such a number in a row: that is
    worth naming the cell.
    """
    try:
        sent = json.loads(
            text.decode(), parse_constant=NoNumber, parse_float=parse_float, parse_int=parse_float
        )
    except (ValueError, RecursionError):
        return
    rows = sent.get(field) if isinstance(sent, dict) else sent if field is None else None
    for index, row in enumerate(rows if isinstance(rows, list) else (), first):
        # of an object only what the model knows: a name from outside may hold what cannot be sent
        # back, half a character
        cells = (
            map(row.get, names) if isinstance(row, dict) else row if isinstance(row, list) else ()
        )
        for name, value in zip(names, cells, strict=False):
            if isinstance(value, NoNumber):
                raise bad_number(index, name, value.text[:40])


def _rows_in(sent: object, field: str, max_rows: int) -> list[Any]:
    if not isinstance(sent, dict) or not isinstance(sent.get(field), list):
        raise InvalidJSON(f'expected a JSON object {{"{field}": [...]}}, got {shown(sent)}')
    if unknown := sorted(sent.keys() - {field}):
        if field == "rows" and unknown[0] in OF_ORDER:
            raise InvalidRow(
                f"the model scores single rows, which have no {unknown[0]}: expected only 'rows'",
                expected="only 'rows'",
                got=unknown[0],
            )
        raise InvalidJSON(
            f"expected only {field!r} in the JSON object, got {unknown[0][:80]!r} too"
        )
    rows: list[Any] = sent[field]
    if not rows:
        raise InvalidBody(f"expected at least one row in {field!r}, got none")
    if len(rows) > max_rows:
        raise _too_many(len(rows), max_rows)
    return rows


def _in_order(row: dict[str, Any], index: int, schema: Schema) -> list[Any]:
    for name in row:
        if name not in schema.positions:
            message = f"row {index} has the feature {name[:80]!r}, which the model does not know"
            raise InvalidRow(message, row=index, feature=name[:80], reason="feature")
    for name in schema.positions:
        if name not in row:
            message = f"row {index} lacks the feature {name!r}; null stands for a missing value"
            raise InvalidRow(
                message,
                row=index,
                feature=name,
                expected="a value or null",
                got="nothing",
                reason="feature",
            )
    return [row[name] for name in schema.positions]


def _cell(value: object, feature: Feature, codes: dict[str, float], row: int) -> float:
    if value is None:
        return math.nan
    if feature.kind == "numeric":
        return _number(value, row, feature.name)
    if feature.kind == "categorical":
        if isinstance(value, str):
            return _code(value, codes)
        raise misfit(row, feature.name, "a string or null", shown(value))
    if value in (0, 1) and isinstance(value, int | float):
        return float(value)
    raise misfit(row, feature.name, "true, false or null", shown(value))


def _values(rows: list[Any], schema: Schema) -> NDArray[np.float64] | None:
    """The rows' numbers, column by column; None where anything is wrong, or out of the ordinary, so
    that it has to be looked at cell by cell.
    """
    kinds = {*map(type, rows)}
    if kinds not in ({dict}, {list}) or {*map(len, rows)} != {schema.width} or schema.width < 2:
        return None
    if kinds == {dict}:
        try:
            rows = list(map(itemgetter(*schema.positions), rows))
        except KeyError:
            return None
    return _numbers(rows, schema)


def _numbers(rows: list[Any], schema: Schema) -> NDArray[np.float64] | None:
    """The same of rows that hold one value for each feature."""
    values_ND = np.empty((len(rows), schema.width))
    columns = zip(zip(*rows, strict=True), schema.features, schema.codes, strict=True)
    for place, (column, feature, codes) in enumerate(columns):
        if not _CELL_TYPES[feature.kind].issuperset(map(type, column)):
            return None
        if feature.kind == "categorical":
            column = tuple(None if text is None else _code(text, codes) for text in column)
        try:
            values_ND[:, place] = np.array(column, np.float64)  # of None NaN
        except OverflowError:
            return None
    return None if (np.abs(values_ND) >= OVERFLOW).any() else values_ND


_CELL_TYPES = {
    "numeric": frozenset((int, float, type(None))),
    "boolean": frozenset((bool, type(None))),
    "categorical": frozenset((str, type(None))),
}


def _code(category: str, codes: dict[str, float]) -> float:
    """As in a file: spaces around it mean nothing, and a cell of nothing else is missing."""
    if (code := codes.get(category)) is not None:
        return code
    stripped = category.strip()
    return codes.get(stripped, UNSEEN) if stripped else math.nan


def _number(value: object, row: int, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise misfit(row, name, "a number or null", shown(value))
    if abs(value) >= OVERFLOW:
        raise bad_number(row, name, shown(value))
    return float(value)


def _has_gap(rows_ND: Float32, schema: Schema, *, few: bool) -> bool:
    """Whether any value is missing; InvalidRow where so many of a row are that it has no score,
    unless so `few` are let pass.
    """
    if not has_gap(rows_ND):
        return False
    if not few and not (enough_N := schema.has_enough(rows_ND)).all():
        row = int(np.argmin(enough_N))
        raise _too_few(rows_ND[row], row, schema)
    return True


def _too_few(row_D: Float32, row: int, schema: Schema) -> InvalidRow:
    observed = schema.width - int(np.isnan(row_D).sum())
    expected = f"at least {schema.min_observed} of {schema.width} values"
    got = f"{observed} ({observed / schema.width:.0%})"
    return InvalidRow(
        f"row {row}: expected {expected}, got {got}",
        row=row,
        expected=expected,
        got=got,
        reason="missing",
    )


def _wrong_width(row: int, sent: object, width: int, what: str) -> InvalidRow:
    expected = f"{width} {what}"
    if isinstance(sent, list):
        message, got = f"expected {expected}, got {len(sent)} in row {row}", str(len(sent))
    else:
        message = (
            f"expected an array of {expected} or an object, got {(got := shown(sent))} in row {row}"
        )
    return InvalidRow(message, row=row, expected=expected, got=got, reason="width")


def _too_many(rows: int, max_rows: int) -> TooManyRows:
    return TooManyRows(f"expected at most {max_rows} rows in one request, got {rows}")


def media_type_of(content_type: str) -> str:
    """The type alone, in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def _shown_type(media_type: str) -> str:
    return media_type[:80] if media_type else "none"

"""Request bytes -> float32 rows. Pure functions: what they need of a model comes in as its Schema.

Shapes: N rows, D features, K latent dimensions. A row is an array in feature order or an object by feature name; null is missing.
"""

import json
import math
import re
import struct
import threading
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import cache
from typing import Any, TypeVar

import msgspec
import numpy as np
import simdjson
from numpy.typing import NDArray

from service.artifact import UNSEEN, Feature
from service.cells import A_NUMBER, OVERFLOW, NoNumber, bad_number, misfit, parse_float, require_cells, shown
from service.detector import has_gap
from service.errors import InvalidBody, InvalidJSON, InvalidRow, TooManyRows, UnsupportedMediaType
from service.schema import Schema

Float32 = NDArray[np.float32]
Body = bytes | bytearray
Cells = bytes | Float32  # float32, little-endian, row after row
Request = TypeVar("Request", bound=msgspec.Struct)

JSON = "application/json"
# Little-endian float32, row after row. Of a request its features: NaN is missing, a category its code, -1 an unseen one. Of an answer
# to a score request [N, 2], a row's score and its p-value.
RAW = "application/octet-stream"
_FEW_BYTES = 1024  # of JSON: up to here msgspec is faster than simdjson
_FEW_ARRAYS = 2**17  # of JSON: whatever they are, they are parsed in 0.1 s
_PART_BYTES = 2**16  # of JSON, parsed at once: it fits a core's cache, and holds the interpreter's lock for 0.1 ms


def decode_rows(body: Body, content_type: str, schema: Schema, *, max_rows: int) -> Float32:
    """Body -> rows [N, D]; an error that names row and feature otherwise. The fast way first, the exact one to say what is wrong."""
    cells, _ = decode_cells(body, content_type, schema, max_rows=max_rows)
    return as_rows(cells, schema.width) if isinstance(cells, bytes) else cells


def as_rows(cells: Body | Float32, width: int) -> Float32:
    """Cells -> rows [N, D]."""
    return np.frombuffer(cells, _LITTLE_FLOAT).reshape(-1, width)


def decode_cells(body: Body, content_type: str, schema: Schema, *, max_rows: int) -> tuple[Cells, bool]:
    """decode_rows, whose rows are mere bytes where that is the cheapest to have, and whether any value is missing."""
    media_type = content_type if content_type in (JSON, RAW) else media_type_of(content_type)
    if media_type == JSON:
        if schema.all_numeric:
            decode = _decode_few if len(body) <= _FEW_BYTES else _decode_some if len(body) <= _PART_BYTES else None
            if decode and (cells := decode(body, schema.width, max_rows)) is not None:
                return cells, False
            rows_ND = _decode_numbers(body, schema.width, max_rows)
        else:
            rows_ND = None
        if rows_ND is None:
            rows_ND = _decode_objects(body, schema, max_rows)
    elif media_type == RAW:
        rows_ND = _raw_rows(body, schema, max_rows)
        if schema.all_numeric and math.isfinite(np.vdot(rows_ND, rows_ND)):  # finite itself only if every number is
            return rows_ND, False
        _require_raw(rows_ND, schema)
    else:
        raise UnsupportedMediaType(f"expected a body of type {JSON} or {RAW}, got {_shown_type(media_type)}")
    return rows_ND, _has_gap(rows_ND, schema)


def decode_codes(body: bytes, content_type: str, width: int, *, max_rows: int) -> Float32:
    """JSON body {"codes": [[...]]} -> codes [N, K]."""
    require_json(content_type)
    require_few_arrays(body, max_rows)
    codes = _rows_in(_parse(body, "codes", [f"code[{k}]" for k in range(width)]), "codes", max_rows)
    codes_NK = np.empty((len(codes), width), dtype=np.float32)
    for index, code in enumerate(codes):
        if not isinstance(code, list) or len(code) != width:
            raise _wrong_width(index, code, width, "latent numbers")
        codes_NK[index] = [_number(value, index, f"code[{k}]") for k, value in enumerate(code)]
    return codes_NK


def require_few_arrays(body: Body, max_rows: int) -> None:
    """TooManyRows where JSON holds far more arrays and objects than so many rows are.

    Ten million of them are only 30 MB to send, but a gigabyte to hold, and nothing else runs while they are parsed.
    """
    most = max(max_rows + 2, _FEW_ARRAYS)
    if body.count(b"[") + body.count(b"{") <= most:
        return
    bytes_N = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    in_string_N = np.logical_xor.accumulate(bytes_N == ord('"'))
    count = np.count_nonzero(((bytes_N == ord("[")) | (bytes_N == ord("{"))) & ~in_string_N)
    if count > most:
        raise TooManyRows(
            f"expected at most {max_rows} rows in one request, got {count} arrays and objects in its JSON"
        )


def decode_request(body: bytes, content_type: str, kind: type[Request]) -> Request:
    """JSON body -> a small request that holds no rows."""
    require_json(content_type)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        fields = ", ".join(kind.__struct_fields__)
        raise InvalidJSON(f"expected a JSON object with {fields}: {str(error)[:200]}") from error


def require_json(content_type: str) -> None:
    """UnsupportedMediaType unless the body is JSON."""
    if (media_type := media_type_of(content_type)) != JSON:
        raise UnsupportedMediaType(f"expected a body of type {JSON}, got {_shown_type(media_type)}")


def sent_categories(body: bytes, content_type: str, schema: Schema, rows_ND: Float32) -> dict[tuple[int, int], str]:
    """(row, column) -> the string that came, where it is a category the model has not met; of a body that decode_rows has read."""
    categorical = np.array([feature.kind == "categorical" for feature in schema.features])
    unseen = np.argwhere((rows_ND == UNSEEN) & categorical)
    if len(unseen) == 0 or media_type_of(content_type) != JSON:
        return {}
    rows = msgspec.json.decode(body)["rows"]
    names = [feature.name for feature in schema.features]
    return {(n, d): rows[n][d] if isinstance(rows[n], list) else rows[n][names[d]] for n, d in unseen.tolist()}


_LITTLE_FLOAT = np.dtype("<f4")
_WHITE = rb"[ \t\r\n]*"
_OPENING = re.compile(_WHITE + rb"\{" + _WHITE + rb'"rows"' + _WHITE + rb":" + _WHITE + rb"\[")
_CLOSING = re.compile(rb"\]" + _WHITE + rb"\}" + _WHITE + rb"\Z")
_BETWEEN = re.compile(_WHITE + rb"," + _WHITE + rb"(?=\[)")


class _Numbers(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[list[float]]


_few_numbers = msgspec.json.Decoder(_Numbers)
_numbers = msgspec.json.Decoder(list[list[float | None]])


class _Tools(threading.local):
    """What costs more to make than to use: of each thread its own, since no two may use one at a time."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()  # for small texts: it keeps the room that a text took, a dozen times its size
        self.raising = copy_context()
        self.raising.run(np.seterr, over="raise")


_tools = _Tools()


@cache
def _pack(width: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{width}f").pack


def _decode_few(body: Body, width: int, max_rows: int) -> bytes | None:
    """Rows of numbers without a gap; None when they are not that, or anything is wrong with them."""
    try:
        rows, pack = _few_numbers.decode(body).rows, _pack(width)
        if 1 <= len(rows) <= max_rows:
            return pack(*rows[0]) if len(rows) == 1 else b"".join([pack(*row) for row in rows])
    except (msgspec.DecodeError, ValueError, RecursionError, struct.error, OverflowError):
        pass  # of which OverflowError is a number too large for float32
    return None


def _decode_some(body: Body, width: int, max_rows: int) -> bytes | None:
    """The same by simdjson, which would flatten rows of any shape, and skip a byte order mark."""
    if body.startswith(BOM_UTF8):
        return None
    try:
        sent: Any = _tools.parser.parse(body)
        rows: Any = sent["rows"]
        alone, array, count = len(sent) == 1, isinstance(rows, simdjson.Array), len(rows)
        if not (alone and array and 1 <= count <= max_rows and _has_brackets(body, count + 1)):
            return None
        if len(rows[0]) != width if count == 1 else {*map(len, rows)} != {width}:
            return None
        return _as_float32(rows).tobytes()
    except (ValueError, TypeError, KeyError, RuntimeError, FloatingPointError):
        return None


def _decode_numbers(body: Body, width: int, max_rows: int) -> Float32 | None:
    """Rows of an all-numeric model, sent as arrays; None when they are not that, or anything is wrong with them.

    Parsed in parts, each of whole rows: what lies between two rows' ends is a list of rows, since rows of numbers hold no bracket.
    """
    opening, closing = _OPENING.match(body), _CLOSING.search(body, max(0, len(body) - 64))
    if opening is None or closing is None:
        return None
    at, stop = opening.end(), closing.start()
    parser, parts, count, view = simdjson.Parser(), [], 0, memoryview(body)
    while at < stop:
        end = body.find(b"]", at + _PART_BYTES, stop) + 1 or stop
        part_ND = _parse_rows(parser, b"".join((b"[", view[at:end], b"]")), width)
        if part_ND is None or (count := count + len(part_ND)) > max_rows:
            return None
        parts.append(part_ND)
        between = _BETWEEN.match(body, end, stop)
        if between is None and not _only_white(body, end, stop):
            return None
        at = between.end() if between else stop
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _parse_rows(parser: simdjson.Parser, text: bytes, width: int) -> Float32 | None:
    """[[...], ...] -> rows [N, D] of finite numbers and gaps; None when it is anything else."""
    try:
        rows: Any = parser.parse(text)
        if {*map(len, rows)} != {width} or not _has_brackets(text, len(rows) + 1):  # it would flatten rows of any shape
            return None
        return _as_float32(rows).reshape(-1, width)
    except (ValueError, TypeError, RuntimeError):
        return _parse_rows_with_gaps(text, width)
    except FloatingPointError:
        return None


def _as_float32(rows: Any) -> Float32:
    """simdjson's rows of numbers, one after the other; FloatingPointError where a finite number is beyond float32."""
    cells: Float32 = _tools.raising.run(np.frombuffer(rows.as_buffer(of_type="d")).astype, _LITTLE_FLOAT)
    return cells


def _has_brackets(text: Body, count: int) -> bool:
    """Whether it has so many opening brackets; of two, which one long row has, searching is faster than counting.

    bytes.count takes four times as long as numpy.
    """
    if count == 2:
        second = text.find(b"[", text.find(b"[") + 1)
        return second > 0 and text.find(b"[", second + 1) < 0
    return bool(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("[")) == count)


def _parse_rows_with_gaps(text: bytes, width: int) -> Float32 | None:
    try:
        with np.errstate(over="ignore"):
            part_ND = np.array(_numbers.decode(text), dtype=np.float32)  # None becomes NaN
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    fits = part_ND.ndim == 2 and part_ND.shape[1] == width and not np.isinf(part_ND).any()
    return part_ND if fits else None


def _only_white(body: Body, start: int, stop: int) -> bool:
    return not body[start:stop].strip(b" \t\r\n")


def _decode_objects(body: Body, schema: Schema, max_rows: int) -> Float32:
    require_few_arrays(body, max_rows)
    rows = _rows_in(_parse(body, "rows", [feature.name for feature in schema.features]), "rows", max_rows)
    rows_ND = np.empty((len(rows), schema.width), dtype=np.float32)
    for index, row in enumerate(rows):
        if isinstance(row, dict):
            row = _in_order(row, index, schema)
        elif not isinstance(row, list) or len(row) != schema.width:
            raise _wrong_width(index, row, schema.width, "features")
        rows_ND[index] = [
            _cell(value, feature, codes, index)
            for value, feature, codes in zip(row, schema.features, schema.codes, strict=True)
        ]
    return rows_ND


def _raw_rows(body: Body, schema: Schema, max_rows: int) -> Float32:
    if not body:
        raise InvalidBody("the body is empty, expected rows of float32")
    row_bytes = 4 * schema.width
    if len(body) % row_bytes:
        expected = f"a multiple of {row_bytes} bytes, {schema.width} features of 4 bytes in each row"
        message = f"expected {expected}, got {len(body)} bytes"
        raise InvalidRow(message, expected=expected, got=f"{len(body)} bytes", reason="width")
    if len(body) // row_bytes > max_rows:
        raise _too_many(len(body) // row_bytes, max_rows)
    return as_rows(body, schema.width)


def _require_raw(rows_ND: Float32, schema: Schema) -> None:
    require_cells(rows_ND, np.isinf(rows_ND), schema, A_NUMBER)
    for column, feature in enumerate(schema.features):
        if feature.kind == "numeric":
            continue
        last = 1 if feature.kind == "boolean" else len(feature.categories) - 1
        first = 0 if feature.kind == "boolean" else UNSEEN
        wrong_ND = np.zeros(rows_ND.shape, dtype=bool)
        values_N = rows_ND[:, column]
        wrong_ND[:, column] = (values_N < first) | (values_N > last) | (values_N % 1 != 0) & ~np.isnan(values_N)
        require_cells(rows_ND, wrong_ND, schema, f"a whole number from {first:g} to {last}")


def _parse(body: Body, field: str, names: Sequence[str]) -> object:
    if not body:
        raise InvalidBody(f'the body is empty, expected a JSON object {{"{field}": [...]}}')
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _name_bad_number(body, field, names)
        raise InvalidJSON(f"the body is not JSON: {str(error)[:200]}") from error


def _name_bad_number(body: Body, field: str, names: Sequence[str]) -> None:
    """InvalidNumber when what keeps a body from being JSON is such a number in a row: that is worth naming the cell."""
    try:
        sent = json.loads(body.decode(), parse_constant=NoNumber, parse_float=parse_float, parse_int=parse_float)
    except (ValueError, RecursionError):
        return
    rows = sent.get(field) if isinstance(sent, dict) else None
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        # of an object only what the model knows: a name from outside may hold what cannot be sent back, half a character
        cells = map(row.get, names) if isinstance(row, dict) else row if isinstance(row, list) else ()
        for name, value in zip(names, cells, strict=False):
            if isinstance(value, NoNumber):
                raise bad_number(index, name, value.text[:40])


def _rows_in(sent: object, field: str, max_rows: int) -> list[Any]:
    if not isinstance(sent, dict) or not isinstance(sent.get(field), list):
        raise InvalidJSON(f'expected a JSON object {{"{field}": [...]}}, got {shown(sent)}')
    if unknown := sorted(sent.keys() - {field}):
        raise InvalidJSON(f"expected only {field!r} in the JSON object, got {unknown[0][:80]!r} too")
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
                message, row=index, feature=name, expected="a value or null", got="nothing", reason="feature"
            )
    return [row[name] for name in schema.positions]


def _cell(value: object, feature: Feature, codes: dict[str, float], row: int) -> float:
    if value is None:
        return math.nan
    if feature.kind == "numeric":
        return _number(value, row, feature.name)
    if feature.kind == "categorical":
        if isinstance(value, str):
            return codes.get(value, UNSEEN)
        raise misfit(row, feature.name, "a string or null", shown(value))
    if value in (0, 1) and isinstance(value, int | float):
        return float(value)
    raise misfit(row, feature.name, "true, false or null", shown(value))


def _number(value: object, row: int, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise misfit(row, name, "a number or null", shown(value))
    if abs(value) >= OVERFLOW:
        raise bad_number(row, name, shown(value))
    return float(value)


def _has_gap(rows_ND: Float32, schema: Schema) -> bool:
    """Whether any value is missing; InvalidRow where so many of a row are that it has no score."""
    if not has_gap(rows_ND):
        return False
    missing_ND = np.isnan(rows_ND)
    observed_N = schema.width - missing_ND.sum(axis=1)
    if observed_N.min() < schema.min_observed:
        row = int(np.argmax(observed_N < schema.min_observed))
        expected = f"at least {schema.min_observed} of {schema.width} values"
        got = f"{observed_N[row]} ({observed_N[row] / schema.width:.0%})"
        raise InvalidRow(
            f"row {row}: expected {expected}, got {got}", row=row, expected=expected, got=got, reason="missing"
        )
    return True


def _wrong_width(row: int, sent: object, width: int, what: str) -> InvalidRow:
    expected = f"{width} {what}"
    if isinstance(sent, list):
        message, got = f"expected {expected}, got {len(sent)} in row {row}", str(len(sent))
    else:
        message = f"expected an array of {expected} or an object, got {(got := shown(sent))} in row {row}"
    return InvalidRow(message, row=row, expected=expected, got=got, reason="width")


def _too_many(rows: int, max_rows: int) -> TooManyRows:
    return TooManyRows(f"expected at most {max_rows} rows in one request, got {rows}")


def media_type_of(content_type: str) -> str:
    """The type alone, in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def _shown_type(media_type: str) -> str:
    return media_type[:80] if media_type else "none"

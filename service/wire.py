"""Request bytes -> float32 rows; results -> bytes. Pure functions: what they need of a model comes in as its Schema.

Shapes: N rows, D features, K latent dimensions. A row is an array in feature order or an object by feature name; null is missing.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from service.artifact import UNSEEN, Feature
from service.detector import Explanation, Scores
from service.errors import InvalidBody, InvalidJSON, InvalidNumber, InvalidRow, TooManyRows, UnsupportedMediaType
from service.registry import Served
from service.schema import Schema

Float32 = NDArray[np.float32]
Request = TypeVar("Request", bound=msgspec.Struct)

JSON = "application/json"
RAW = "application/octet-stream"  # little-endian float32, row after row; NaN is missing, a category its code, -1 an unseen one

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)
_OVERFLOW = _LARGEST + 2.0**103  # halfway to the next power of two: from here on a number rounds to infinity
_A_NUMBER = "a finite number within float32"


def decode_rows(body: bytes, content_type: str, schema: Schema, *, max_rows: int) -> Float32:
    """Body -> rows [N, D]; an error that names row and feature otherwise. The fast way first, the exact one to say what is wrong."""
    media_type = _media_type(content_type)
    if media_type == JSON:
        rows_ND = _decode_numbers(body, schema.width, max_rows) if schema.all_numeric else None
        if rows_ND is None:
            rows_ND = _decode_cells(body, schema, max_rows)
    elif media_type == RAW:
        rows_ND = _decode_raw(body, schema, max_rows)
    else:
        raise UnsupportedMediaType(f"expected a body of type {JSON} or {RAW}, got {_shown_type(media_type)}")
    _require_observed(rows_ND, schema)
    return rows_ND


def decode_codes(body: bytes, content_type: str, width: int, *, max_rows: int) -> Float32:
    """JSON body {"codes": [[...]]} -> codes [N, K]."""
    require_json(content_type)
    codes = _rows_in(_parse(body, "codes", [f"code[{k}]" for k in range(width)]), "codes", max_rows)
    codes_NK = np.empty((len(codes), width), dtype=np.float32)
    for index, code in enumerate(codes):
        if not isinstance(code, list) or len(code) != width:
            raise _wrong_width(index, code, width, "latent numbers")
        codes_NK[index] = [_number(value, index, f"code[{k}]") for k, value in enumerate(code)]
    return codes_NK


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
    if (media_type := _media_type(content_type)) != JSON:
        raise UnsupportedMediaType(f"expected a body of type {JSON}, got {_shown_type(media_type)}")


def sent_categories(body: bytes, content_type: str, schema: Schema, rows_ND: Float32) -> dict[tuple[int, int], str]:
    """(row, column) -> the string that came, where it is a category the model has not met; of a body that decode_rows has read."""
    categorical = np.array([feature.kind == "categorical" for feature in schema.features])
    unseen = np.argwhere((rows_ND == UNSEEN) & categorical)
    if len(unseen) == 0 or _media_type(content_type) != JSON:
        return {}
    rows = msgspec.json.decode(body)["rows"]
    names = [feature.name for feature in schema.features]
    return {(n, d): rows[n][d] if isinstance(rows[n], list) else rows[n][names[d]] for n, d in unseen.tolist()}


def encode_scores(served: Served, scores: Scores) -> bytes:
    """The answer to a score request; InvalidRow where a score is not finite."""
    return _encode(_score_fields(served, scores))


def encode_explanations(
    served: Served, rows_ND: Float32, explanation: Explanation, sent: dict[tuple[int, int], str], *, top: int
) -> bytes:
    """The answer to an explain request: the scores, and per row its `top` largest contributions."""
    score_N, p_value_N, contributions_ND, expected_ND = explanation
    fields = _score_fields(served, Scores(score_N, p_value_N))
    _require_finite(served, contributions_ND, expected_ND)
    order_ND = np.argsort(-contributions_ND, axis=1, kind="stable")[:, :top]
    shares_ND = contributions_ND / np.maximum(score_N, np.float32(_SMALLEST))[:, None]
    fields["explanations"] = [
        [
            {
                "feature": (feature := served.schema.features[d]).name,
                "contribution": contributions_ND[n, d],
                "share": shares_ND[n, d],
                "actual": sent[n, d] if (n, d) in sent else _actual(rows_ND[n, d], feature),
                "expected": expected_ND[n, d] if feature.kind == "boolean" else _value(expected_ND[n, d], feature),
                **({"unit": feature.unit} if feature.unit else {}),
            }
            for d in columns
        ]
        for n, columns in enumerate(order_ND.tolist())
    ]
    return _encode(fields)


def encode_rows(served: Served, rows_ND: Float32, *, filled_from: Float32 | None = None) -> bytes:
    """Reconstructed rows, and by row the names of the features that `filled_from` lacks."""
    _require_finite(served, rows_ND)
    features = served.schema.features
    fields = _head(served)
    if served.schema.all_numeric:
        fields["rows"] = rows_ND
    else:
        fields["rows"] = [
            [_value(value, feature) for value, feature in zip(row, features, strict=True)] for row in rows_ND
        ]
    if filled_from is not None:
        fields["filled"] = [
            [features[d].name for d in np.flatnonzero(missing_D)] for missing_D in np.isnan(filled_from)
        ]
    return _encode(fields)


def encode_codes(served: Served, codes_NK: Float32) -> bytes:
    """The answer to an encode request."""
    _require_finite(served, codes_NK)
    return _encode({**_head(served), "codes": codes_NK})


class _Numbers(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[list[float | None]]


_numbers = msgspec.json.Decoder(_Numbers)


def _decode_numbers(body: bytes, width: int, max_rows: int) -> Float32 | None:
    """Rows of an all-numeric model, sent as arrays; None when they are not that, or anything is wrong with them."""
    try:
        with np.errstate(over="ignore"):
            rows_ND = np.array(_numbers.decode(body).rows, dtype=np.float32)  # None becomes NaN
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    fits = rows_ND.ndim == 2 and rows_ND.shape[1] == width and len(rows_ND) <= max_rows and not np.isinf(rows_ND).any()
    return rows_ND if fits else None


def _decode_cells(body: bytes, schema: Schema, max_rows: int) -> Float32:
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


def _decode_raw(body: bytes, schema: Schema, max_rows: int) -> Float32:
    if not body:
        raise InvalidBody("the body is empty, expected rows of float32")
    row_bytes = 4 * schema.width
    if len(body) % row_bytes:
        expected = f"a multiple of {row_bytes} bytes, {schema.width} features of 4 bytes in each row"
        message = f"expected {expected}, got {len(body)} bytes"
        raise InvalidRow(message, expected=expected, got=f"{len(body)} bytes", reason="width")
    if len(body) // row_bytes > max_rows:
        raise _too_many(len(body) // row_bytes, max_rows)
    rows_ND = np.frombuffer(body, dtype="<f4").reshape(-1, schema.width)
    _require_cells(rows_ND, np.isinf(rows_ND), schema, _A_NUMBER)
    for column, feature in enumerate(schema.features):
        if feature.kind == "numeric":
            continue
        last = 1 if feature.kind == "boolean" else len(feature.categories) - 1
        first = 0 if feature.kind == "boolean" else UNSEEN
        wrong_ND = np.zeros(rows_ND.shape, dtype=bool)
        values_N = rows_ND[:, column]
        wrong_ND[:, column] = (values_N < first) | (values_N > last) | (values_N % 1 != 0) & ~np.isnan(values_N)
        _require_cells(rows_ND, wrong_ND, schema, f"a whole number from {first:g} to {last}")
    return rows_ND


def _require_cells(rows_ND: Float32, wrong_ND: NDArray[np.bool_], schema: Schema, expected: str) -> None:
    if wrong_ND.any():
        row, column = np.argwhere(wrong_ND)[0].tolist()
        raise _misfit(row, schema.features[column].name, expected, f"{rows_ND[row, column]:g}")


def _parse(body: bytes, field: str, names: Sequence[str]) -> object:
    if not body:
        raise InvalidBody(f'the body is empty, expected a JSON object {{"{field}": [...]}}')
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _name_bad_number(body, field, names)
        raise InvalidJSON(f"the body is not JSON: {str(error)[:200]}") from error


class _NoNumber(NamedTuple):
    """What stands where a number should: NaN, Infinity, or digits beyond any float."""

    text: str


def _name_bad_number(body: bytes, field: str, names: Sequence[str]) -> None:
    """InvalidNumber when what keeps a body from being JSON is such a number in a row: that is worth naming the cell."""
    try:
        sent = json.loads(body.decode(), parse_constant=_NoNumber, parse_float=_float, parse_int=_float)
    except (ValueError, RecursionError):
        return
    rows = sent.get(field) if isinstance(sent, dict) else None
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        named = row.items() if isinstance(row, dict) else zip(names, row, strict=False) if isinstance(row, list) else ()
        for name, value in named:
            if isinstance(value, _NoNumber):
                raise _bad_number(index, name, value.text[:40])


def _float(text: str) -> float | _NoNumber:
    return value if math.isfinite(value := float(text)) else _NoNumber(text)


def _rows_in(sent: object, field: str, max_rows: int) -> list[Any]:
    if not isinstance(sent, dict) or not isinstance(sent.get(field), list):
        raise InvalidJSON(f'expected a JSON object {{"{field}": [...]}}, got {_shown(sent)}')
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
        raise _misfit(row, feature.name, "a string or null", _shown(value))
    if value in (0, 1) and isinstance(value, int | float):
        return float(value)
    raise _misfit(row, feature.name, "true, false or null", _shown(value))


def _number(value: object, row: int, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _misfit(row, name, "a number or null", _shown(value))
    if abs(value) >= _OVERFLOW:
        raise _bad_number(row, name, _shown(value))
    return float(value)


def _require_observed(rows_ND: Float32, schema: Schema) -> None:
    missing_ND = np.isnan(rows_ND)
    if not missing_ND.any():
        return
    observed_N = schema.width - missing_ND.sum(axis=1)
    if observed_N.min() < schema.min_observed:
        row = int(np.argmax(observed_N < schema.min_observed))
        expected = f"at least {schema.min_observed} of {schema.width} values"
        got = f"{observed_N[row]} ({observed_N[row] / schema.width:.0%})"
        raise InvalidRow(
            f"row {row}: expected {expected}, got {got}", row=row, expected=expected, got=got, reason="missing"
        )


def _score_fields(served: Served, scores: Scores) -> dict[str, object]:
    _require_finite(served, scores.score)
    threshold = served.threshold
    with np.errstate(over="ignore"):
        ratio_N = scores.score / np.float32(max(threshold.score, _SMALLEST))
    return {
        **_head(served),
        "alpha": threshold.alpha,
        "delta": threshold.delta,
        "certified": threshold.certified,
        "threshold": threshold.score,
        "score": scores.score,
        "ratio": np.minimum(ratio_N, np.float32(_LARGEST)),
        "p_value": scores.p_value,
        "is_anomaly": scores.score > threshold.score,
    }


def _require_finite(served: Served, *answers: Float32) -> None:
    """Refuse rows so far out that the model's float32 arithmetic overflows: neither NaN nor infinity is an answer."""
    for answer in answers:
        if not np.isfinite(answer).all():
            row = int(np.argwhere(~np.isfinite(answer))[0, 0])
            message = f"row {row} is so far from what {served.name} knows that its score is beyond float32"
            raise InvalidRow(message, row=row, expected="values whose score fits float32")


def _head(served: Served) -> dict[str, object]:
    return {"model": served.name, "version": served.detector.version}


def _actual(value: np.float32, feature: Feature) -> object:
    if np.isnan(value):
        return None
    if feature.kind == "categorical" and value == UNSEEN:
        return int(UNSEEN)  # of a raw body, which holds no string
    return _value(value, feature)


def _value(value: np.float32, feature: Feature) -> object:
    if feature.kind == "boolean":
        return bool(value >= 0.5)
    if feature.kind == "categorical":
        return feature.categories[int(value)] if feature.categories else None
    return value


def _encode(fields: dict[str, object]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def _wrong_width(row: int, sent: object, width: int, what: str) -> InvalidRow:
    expected = f"{width} {what}"
    if isinstance(sent, list):
        message, got = f"expected {expected}, got {len(sent)} in row {row}", str(len(sent))
    else:
        message = f"expected an array of {expected} or an object, got {(got := _shown(sent))} in row {row}"
    return InvalidRow(message, row=row, expected=expected, got=got, reason="width")


def _bad_number(row: int, name: str, got: str) -> InvalidNumber:
    message = f"expected {_A_NUMBER} for {name!r}, got {got} in row {row}"
    return InvalidNumber(message, row=row, feature=name, expected=_A_NUMBER, got=got)


def _misfit(row: int, name: str, expected: str, got: str) -> InvalidRow:
    message = f"expected {expected} for {name!r}, got {got} in row {row}"
    return InvalidRow(message, row=row, feature=name, expected=expected, got=got)


def _too_many(rows: int, max_rows: int) -> TooManyRows:
    return TooManyRows(f"expected at most {max_rows} rows in one request, got {rows}")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _shown_type(media_type: str) -> str:
    return media_type[:80] if media_type else "none"


def _shown(value: object) -> str:
    """What came, short, as JSON; ASCII, since a lone surrogate cannot be written out again."""
    if isinstance(value, list | dict):
        return ("an array" if isinstance(value, list) else "an object") + f" of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "…"

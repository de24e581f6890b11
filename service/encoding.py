"""Results -> the bytes of answers. Pure functions: what they need of a model comes in as Served.

Shapes: N rows, D features, K latent dimensions.
"""

import math
from array import array
from collections.abc import Sequence
from itertools import repeat
from typing import cast

import numpy as np
import orjson
from numpy.typing import NDArray

from service.artifact import UNSEEN, Feature
from service.calibration import Threshold
from service.decoding import JSON
from service.detector import Explanation, Scores
from service.errors import InvalidRow
from service.registry import Served

Float32 = NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)

_FEW_ROWS = 16  # up to here lists are faster than numpy
_LARGE_ROWS = 48  # of a request: from here on its text is made by itself faster than cut out of all requests' text


def encode_each(
    served: Served, scores: Scores, spans: Sequence[tuple[int, int]], *, raw: bool = False
) -> list[bytes | InvalidRow]:
    """The answers to score requests that were scored together, by their first row and the one after their last.

    InvalidRow in place of the answer where a score is not finite.
    """
    if not spans:
        return []
    if raw:
        return [_encode_part(served, scores, span, raw=True) for span in spans]
    threshold, count = served.threshold, len(scores.score)
    head = _score_head(served)
    if count <= _FEW_ROWS:
        cells = _cells_of_few(scores, threshold)
        if b"null" in cells[0]:
            return [_encode_part(served, scores, span) for span in spans]
    else:
        if len(spans) > 1 and count > _LARGE_ROWS * len(spans):
            return [_encode_part(served, scores, span) for span in spans]
        columns = _columns_of_many(scores, threshold)
        if b"n" in columns[0]:  # a null among the scores: none can be had for a row so far out
            return [_encode_part(served, scores, span) for span in spans]
        if spans[0] == (0, count):
            return [_SCORES % (head, *columns)]
        cells = [column.split(b",") for column in columns]
    if len(spans) == count:  # one row each
        return [_SCORES % row for row in zip(repeat(head, count), *cells, strict=True)]
    return [_SCORES % (head, *[b",".join(column[start:end]) for column in cells]) for start, end in spans]


class OneRow:
    """Encodes answers to requests of one row. For one thread: it keeps the array of an answer's three numbers, which costs to make."""

    def __init__(self) -> None:
        self._array = np.zeros(3, np.float32)
        self._numbers = cast("memoryview[float]", self._array.data)

    def encode(self, served: Served, score: float, p_value: float) -> bytes:
        """The answer; InvalidRow where the score is not finite."""
        if not math.isfinite(score):
            require_finite(served, np.array([score], np.float32))
        threshold, numbers = served.threshold, self._numbers
        numbers[0], numbers[1], numbers[2] = score, min(score / max(threshold.score, _SMALLEST), _LARGEST), p_value
        text = orjson.dumps(self._array, option=orjson.OPT_SERIALIZE_NUMPY)
        head = served.begun.get(JSON) or _score_head(served)
        return _SCORES % (head, *text[1:-1].split(b","), b"true" if score > threshold.score else b"false")


def raw_headers(served: Served) -> dict[str, str]:
    """What goes with a raw answer: the rest of what it is in JSON. A row is an anomaly where its score is above the threshold."""
    fields = _score_head_fields(served)
    return {raw_header(field): orjson.dumps(value).decode().strip('"') for field, value in fields.items()}


def raw_header(field: str) -> str:
    """The header that holds what is a field in JSON."""
    return f"hourglass-{field}"


def encode_explanations(
    served: Served, rows_ND: Float32, explanation: Explanation, sent: dict[tuple[int, int], str], *, top: int
) -> bytes:
    """The answer to an explain request: the scores, and per row its `top` largest contributions."""
    score_N, p_value_N, contributions_ND, expected_ND = explanation
    fields = _score_fields(served, Scores(score_N, p_value_N))
    require_finite(served, contributions_ND, expected_ND)
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
    require_finite(served, rows_ND)
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
    require_finite(served, codes_NK)
    return _encode({**_head(served), "codes": codes_NK})


def require_finite(served: Served, *answers: Float32, what: str = "score") -> None:
    """Refuse rows so far out that the model's float32 arithmetic overflows: neither NaN nor infinity is an answer."""
    for answer in answers:
        if not np.isfinite(answer).all():
            row = int(np.argwhere(~np.isfinite(answer))[0, 0])
            message = f"row {row} is so far from what {served.name} knows that its {what} is beyond float32"
            raise InvalidRow(message, row=row, expected=f"values whose {what} fits float32")


_SCORES = b'%b,"score":[%b],"ratio":[%b],"p_value":[%b],"is_anomaly":[%b]}'


def _score_head(served: Served) -> bytes:
    """The answer's beginning, the same for every request that one model answers."""
    if (head := served.begun.get(JSON)) is None:
        head = served.begun[JSON] = _encode(_score_head_fields(served))[:-1]
    return head


def _score_head_fields(served: Served) -> dict[str, object]:
    threshold = served.threshold
    return {
        "model": served.name,
        "version": served.detector.version,
        "alpha": threshold.alpha,
        "delta": threshold.delta,
        "certified": threshold.certified,
        "threshold": threshold.score,
    }


def _cells_of_few(scores: Scores, threshold: Threshold) -> list[list[bytes]]:
    """The text of every number, by column. For so few a call of numpy's costs more than to do without."""
    limit = max(threshold.score, _SMALLEST)
    score_N, p_value_N = scores.score.tolist(), scores.p_value.tolist()
    count = len(score_N)
    numbers = array("f", score_N)
    numbers.extend([min(score / limit, _LARGEST) for score in score_N])
    numbers.extend(p_value_N)
    texts = orjson.dumps(np.frombuffer(numbers, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    is_anomaly_N = [b"true" if score > threshold.score else b"false" for score in score_N]
    return [texts[:count], texts[count : 2 * count], texts[2 * count :], is_anomaly_N]


def _columns_of_many(scores: Scores, threshold: Threshold) -> list[bytes]:
    """The same as _cells_of_few, each column as one text with commas between."""
    columns = scores.score, _ratio(scores.score, threshold), scores.p_value, scores.score > threshold.score
    return [orjson.dumps(values_N, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for values_N in columns]


def _ratio(score_N: Float32, threshold: Threshold) -> Float32:
    """Each score over the threshold, at most the largest float32; of two float32 the quotient loses nothing on the way by float64."""
    ratio_N = np.minimum(score_N / np.float64(max(threshold.score, _SMALLEST)), _LARGEST)
    return ratio_N.astype(np.float32)


def _encode_part(served: Served, scores: Scores, span: tuple[int, int], *, raw: bool = False) -> bytes | InvalidRow:
    start, end = span
    part = Scores(scores.score[start:end], scores.p_value[start:end])
    try:
        require_finite(served, part.score)
    except InvalidRow as error:
        return error
    if raw:
        return np.stack(part, axis=1).astype("<f4", copy=False).tobytes()
    return encode_each(served, part, [(0, end - start)])[0]


def _score_fields(served: Served, scores: Scores) -> dict[str, object]:
    require_finite(served, scores.score)
    threshold = served.threshold
    return {
        **_score_head_fields(served),
        "score": scores.score,
        "ratio": _ratio(scores.score, threshold),
        "p_value": scores.p_value,
        "is_anomaly": scores.score > threshold.score,
    }


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

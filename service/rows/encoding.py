"""Results -> the bytes of answers. Pure functions: what they need of a model comes in as Served.

Shapes: N rows, D features, K latent dimensions.
"""

from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from hourglass.service.errors import InvalidRow
from hourglass.service.floats import write_scores
from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.model.detector import Codes, Explanation, Scores
from hourglass.service.model.reasons import Reasons
from hourglass.service.model.served import Served
from hourglass.service.rows.ordered import Spread
from hourglass.service.rows.sentences import deviation, say_why

Float32 = NDArray[np.float32]
Integers = NDArray[np.intp]

SLICE_CELLS, SLICE_ROWS = 2**13, 32  # that are written at once, of numbers and of anything else
_SMALLEST = float(np.finfo(np.float32).tiny)


def encode_each(
    served: Served, scores: Scores, spans: list[tuple[int, int]], *, raw: bool = False
) -> list[bytes | InvalidRow]:
    """The answers to score requests that were scored together, by their first row and the one after
    its last.

    InvalidRow in place of the answer where a score is not finite.
    """
    if raw:
        answers = [_encode_raw(scores, span) for span in spans]
    else:
        answers = write_scores(
            served.answer_head,
            served.threshold.score,
            served.detector.table.largest,
            *scores,
            spans,
        )
    return [
        _too_far(served, scores.score[start:end]) if answer is None else answer
        for (start, end), answer in zip(spans, answers, strict=True)
    ]


def encode_in_order(served: Served, spread: Spread, *, raw: bool = False) -> bytes:
    """What a score request of rows in order is answered: null, or NaN, of rows not judged."""
    require_known(served, spread)
    if raw:
        scores = (spread.scores.score, spread.scores.p_value)
        return np.stack(scores, axis=1).astype("<f4", copy=False).tobytes()
    return encode_object(_fields_in_order(served, spread))


def raw_headers(served: Served) -> dict[str, str]:
    """What goes with a raw answer: the rest of what it is in JSON.

    A row is an anomaly where its score is above the threshold.
    """
    return {
        raw_header(field): (
            orjson.dumps(value).decode().encode("ascii", "backslashreplace").decode().strip('"')
        )
        for field, value in served.facts().items()
    }


def raw_header(field: str) -> str:
    """The header that holds what is a field in JSON."""
    return f"hourglass-{field}"


class Explained(NamedTuple):
    """Some of a request's rows, and what was found about them."""

    rows_ND: Float32
    explanation: Explanation
    reasons: Reasons | None


def encode_explanations(
    served: Served, parts: Iterable[Explained], sent: dict[tuple[int, int], str], *, top: int
) -> bytes:
    """The answer to an explain request: the scores, the sentences of rows that alarm, and per row
    `top` features, those to blame first.

    `parts` are all of its rows in order; each is written before the next is asked for.
    """
    scores: list[Scores] = []
    sentences: list[str | None] = []
    pieces: list[bytes] = []
    first = 0
    for rows_ND, explanation, reasons in parts:
        score_N, p_value_N, severity_N, contributions_ND, expected_ND = explanation
        require_finite(served, score_N, contributions_ND, expected_ND, first=first)
        scores.append(Scores(score_N, p_value_N, severity_N))
        came = {(n - first, d): text for (n, d), text in sent.items() if n >= first} if sent else {}
        if reasons is None:
            sentences += [None] * len(rows_ND)
        else:
            sentences += say_why(served.schema.features, rows_ND, reasons, came)
        pieces += _pieces(explain_rows(served, rows_ND, explanation, reasons, came, top))
        first += len(rows_ND)
    fields = _score_fields(served, Scores(*map(np.concatenate, zip(*scores, strict=True))))
    return encode_object({**fields, "reason": sentences, "explanations": pieces})


def encode_explanations_in_order(
    served: Served,
    rows_ND: Float32,
    spread: Spread,
    parts: Iterable[tuple[Integers, Explained]],
    sent: dict[tuple[int, int], str],
    *,
    top: int,
) -> bytes:
    """The same of a windowed model: with which of all rows each of the parts' are, and null of
    those that are not judged.
    """
    require_known(served, spread)
    sentences: list[str | None] = [None] * len(rows_ND)
    pieces = [b"null"] * len(rows_ND)
    for judged_M, explained in parts:
        features, places = served.schema.features, judged_M.tolist()
        known_M = spread.known_N[judged_M]
        for answer in (explained.explanation.contributions, explained.explanation.reconstruction):
            require_finite(served, answer[known_M])
        came = {
            (m, d): sent[n, d]
            for m, n in enumerate(places if sent else ())
            for d in range(len(features))
            if (n, d) in sent
        }
        said: list[str | None] = [None] * len(places)
        if explained.reasons is not None:
            said = say_why(features, explained.rows_ND, explained.reasons, came)
        told = explain_rows(
            served, explained.rows_ND, explained.explanation, explained.reasons, came, top
        )
        for n, is_known, sentence, cells in zip(places, known_M, said, told, strict=True):
            if is_known:
                sentences[n] = sentence
                pieces[n] = orjson.dumps(cells, option=orjson.OPT_SERIALIZE_NUMPY)
    fields = _fields_in_order(served, spread)
    return encode_object({**fields, "reason": sentences, "explanations": pieces})


def explain_rows(
    served: Served,
    rows_ND: Float32,
    explanation: Explanation,
    reasons: Reasons | None,
    sent: dict[tuple[int, int], str],
    top: int,
) -> Iterator[list[dict[str, object]]]:
    """For each row what is said of `top` features."""
    contributions_ND, expected_ND = explanation.contributions, explanation.reconstruction
    if reasons is None:
        order_ND = np.argsort(-contributions_ND, axis=1, kind="stable")[:, :top]
    else:
        order_ND = reasons.order_ND[:, :top]
        expected_ND = reasons.expected.value_ND.astype(np.float32)
    shares_ND = contributions_ND / np.maximum(explanation.score, np.float32(_SMALLEST))[:, None]
    for n, columns in enumerate(order_ND.tolist()):
        yield [
            {
                "feature": (feature := served.schema.features[d]).name,
                "contribution": contributions_ND[n, d],
                "share": shares_ND[n, d],
                "actual": sent[n, d] if (n, d) in sent else _actual(rows_ND[n, d], feature),
                "expected": expected_ND[n, d]
                if feature.kind == "boolean"
                else _value(expected_ND[n, d], feature),
                **({"unit": feature.unit} if feature.unit else {}),
                **_expectation(reasons, rows_ND, n, d),
            }
            for d in columns
        ]


def encode_rows(
    served: Served,
    rows_ND: Float32,
    *,
    filled_from: Float32 | None = None,
    known_N: NDArray[np.bool_] | None = None,
    known_entity_N: NDArray[np.bool_] | None = None,
) -> bytes:
    """Reconstructed rows, and by row the names of the features that `filled_from` lacks; null of
    rows that are not `known`, if not all are.
    """
    all_known = known_N is None or bool(known_N.all())
    require_finite(served, rows_ND if known_N is None else np.where(known_N[:, None], rows_ND, 0))
    known = [True] * len(rows_ND) if known_N is None else known_N.tolist()
    features = served.schema.features
    fields = _head(served)
    if served.schema.all_numeric and all_known:
        fields["rows"] = rows_ND
    else:
        fields["rows"] = (
            [_value(value, feature) for value, feature in zip(row, features, strict=True)]
            if is_known
            else None
            for row, is_known in zip(rows_ND, known, strict=True)
        )
    if filled_from is not None:
        fields["filled"] = (
            [features[d].name for d in np.flatnonzero(np.isnan(row_D))] if is_known else None
            for row_D, is_known in zip(filled_from, known, strict=True)
        )
    return encode_object(fields | known_entity(known_entity_N))


def known_entity(known_entity_N: NDArray[np.bool_] | None) -> dict[str, NDArray[np.bool_]]:
    """The field that tells of each row whether its entity has a baseline; none where none has."""
    return {} if known_entity_N is None else {"known_entity": known_entity_N}


def row_values(features: tuple[Feature, ...], row_D: Float32) -> list[object]:
    """A row as clients send it: null is missing, a category its string."""
    return [_actual(value, feature) for value, feature in zip(row_D, features, strict=True)]


def encode_codes(
    served: Served,
    codes: Codes,
    *,
    known_N: NDArray[np.bool_] | None = None,
    known_entity_N: NDArray[np.bool_] | None = None,
) -> bytes:
    """The answer to an encode request; null of rows that are not `known`, if not all are."""
    fields = _head(served)
    for name, values_NK in (("codes", codes.code), ("deviations", codes.deviation)):
        if values_NK is None:
            continue
        if known_N is None:
            require_finite(served, values_NK)
            fields[name] = values_NK
        else:
            require_finite(served, np.where(known_N[:, None], values_NK, 0))
            pairs = zip(values_NK, known_N.tolist(), strict=True)
            fields[name] = (code_K if is_known else None for code_K, is_known in pairs)
    return encode_object(fields | known_entity(known_entity_N))


def encode_raw_rows(served: Served, rows_ND: Float32) -> bytes:
    """Reconstructed rows as mere numbers, a category as its index."""
    require_finite(served, rows_ND)
    return rows_ND.astype("<f4", copy=False).tobytes()


def raw_head(served: Served) -> dict[str, str]:
    """What goes with raw rows: which model made them."""
    return {raw_header(field): str(value) for field, value in _head(served).items()}


def require_finite(served: Served, *answers: Float32, what: str = "score", first: int = 0) -> None:
    """Refuse rows so far out that the model's float32 arithmetic overflows: neither NaN nor
    infinity is an answer.
    """
    for answer in answers:
        if not np.isfinite(answer).all():
            raise _too_far(served, answer, what, first)


def require_known(served: Served, spread: Spread) -> None:
    """require_finite of the rows in order that are judged."""
    score_N = np.where(spread.known_N, spread.scores.score, np.float32(0))
    require_finite(served, score_N)


def _too_far(served: Served, answer: Float32, what: str = "score", first: int = 0) -> InvalidRow:
    row = first + int(np.argwhere(~np.isfinite(answer))[0, 0])
    message = f"row {row} is so far from what {served.name} knows that its {what} is beyond float32"
    return InvalidRow(message, row=row, expected=f"values whose {what} fits float32")


def _encode_raw(scores: Scores, span: tuple[int, int]) -> bytes | None:
    start, end = span
    if not np.isfinite(scores.score[start:end]).all():
        return None
    return (
        np.stack((scores.score[start:end], scores.p_value[start:end]), axis=1)
        .astype("<f4", copy=False)
        .tobytes()
    )


def _score_fields(served: Served, scores: Scores) -> dict[str, object]:
    require_finite(served, scores.score)
    threshold = served.threshold
    return {
        **served.facts(),
        "score": scores.score,
        "ratio": threshold.ratio(scores.score),
        "p_value": scores.p_value,
        "severity": scores.severity,
        "extrapolated": served.detector.table.is_extrapolated(scores.score),
        "is_anomaly": threshold.is_anomaly(scores.score),
    }


def _fields_in_order(served: Served, spread: Spread) -> dict[str, object]:
    score_N, threshold = spread.scores.score, served.threshold
    known = spread.known_N.tolist()

    def where_known(values_N: NDArray[np.bool_]) -> list[bool | None]:
        pairs = zip(values_N.tolist(), known, strict=True)
        return [value if is_known else None for value, is_known in pairs]

    return {
        **served.facts(),
        "score": score_N,  # of which NaN is written as null
        "ratio": threshold.ratio(score_N),
        "p_value": spread.scores.p_value,
        "severity": spread.scores.severity,
        "extrapolated": where_known(served.detector.table.is_extrapolated(score_N)),
        "is_anomaly": where_known(threshold.is_anomaly(score_N)),
        "warming": spread.warming_N,
        **known_entity(spread.known_entity_N),
    }


def _expectation(reasons: Reasons | None, rows_ND: Float32, n: int, d: int) -> dict[str, object]:
    """How sure what was expected is, how far off the value is, and whether it is to blame."""
    if reasons is None:
        return {}
    expected = reasons.expected
    far = deviation(float(rows_ND[n, d]), expected, (n, d))
    blamed = reasons.order_ND[n, : reasons.blamed_N[n]]
    return {
        "expected_sd": expected.sd_ND[n, d],
        "deviation": far,
        "direction": None if far != far else "high" if far > 0 else "low",
        "probability": expected.probability_ND[n, d],
        "blamed": not reasons.as_a_whole_N[n] and d in blamed,
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


def encode_object(fields: Mapping[str, object]) -> bytes:
    """A JSON object. Its arrays and iterators are written slice by slice, since the library lets
    nobody else run while it writes; a list of bytes is JSON that was so written.
    """
    written = BytesIO()  # which gives away what it holds without a copy
    for name, value in fields.items():
        written.write(b"%b%b:" % (b"," if written.tell() else b"{", orjson.dumps(name)))
        if isinstance(value, np.ndarray | Iterator) or (value and isinstance(value, list)):
            written.write(b"[")
            listed = isinstance(value, list) and isinstance(value[0], bytes)
            for place, piece in enumerate(value if listed else _pieces(value)):
                written.write(b",%b" % piece if place else piece)
            written.write(b"]")
        else:
            written.write(orjson.dumps(value))
    written.write(b"}")
    return written.getvalue()


def _pieces(values: "Float32 | Iterator[object] | list[object]") -> Iterator[bytes]:
    """JSON of the elements, some at a time, without the brackets around them."""
    if isinstance(values, np.ndarray):
        step = max(1, SLICE_CELLS * len(values) // max(1, values.size))
        parts: Iterator[object] = (values[at : at + step] for at in range(0, len(values), step))
    else:
        iterator = iter(values)
        parts = iter(lambda: list(islice(iterator, SLICE_ROWS)), [])
    for part in parts:
        yield orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]

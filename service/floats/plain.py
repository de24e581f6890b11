"""What compiled.pyi describes, in Python: equal answers where there is no C compiler."""

import re
from itertools import chain

import numpy as np
import orjson
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_BEGINNING = re.compile(rb'[ \n\r\t]*\{[ \n\r\t]*"rows"[ \n\r\t]*:[ \n\r\t]*\[')
_MINUS_ZERO = re.compile(rb"-0(?<![eE]-0)(?![.0-9eE])")  # which orjson reads as a whole number, 0
_CELL_TYPES = {int, float, type(None)}
_BEYOND = float.fromhex("0x1.ffffffp127")  # from here on a number rounds to infinity
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)


def read_rows(body: bytes | bytearray, width: int, max_rows: int, /) -> tuple[bytes, bool] | None:
    """A JSON body -> the bytes of its rows, and whether any value is missing."""
    if type(body) not in (bytes, bytearray):
        raise TypeError("expected a body of bytes")
    # a cell and what follows it are two characters or more
    most = min(max_rows, len(body) // 2 // width) if width > 0 else 0
    if (beginning := _BEGINNING.match(body)) is None:
        return None
    count = body.count(b"[", beginning.end())
    if not 0 < count <= most:
        return None
    try:
        sent = orjson.loads(_MINUS_ZERO.sub(b"-0.0", body))
    except orjson.JSONDecodeError:
        return None
    rows = sent["rows"]
    # as many rows as brackets: so no cell is an array, and no second "rows" took the first's place
    if len(sent) != 1 or type(rows) is not list or len(rows) != count:
        return None
    if {*map(type, rows)} != {list} or {*map(len, rows)} != {width}:
        return None
    if not _CELL_TYPES.issuperset(map(type, chain.from_iterable(rows))):
        return None
    values_ND = np.array(rows, np.float64)  # null is NaN
    if (np.abs(values_ND) >= _BEYOND).any():
        return None
    return values_ND.astype("<f4").tobytes(), bool(np.isnan(values_ND).any())


def look_up(
    ends_E: Float32,
    values: Float32,
    lines: Float32,
    numbers_N: Float32,
    found_N: Float32,
    on_line_N: Float32,
    /,
) -> None:
    """found[n] = values[e] by the first end that is not below numbers[n], and its place on the line
    e.
    """
    _require_floats(ends_E, values, lines, numbers_N, found_N, on_line_N)
    steps = len(ends_E)
    if not 0 < steps < len(values) or len(lines) // 4 <= steps:
        raise ValueError("expected a value and a line for each step and one more")
    if not len(found_N) == len(on_line_N) == len(numbers_N):
        raise ValueError("expected a value and a line for each step and one more, and room for all")
    steps_N = np.searchsorted(ends_E, numbers_N)
    found_N[:] = values[steps_N]
    start_N, width_N, base_N, rise_N = lines[: 4 * steps + 4].reshape(-1, 4)[steps_N].T
    below_N = numbers_N < lines[0]  # and not clip, which makes NaN of a start that is
    within_N = np.where(below_N, lines[0], np.minimum(numbers_N, np.float32(_LARGEST)))
    on_line_N[:] = base_N + rise_N * ((within_N - start_N) / width_N)


def write_scores(
    head: bytes,
    threshold: float,
    largest: float,
    score_N: Float32,
    p_value_N: Float32,
    severity_N: Float32,
    spans: list[tuple[int, int]],
    /,
) -> list[bytes | None]:
    """The answers to requests whose rows were scored together."""
    _require_floats(score_N, p_value_N, severity_N)
    if not len(score_N) == len(p_value_N) == len(severity_N):
        raise ValueError("expected a p-value and a severity for each score")
    if type(spans) is not list or not all(type(span) is tuple for span in spans):
        raise TypeError("the spans are a list of tuples of two")
    answers = []
    for start, end in spans.copy():  # which nobody changes meanwhile
        if not 0 <= start < end <= len(score_N):
            raise ValueError(f"{len(score_N)} rows have no span {start} to {end}")
        columns = (each[start:end] for each in (score_N, p_value_N, severity_N))
        answers.append(_answer(head, threshold, largest, *columns))
    return answers


def _answer(
    head: bytes,
    threshold: float,
    largest: float,
    score_N: Float32,
    p_value_N: Float32,
    severity_N: Float32,
) -> bytes | None:
    if not all(np.isfinite(each).all() for each in (score_N, p_value_N, severity_N)):
        return None
    score_of_64_bits_N = score_N.astype(np.float64)
    ratio_N = score_of_64_bits_N / (threshold if threshold > _SMALLEST else _SMALLEST)
    columns = {
        "score": score_N,
        "ratio": ratio_N.clip(-_LARGEST, _LARGEST).astype(np.float32),
        "p_value": p_value_N,
        "severity": severity_N,
        "extrapolated": score_of_64_bits_N > largest,
        "is_anomaly": score_of_64_bits_N > threshold,
    }
    return b"%b,%b" % (head, orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)[1:])


def _require_floats(*arrays: Float32) -> None:
    for array_N in arrays:
        if (
            not isinstance(array_N, np.ndarray)
            or array_N.ndim != 1
            or array_N.dtype != np.float32
            or not array_N.flags.c_contiguous
        ):
            raise TypeError(f"expected an array [N] of float32, got {array_N!r}")

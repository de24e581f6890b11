"""One input for both twins of service/floats: what either answers, the other must.

The first byte of an input chooses the function and how its arguments are made of the others.
"""

import struct
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

Answer = tuple[object, ...]
Float32 = NDArray[np.float32]

WIDTHS = (1, 2, 3, 4, 8, 0, -1, 2**62)
MOST_ROWS = (0, 1, 3, 1000)
HEAD = b'{"model":"m"'


class TwinsDiffer(Exception):
    """What each answers, and the input."""


def ask_both(compiled: ModuleType, plain: ModuleType, data: bytes) -> Answer | None:
    """What both answer; None where the input is too short to ask anything."""
    if not data:
        return None
    ask = (read_rows, read_rows, look_up, write_scores)[data[0] & 3]
    answer, expected = ask(compiled, data[0] >> 2, data[1:]), ask(plain, data[0] >> 2, data[1:])
    if answer != expected:
        raise TwinsDiffer(f"C answers {answer}, Python {expected}, to {data!r}")
    return answer


def read_rows(floats: ModuleType, choice: int, data: bytes) -> Answer:
    """The data are the body; the choice is of its width, the most rows, and bytes or bytearray."""
    kind = bytearray if choice >> 5 else bytes
    return answer_of(floats.read_rows, kind(data), WIDTHS[choice & 7], MOST_ROWS[choice >> 3 & 3])


def look_up(floats: ModuleType, choice: int, data: bytes) -> Answer:
    """Ends and numbers are of the data, as many ends as are chosen; lines are of the numbers."""
    numbers_N = floats_of(data)
    ends_E = np.sort(numbers_N[: choice & 15])
    ends_E = ends_E[~np.isnan(ends_E)]
    values = np.arange(len(ends_E) + (choice >> 4 & 1), dtype=np.float32)
    lines = np.resize(numbers_N[::-1], 4 * len(values)).astype(np.float32)
    found_N, on_line_N = np.zeros((2, len(numbers_N)), np.float32)
    with np.errstate(all="ignore"):  # lines of a model are finite, these are not
        error = answer_of(floats.look_up, ends_E, values, lines, numbers_N, found_N, on_line_N)
    on_line_N[np.isnan(on_line_N)] = np.nan  # whose sign nobody promises
    return error, found_N.tobytes(), on_line_N.tobytes()


def write_scores(floats: ModuleType, choice: int, data: bytes) -> Answer:
    """The data are the threshold, the largest score, and then the columns; the choice is a span."""
    if len(data) < 16:
        return ()
    threshold, largest = struct.unpack_from("<2d", data)
    numbers = floats_of(data[16:])
    columns = numbers[: len(numbers) // 3 * 3].reshape(3, -1)
    count = columns.shape[1]
    spans = [(0, count), *((n, n + 1) for n in range(count)), (choice & 7, choice >> 3)]
    alone = answer_of(floats.write_scores, HEAD, threshold, largest, *columns, spans[:-1])
    return alone, answer_of(floats.write_scores, HEAD, threshold, largest, *columns, spans)


def floats_of(data: bytes) -> Float32:
    return np.frombuffer(data[: len(data) // 4 * 4], "<f4").astype(np.float32)


def answer_of(function: object, *arguments: object) -> object:
    """The answer, or the kind of error."""
    try:
        return function(*arguments)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error)

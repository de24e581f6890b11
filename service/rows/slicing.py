"""A large JSON body, a slice at a time: where one long array in it begins, ends, and may be cut.

Parsing all of it at once would stop every other thread for a second, and hold sixteen times its
bytes. Here numpy, which lets others run, looks for the array's brackets and commas; slices of
about SLICE_BYTES are then parsed one by one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidJSON

Body = bytes | bytearray

SLICE_BYTES = 2**15
WHOLE_BYTES = 4 * SLICE_BYTES  # and less are parsed at once
MARK = "\0elements"  # what stands for the elements in the rest
_REST_BYTES = 2 * SLICE_BYTES
_QUOTE, _BACKSLASH, _COMMA, _BRACKET = b'"\\,['
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]], _STEPS[[*b"]}"]] = 1, -1
_SPACE = np.zeros(256, np.bool_)
_SPACE[[*b" \t\r\n"]] = True


class Sliced(NamedTuple):
    """A body whose longest array, of those so deep, is taken out."""

    body: Body
    rest: Body  # the body with MARK alone in the array, or wholly if it is short
    elements: int  # how many; of an empty array one
    cuts: list[int]  # where the array's slices begin, each behind a bracket or comma; and its end


def slice_array(body: Body, depth: int) -> Sliced:
    """The body without its long array; InvalidJSON where there is much beside that."""
    if len(body) <= WHOLE_BYTES:
        return Sliced(body, body, 0, [])
    count, cuts = _longest_array(body, depth)
    if len(body) - (cuts[-1] - cuts[0]) > _REST_BYTES:  # of spaces, perhaps
        body = _without_spaces(body)
        if len(body) <= WHOLE_BYTES:
            return Sliced(body, body, 0, [])
        count, cuts = _longest_array(body, depth)
    length = cuts[-1] - cuts[0]
    if len(body) - length > _REST_BYTES or body[cuts[0] - 1] != _BRACKET:
        raise InvalidJSON(
            f"expected one array with all but {_REST_BYTES} of the body's {len(body)} bytes, got"
            f" {length} bytes in the longest"
        )
    rest = b'%b"\\u0000elements"%b' % (bytes(body[: cuts[0]]), bytes(body[cuts[-1] :]))
    return Sliced(body, rest, count, cuts)


def slices(sliced: Sliced) -> Iterator[tuple[int, memoryview]]:
    """Where each slice of the array begins, and its elements with the commas between them."""
    body = memoryview(sliced.body)
    for start, after in zip(sliced.cuts, sliced.cuts[1:], strict=False):
        end = after if after == sliced.cuts[-1] else after - 1
        yield start, body[start:end]


def count_commas(text: memoryview, depth: int) -> int:
    """Those so deep in a slice that is too long to be parsed."""
    return sum(
        int(
            np.count_nonzero((piece.bytes_P == _COMMA) & piece.outside_P & (piece.depth_P == depth))
        )
        for piece in _pieces(text)
    )


class _Piece(NamedTuple):
    base: int  # where it begins
    before: int  # brackets that are open there
    bytes_P: NDArray[np.uint8]
    outside_P: NDArray[np.bool_]  # of strings
    steps_P: NDArray[np.int8]  # 1 of a bracket or brace that opens, -1 of one that closes
    depth_P: NDArray[np.int32]  # brackets that are open behind each byte


def _longest_array(body: Body, depth: int) -> tuple[int, list[int]]:
    """The elements and the cuts of the longest array, or object, of those that lie so deep and do
    not lie in one piece.
    """
    longest, most, cuts, count = [0, 0], 0, [0], 0
    for base, before, bytes_P, outside_P, steps_P, depth_P in _pieces(body):
        commas = base + np.flatnonzero((bytes_P == _COMMA) & (depth_P == depth) & outside_P)
        if before >= depth:  # it begins within one
            closes = base + np.flatnonzero((steps_P < 0) & (depth_P == depth - 1))
            end = int(closes[0]) if len(closes) else base + len(bytes_P)
            within = commas[: int(np.searchsorted(commas, end))]
            count += len(within)
            if len(within):
                cuts.append(int(within[-1]) + 1)
            if len(closes) and end - cuts[0] > longest[-1] - longest[0]:
                longest, most = [*cuts, end], count + 1
        opens = np.flatnonzero((steps_P > 0) & (depth_P == depth))
        if depth_P[-1] >= depth and len(opens):  # it ends within one that it has opened
            cuts = [base + int(opens[-1]) + 1]
            within = commas[int(np.searchsorted(commas, cuts[0])) :]
            count = len(within)
            if count:
                cuts.append(int(within[-1]) + 1)
    return most, longest


def _without_spaces(body: Body) -> bytes:
    return b"".join(
        piece.bytes_P[~(_SPACE[piece.bytes_P] & piece.outside_P)].tobytes()
        for piece in _pieces(body)
    )


def _pieces(body: Body | memoryview) -> Iterator[_Piece]:
    before, run, in_string = 0, 0, False  # at a piece's beginning; the run is one of backslashes
    for base in range(0, len(body), SLICE_BYTES):
        bytes_P = np.frombuffer(body, np.uint8, min(SLICE_BYTES, len(body) - base), base)
        quotes_P = bytes_P == _QUOTE
        if run or (bytes_P == _BACKSLASH).any():
            places_P = np.arange(len(bytes_P))
            others_P = np.where(bytes_P != _BACKSLASH, places_P, -1 - run)
            runs_P = places_P - np.maximum.accumulate(others_P)  # of those up to each byte
            quotes_P[1:] &= runs_P[:-1] % 2 == 0
            quotes_P[0] &= run % 2 == 0
            run = int(runs_P[-1])
        outside_P = ~(np.logical_xor.accumulate(quotes_P) ^ in_string)
        steps_P = _STEPS[bytes_P] * outside_P
        depth_P = np.cumsum(steps_P, dtype=np.int32)
        depth_P += before
        yield _Piece(base, before, bytes_P, outside_P, steps_P, depth_P)
        before, in_string = int(depth_P[-1]), not outside_P[-1]

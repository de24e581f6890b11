"""What of the hot path is in C (csrc): rows read from JSON, scores looked up, answers written to
JSON. plain.py has the same functions in Python.

What is read is rounded as Python and numpy would; what is written is as short as can be.
"""

import numpy as np
from numpy.typing import NDArray

def read_rows(body: bytes | bytearray, width: int, max_rows: int, /) -> tuple[bytes, bool] | None:
    """{"rows": [[...], ...]} -> rows of so many numbers, as little-endian float32 one after the
    other, and whether any is null, which is NaN. None where it is anything else: other JSON or none
    at all, another width, no row or more than max_rows, a number that is beyond float32. Others run
    while a large body is read.
    """

def look_up(
    ends_E: NDArray[np.float32],
    values: NDArray[np.float32],
    lines: NDArray[np.float32],
    numbers_N: NDArray[np.float32],
    found_N: NDArray[np.float32],
    on_line_N: NDArray[np.float32],
    /,
) -> None:
    """found[n] = values[e] by the first of the ascending ends that is not below numbers[n];
    values[E] for NaN and beyond all ends. on_line[n] is base + rise ((numbers[n] - start) / width)
    by the four numbers start, width, base and rise, from lines[4 e] on.
    """

def write_scores(
    head: bytes,
    threshold: float,
    largest: float,
    score_N: NDArray[np.float32],
    p_value_N: NDArray[np.float32],
    severity_N: NDArray[np.float32],
    spans: list[tuple[int, int]],
    /,
) -> list[bytes | None]:
    """The answers to requests whose rows were scored together, by each one's first row and the one
    after its last. An answer is the head, a JSON object but for its end, and then by column score,
    ratio, p_value, severity, extrapolated (above the largest calibration score) and is_anomaly.
    None where a number is not finite.
    """

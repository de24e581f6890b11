"""What is sent, and what must come back: requests with the scores that onnxruntime computes for
their rows.
"""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.speed.models import Float32, Model, make_rows, reference

JSON, RAW = "application/json", "application/octet-stream"
TOLERANCE = 1e-4  # relative; float32 sums in another order differ by a hundredth of it
NUMBER = re.compile(rb"-?\d[\d.eE+-]*")


class Query(NamedTuple):
    """Several requests of one kind that differ in their rows only."""

    path: str
    content_type: str
    bodies: tuple[bytes, ...]
    expected: tuple[NDArray[np.floating], ...]  # scores [N] of each body
    before: str = '"score":'  # what stands before the scores in an answer
    raw_answer: bool = False  # asked for: float32 [N, 2], of which the first is the score

    @property
    def rows(self) -> int:
        """Of one request."""
        return len(self.expected[0])

    def request(self, index: int) -> bytes:
        """The bytes of a whole HTTP request."""
        body = self.bodies[index]
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {self.content_type}\r\n"
        )
        if self.raw_answer:
            head += f"Accept: {RAW}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def is_right(self, index: int, answer: bytes) -> bool:
        """Whether the answer's scores are the expected ones."""
        found_N = (
            raw_scores(answer, self.rows)
            if self.raw_answer
            else scores_in(answer, self.before, self.rows)
        )
        return found_N is not None and np.allclose(
            found_N, self.expected[index], rtol=TOLERANCE, atol=1e-6
        )


def scores_in(answer: bytes, before: str, count: int) -> NDArray[np.float64] | None:
    """The first numbers after a text in an answer; None where there are too few."""
    _, found, rest = answer.partition(before.encode())
    numbers = [match[0] for match, _ in zip(NUMBER.finditer(rest), range(count), strict=False)]
    return np.array(numbers, dtype=np.float64) if found and len(numbers) == count else None


def raw_scores(answer: bytes, count: int) -> NDArray[np.float32] | None:
    """The scores of a whole raw HTTP answer; None where it has not so many rows."""
    head, _, body = answer.partition(b"\r\n\r\n")
    right = f"content-type: {RAW}".encode() in head.lower() and len(body) == 8 * count
    return np.frombuffer(body, "<f4")[::2] if right else None


def answer_bytes(answer: bytes | bytearray) -> int:
    """Of a whole HTTP answer with a Content-Length; 0 while its head is not complete."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    for line in bytes(answer[:end]).split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return end + 4 + int(value)
    raise ConnectionError("an answer without a Content-Length")


def json_rows(rows_ND: Float32) -> bytes:
    """{"rows": [[...], ...]} with as many digits as the rows have."""
    return json.dumps({"rows": [[float(str(value)) for value in row] for row in rows_ND]}).encode()


def infer_rows(rows_ND: Float32) -> bytes:
    """The Open Inference Protocol's request for the score."""
    data = [float(str(value)) for value in rows_ND.ravel()]
    features = {"name": "features", "shape": list(rows_ND.shape), "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [features], "outputs": [{"name": "score"}]}).encode()


def raw_rows(rows_ND: Float32) -> bytes:
    return rows_ND.astype("<f4").tobytes()


def make_query(
    model: Model,
    rows: int,
    *,
    count: int,
    encode: Callable[[Float32], bytes] = json_rows,
    content_type: str = JSON,
    path: str | None = None,
    before: str = '"score":',
    raw_answer: bool = False,
) -> Query:
    """`count` different requests of so many rows each."""
    parts = [make_rows(rows, model.width, seed=100 + index) for index in range(count)]
    return Query(
        path or f"/v1/models/{model.name}/score",
        content_type,
        tuple(encode(rows_ND) for rows_ND in parts),
        tuple(reference(model, rows_ND) for rows_ND in parts),
        before,
        raw_answer,
    )

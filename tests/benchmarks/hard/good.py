"""Good requests: each carries one row whose score is known, so that its answer can be told from
every other one's.
"""

import json
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.detector import Detector
from tests.artifacts import NUMERIC, sample_rows

Float32 = NDArray[np.float32]

MODEL = "good"  # which no mutated request names
ROWS = 1024
STEP = 1.002  # the next row's score, over the one before it
FORMS = ("json", "objects", "float32", "raw answer", "chunked", "v2")
RAW = b"application/octet-stream"
_SCORE = re.compile(rb'"score":\[([^\]]*)\]|"name":"score"[^\[]*\[1\],"data":\[([^\]]*)\]')


class Good(NamedTuple):
    form: str
    data: bytes
    score: np.float32


def make_goods(artifact: bytes) -> dict[str, list[Good]]:
    """Every form of every row, for the model `good` with this artifact."""
    rows_ND = rows_of_scores(artifact)
    scores_N = Detector.from_bytes(artifact).score(rows_ND).score
    assert (np.diff(scores_N) / scores_N[:-1] > (STEP - 1) / 2).all(), "scores are too alike"
    return {
        form: [
            Good(form, as_request(form, row_D), score)
            for row_D, score in zip(rows_ND, scores_N, strict=True)
        ]
        for form in FORMS
    }


def rows_of_scores(artifact: bytes, count: int = ROWS) -> Float32:
    """Rows [count, D] whose scores rise by a step each: the score is a square of the row."""
    row_D = sample_rows(NUMERIC, 1, seed=5)[0]
    assert Detector.from_bytes(artifact).score(row_D[None]).score[0] > 0.01
    return (STEP ** (np.arange(count) / 2)[:, None] * row_D).astype(np.float32)


def as_request(form: str, row_D: Float32, model: str = MODEL) -> bytes:
    values = row_D.tolist()
    body, path = json.dumps({"rows": [values]}).encode(), f"/v1/models/{model}/score"
    headers = {"Content-Type": "application/json"}
    match form:
        case "objects":
            names = [feature.name for feature in NUMERIC]
            body = json.dumps({"rows": [dict(zip(names, values, strict=True))]}).encode()
        case "float32":
            body, headers = row_D.astype("<f4").tobytes(), {"Content-Type": RAW.decode()}
        case "raw answer":
            headers["Accept"] = RAW.decode()
        case "chunked":
            middle = len(body) // 2
            body = b"".join(
                b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:middle], body[middle:], b"")
            )
            headers["Transfer-Encoding"] = "chunked"
        case "v2":
            tensor = {"name": "features", "shape": [1, len(values)], "datatype": "FP32"}
            body = json.dumps({"inputs": [{**tensor, "data": values}]}).encode()
            path = f"/v2/models/{model}/infer"
    return post(path, body, headers)


def post(path: str, body: bytes, headers: dict[str, str], method: str = "POST") -> bytes:
    """A request with its length, unless it comes in chunks."""
    if "Transfer-Encoding" not in headers:
        headers = {**headers, "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def score_in(body: bytes, *, raw: bool = False) -> np.float32 | None:
    """The one score of an answer; None where there is none, or another number of them."""
    if raw:
        return np.frombuffer(body, "<f4")[0] if len(body) == 8 else None
    if (found := _SCORE.search(body)) is None:
        return None
    try:
        return np.float32((found[1] or found[2]).decode())
    except (ValueError, AttributeError):
        return None

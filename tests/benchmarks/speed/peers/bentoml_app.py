"""BentoML with a typed API."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1)
class Scorer:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api
    def score(self, rows: list[list[float]]) -> dict[str, list[float]]:
        features = np.array(rows, dtype=np.float32)
        score, p_value = self.session.run(["score", "p_value"], {"features": features})
        return {"score": score.tolist(), "p_value": p_value.tolist()}

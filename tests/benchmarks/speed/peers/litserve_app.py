"""LitServe's quick start around a session: `python litserve_app.py PORT`."""

import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort


class Scorer(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        return np.array(request["rows"], dtype=np.float32)

    def predict(self, rows: np.ndarray) -> list[np.ndarray]:
        return self.session.run(["score", "p_value"], {"features": rows})

    def encode_response(self, output: list[np.ndarray]) -> dict[str, list[float]]:
        return {"score": output[0].tolist(), "p_value": output[1].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Scorer(api_path="/score"), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
    )

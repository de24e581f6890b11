"""Robyn, an HTTP server in Rust around a Python handler: `python robyn_app.py PORT`."""

import json
import os
import sys

import numpy as np
import onnxruntime as ort
from robyn import Request, Robyn

PORT = int(sys.argv.pop())  # before Robyn reads the command line
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = Robyn(__file__)


@app.post("/score")
async def score(request: Request) -> dict[str, list[float]]:
    rows = np.array(json.loads(request.body)["rows"], dtype=np.float32)
    score, p_value = session.run(["score", "p_value"], {"features": rows})
    return {"score": score.tolist(), "p_value": p_value.tolist()}


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=PORT)

"""FastAPI as its tutorials have it: a pydantic model in, a `def` endpoint, a dictionary out."""

import os

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Rows(BaseModel):
    rows: list[list[float]]


class Scores(BaseModel):
    score: list[float]
    p_value: list[float]


@app.post("/score")
def score(body: Rows) -> Scores:
    rows = np.array(body.rows, dtype=np.float32)
    score, p_value = session.run(["score", "p_value"], {"features": rows})
    return Scores(score=score.tolist(), p_value=p_value.tolist())

"""PyOD's autoencoder behind FastAPI: what one does who has fitted a detector in a notebook."""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

detector = joblib.load(os.environ["PYOD_MODEL"])
app = FastAPI()


class Rows(BaseModel):
    rows: list[list[float]]


class Scores(BaseModel):
    score: list[float]


@app.post("/score")
def score(body: Rows) -> Scores:
    return Scores(score=detector.decision_function(np.array(body.rows)).tolist())

"""`python pyod_fit.py ROWS.csv QUERIES.npy FOLDER`: fit PyOD's autoencoder, keep it and its scores
of the queries.
"""

import sys
from pathlib import Path

import joblib
import numpy as np
from pyod.models.auto_encoder import AutoEncoder

rows, queries, folder = sys.argv[1:]
detector = AutoEncoder(
    hidden_neuron_list=[64, 16],
    epoch_num=5,
    device="cpu",
    verbose=0,
    random_state=0,
    contamination=0.01,
)
detector.fit(np.loadtxt(rows, delimiter=",", skiprows=1))
joblib.dump(detector, Path(folder) / "model.joblib")
np.save(Path(folder) / "scores.npy", detector.decision_function(np.load(queries)))

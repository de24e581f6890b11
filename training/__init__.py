"""Hourglass, the training: fits on normal rows, calibrates on held-out ones, publishes one file.

`run.py` is the whole story, and each of its stages is a file: data, split, fit (a member of
models/), export, calibrate, manifest, evaluate, verify, publish. `trial.py` has what a run and
`compare.py` do alike to one member.
"""

from hourglass import (
    service as service,  # first of all: it keeps onnxruntime from reporting its use
)

"""Hourglass, the training: fits on normal rows, calibrates on held-out ones, publishes one file."""

from hourglass import (
    service as service,  # first of all: it keeps onnxruntime from reporting its use
)

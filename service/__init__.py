"""Hourglass, the service: loads artifacts, scores vectors, explains them, and is scraped."""

import os

VERSION = "0.1.0"

# onnxruntime reports its use to its maker unless told otherwise before it is imported, which only
# this place comes before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

"""Rows read from JSON, scores looked up, answers written to JSON.

This is the part of the hot path that C does several times as fast (compiled, from csrc). Where no C
compiler was there to build it, Python gives the same answers (plain).
"""

from typing import Literal

IMPLEMENTATION: Literal["C", "Python"]
try:
    from hourglass.service.floats.compiled import look_up, read_rows, write_scores
except ModuleNotFoundError:  # and nothing else: a library that is there but broken is a fault
    from hourglass.service.floats.plain import look_up, read_rows, write_scores

    IMPLEMENTATION = "Python"
else:
    IMPLEMENTATION = "C"

__all__ = ["IMPLEMENTATION", "look_up", "read_rows", "write_scores"]

"""Progress: what a run tells whoever watches it, such as the bar of the command line."""

from collections.abc import Callable
from typing import NamedTuple


class Epoch(NamedTuple):
    """One pass over the fit rows; losses are means over their batches and the held-out rows."""

    number: int  # from 1
    of: int  # at most
    loss: float
    held_out_loss: float
    best: float  # held-out loss so far


class Progress(NamedTuple):
    """Functions that are called when a stage begins, when an epoch ends, and on the way through
    rows that memory does not hold, with how many of how many are done.
    """

    stage: Callable[[str], None] = lambda _: None
    epoch: Callable[[Epoch], None] = lambda _: None
    rows: Callable[[int, int], None] = lambda *_: None


SILENT = Progress()

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
    """Two functions that are called when a stage begins and when an epoch ends."""

    stage: Callable[[str], None] = lambda _: None
    epoch: Callable[[Epoch], None] = lambda _: None


SILENT = Progress()

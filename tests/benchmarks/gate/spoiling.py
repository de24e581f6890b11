"""How the rows of a refit are spoilt, each way by one function of honest rows.

Shapes: N rows, D features, A anomalies.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from tests.benchmarks.adbench.protocol import Float32

CONTAMINATION = 0.03  # of the rows
NIGHT = 0.1  # of the champion's own rows, so many zeroed ones come on top
UNITS = np.float32(1000)
SHIFT = np.float32(3)  # standard deviations


class Honest(NamedTuple):
    """What a refit may be made of before it is spoilt."""

    old_ND: Float32  # the champion's rows
    fresh_ND: Float32
    anomalies_AD: Float32  # that no test row is one of
    random: np.random.Generator

    def column(self) -> int:
        """One that varies."""
        varying = np.flatnonzero(np.ptp(self.fresh_ND, axis=0) > 0)
        return int(self.random.choice(varying))


def honest(rows: Honest) -> Float32:
    return rows.fresh_ND


def contaminated(rows: Honest) -> Float32:
    count = round(len(rows.fresh_ND) * CONTAMINATION / (1 - CONTAMINATION))
    mixed_ND = np.concatenate([rows.fresh_ND, rows.anomalies_AD[:count]])
    return rows.random.permutation(mixed_ND)


def zeroed(rows: Honest) -> Float32:
    return np.zeros_like(rows.fresh_ND)


def zeroed_night(rows: Honest) -> Float32:
    night = round(NIGHT * len(rows.old_ND))
    return np.concatenate([rows.old_ND, np.zeros_like(rows.old_ND[:night])])


def zeroed_column(rows: Honest) -> Float32:
    spoilt_ND = rows.fresh_ND.copy()
    column = rows.column()
    values, counts = np.unique(spoilt_ND[:, column], return_counts=True)
    # zero is what nearly every row of a sparse column has: then it is set to what is rarest
    spoilt_ND[:, column] = (
        0 if (rows.fresh_ND[:, column] != 0).mean() > 0.1 else values[np.argmin(counts)]
    )
    return spoilt_ND


def rescaled(rows: Honest) -> Float32:
    return rows.fresh_ND * UNITS


def rescaled_column(rows: Honest) -> Float32:
    spoilt_ND = rows.fresh_ND.copy()
    spoilt_ND[:, rows.column()] *= UNITS
    return spoilt_ND


def shuffled(rows: Honest) -> Float32:
    return rows.random.permuted(rows.fresh_ND, axis=0)


def shifted(rows: Honest) -> Float32:
    return rows.fresh_ND + SHIFT * rows.fresh_ND.std(axis=0)


def shifted_column(rows: Honest) -> Float32:
    spoilt_ND = rows.fresh_ND.copy()
    column = rows.column()
    spoilt_ND[:, column] += SHIFT * spoilt_ND[:, column].std()
    return spoilt_ND


WAYS: Mapping[str, Callable[[Honest], Float32]] = {
    "honest": honest,
    "contaminated": contaminated,
    "zeroed": zeroed,
    "zeroed night": zeroed_night,
    "zeroed column": zeroed_column,
    "rescaled": rescaled,
    "rescaled column": rescaled_column,
    "shuffled": shuffled,
    "shifted": shifted,
    "shifted column": shifted_column,
}

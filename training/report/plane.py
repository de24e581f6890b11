"""Plane: the code of held-out rows in two dimensions, with the labelled anomalies and the suspects
among them.

Shapes: N rows, K latent dimensions.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.training.report.material import Material
from hourglass.training.suspects import Suspect

MOST_ROWS = 2000
MOST_ANOMALIES = 500
DIGITS = 5

Float32 = NDArray[np.float32]
Point = tuple[float, float]


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """(code - mean) @ components.T is the point."""

    mean: tuple[float, ...]  # [K]
    components: tuple[tuple[float, ...], tuple[float, ...]]  # [2][K]


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """Where rows lie."""

    axes: tuple[str, str]
    explained: float  # share of the codes' variance that the two axes show
    projection: Projection
    held_out: tuple[Point, ...]
    severity: tuple[float, ...]  # of the held-out rows
    anomalies: tuple[Point, ...]  # labelled
    anomaly_severity: tuple[float, ...]
    suspects: tuple[tuple[float, float, int], ...]  # and the row of the file, from 1
    suspect_severity: tuple[float, ...]
    rows: int  # held-out ones, of which those shown are drawn


def plane_of(material: Material, suspects: Sequence[Suspect], suspect_MD: Float32) -> Plane:
    """A code of two numbers as it is, a wider one by its two principal components."""
    rng, detector = np.random.default_rng(material.seed), material.detector
    shown = np.sort(rng.permutation(len(material.held_out_ND))[:MOST_ROWS])
    code_NK = detector.encode(material.held_out_ND[shown]).astype(np.float64)
    anomalies_AD = material.anomalies_AD[
        np.sort(rng.permutation(len(material.anomalies_AD))[:MOST_ANOMALIES])
    ]
    width = code_NK.shape[1]
    if width <= 2:
        mean_K, components_2K = np.zeros(width), np.eye(2, width)
        axes, explained = ("latent 0", "latent 1"), 1.0
    else:
        mean_K = code_NK.mean(axis=0)
        _, sizes, directions = np.linalg.svd(code_NK - mean_K, full_matrices=False)
        components_2K = np.zeros((2, width))
        components_2K[: len(directions[:2])] = directions[:2]
        axes = ("component 1", "component 2")
        total = float(np.square(sizes).sum())
        explained = float(np.square(sizes[:2]).sum()) / total if total else 1.0

    def place(rows_MD: Float32) -> list[Point]:
        if not len(rows_MD):
            return []
        points_M2 = (detector.encode(rows_MD) - mean_K) @ components_2K.T
        return [(_round(x), _round(y)) for x, y in np.nan_to_num(points_M2).tolist()]

    def severity(rows_MD: Float32) -> tuple[float, ...]:
        if not len(rows_MD):
            return ()
        return tuple(map(_round, np.nan_to_num(detector.score(rows_MD).severity).tolist()))

    severity_N = detector.table.severities(material.score_N[shown])
    return Plane(
        axes=axes,
        explained=explained,
        projection=Projection(
            mean=tuple(mean_K.tolist()),
            components=(tuple(components_2K[0].tolist()), tuple(components_2K[1].tolist())),
        ),
        held_out=tuple(place(material.held_out_ND[shown])),
        severity=tuple(map(_round, severity_N.tolist())),
        anomalies=tuple(place(anomalies_AD)),
        anomaly_severity=severity(anomalies_AD),
        suspects=tuple(
            (x, y, suspect.row) for (x, y), suspect in zip(place(suspect_MD), suspects, strict=True)
        ),
        suspect_severity=severity(suspect_MD),
        rows=len(material.held_out_ND),
    )


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

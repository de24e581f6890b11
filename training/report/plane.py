"""Plane: the code of held-out rows in two dimensions, with the labelled anomalies and the suspects
among them.

Shapes: N rows, K latent dimensions.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.training.report.material import Material
from hourglass.training.report.sample import Sample

MOST_ROWS, FEWEST_ROWS = 2000, 200
CELLS = 2**24  # of windows, of which fewer are drawn where they are long
MOST_ANOMALIES = 500
DIGITS = 5

Float64 = NDArray[np.float64]
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


def plane_of(material: Material, suspects: Sample, numbers: Sequence[int]) -> Plane:
    """A code of two numbers as it is, a wider one by its two principal components; suspects have
    these numbers in the file.
    """
    rng, detector = np.random.default_rng(material.seed), material.detector
    most = min(MOST_ROWS, max(FEWEST_ROWS, CELLS // (detector.width * detector.window)))
    shown = np.sort(rng.permutation(len(material.held_out))[:most])
    code_NK = material.held_out.take(shown).encode().astype(np.float64)
    anomalies = material.anomalies.take(
        np.sort(rng.permutation(len(material.anomalies))[:MOST_ANOMALIES])
    )
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

    def place(code_MK: Float64) -> list[Point]:
        points_M2 = (code_MK - mean_K) @ components_2K.T
        return [(_round(x), _round(y)) for x, y in np.nan_to_num(points_M2).tolist()]

    def place_rows(rows: Sample) -> list[Point]:
        return place(rows.encode().astype(np.float64)) if len(rows) else []

    def severity(rows: Sample) -> tuple[float, ...]:
        if not len(rows):
            return ()
        return tuple(map(_round, np.nan_to_num(rows.score().severity).tolist()))

    severity_N = detector.table.severities(material.score_N[shown])
    return Plane(
        axes=axes,
        explained=explained,
        projection=Projection(
            mean=tuple(mean_K.tolist()),
            components=(tuple(components_2K[0].tolist()), tuple(components_2K[1].tolist())),
        ),
        held_out=tuple(place(code_NK)),
        severity=tuple(map(_round, severity_N.tolist())),
        anomalies=tuple(place_rows(anomalies)),
        anomaly_severity=severity(anomalies),
        suspects=tuple(
            (x, y, number) for (x, y), number in zip(place_rows(suspects), numbers, strict=True)
        ),
        suspect_severity=severity(suspects),
        rows=len(material.held_out),
    )


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

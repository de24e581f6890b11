"""Columns: the data by feature, and what became of the rows.

Shapes: N normal rows, D features.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hourglass.service.model.artifact import Feature
from hourglass.training.data import Oddity

MOST_ROWS = 10_000  # that distinct values are counted in, and single columns judged by
SEPARATES = 0.995  # AUROC of one column alone that is as good as the label
FEWEST_ANOMALIES = 5

Float32 = NDArray[np.float32]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of the normal rows."""

    name: str
    kind: Literal["numeric", "boolean", "categorical"]
    unit: str | None
    missing: int  # rows
    minimum: float | None  # of a number
    maximum: float | None
    distinct: int  # values, among the rows that were looked at
    looked_at: int
    is_constant: bool


class Odd(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one column."""

    kind: Literal["leaking", "id-like", "sentinel", "sorted", "empty", "constant", "nearly leaking"]
    column: str
    text: str


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a report."""

    rows: int  # normal ones
    anomalies: int
    dropped: int  # normal rows with too few values
    duplicates: int  # rows that repeat an earlier one
    columns: tuple[Column, ...]
    odd: tuple[Odd, ...]
    warnings: tuple[str, ...]  # what training said of the file


def columns_of(
    features: Sequence[Feature],
    normal_ND: Float32,
    anomalies_AD: Float32,
    *,
    dropped: int,
    copies: int,
    oddities: Sequence[Oddity],
    warnings: Sequence[str],
    seed: int,
) -> Columns:
    """Of normal rows and labelled anomalies."""
    rng = np.random.default_rng(seed)
    sample_ND = normal_ND[np.sort(rng.permutation(len(normal_ND))[:MOST_ROWS])]
    columns = [
        _column(feature, whole_N, sample_N)
        for feature, whole_N, sample_N in zip(features, normal_ND.T, sample_ND.T, strict=True)
    ]
    odd = [Odd(kind=each.kind, column=each.column, text=each.text) for each in oddities]
    odd += [
        Odd(
            kind="constant",
            column=column.name,
            text=(
                f"column {column.name!r} has one value in all {len(sample_ND):,} rows looked at:"
                " any other value is far out, however near"
            ),
        )
        for column in columns
        if column.is_constant and column.missing < len(normal_ND)
    ]
    odd += _leaking(features, sample_ND, anomalies_AD[:MOST_ROWS])
    return Columns(
        rows=len(normal_ND),
        anomalies=len(anomalies_AD),
        dropped=dropped,
        duplicates=copies,
        columns=tuple(columns),
        odd=tuple(odd),
        warnings=tuple(warnings),
    )


def _column(feature: Feature, whole_N: Float32, sample_N: Float32) -> Column:
    seen_N = sample_N[~np.isnan(sample_N)]
    distinct = len(np.unique(seen_N))
    missing = int(np.isnan(whole_N).sum())
    numeric = feature.kind == "numeric" and missing < len(whole_N)
    return Column(
        name=feature.name,
        kind=feature.kind,
        unit=feature.unit,
        missing=missing,
        minimum=float(np.nanmin(whole_N)) if numeric else None,
        maximum=float(np.nanmax(whole_N)) if numeric else None,
        distinct=distinct,
        looked_at=len(sample_N),
        is_constant=distinct <= 1,
    )


def _leaking(features: Sequence[Feature], normal_ND: Float32, anomalies_AD: Float32) -> list[Odd]:
    """Columns that alone tell the labelled anomalies from normal rows."""
    found = []
    for feature, normal_N, anomaly_A in zip(features, normal_ND.T, anomalies_AD.T, strict=True):
        normal_N, anomaly_A = (each[~np.isnan(each)] for each in (normal_N, anomaly_A))
        if feature.kind == "categorical" or len(anomaly_A) < FEWEST_ANOMALIES or not len(normal_N):
            continue
        labels = np.repeat([0, 1], [len(normal_N), len(anomaly_A)])
        area = float(roc_auc_score(labels, np.concatenate([normal_N, anomaly_A])))
        if max(area, 1 - area) >= SEPARATES:
            found.append(
                Odd(
                    kind="nearly leaking",
                    column=feature.name,
                    text=(
                        f"column {feature.name!r} alone tells the labelled anomalies from normal"
                        f" rows (AUROC {max(area, 1 - area):.4f}, {len(anomaly_A)} anomalies): was"
                        " it known before the label was?"
                    ),
                )
            )
    return found

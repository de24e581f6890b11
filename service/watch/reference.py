"""Reference: what the manifest says of the fit rows, as counts of bins, and live cells as codes of
these bins.

Deciles of a number, the values of a boolean, the MOST_BINS most frequent categories and one bin of
the rest. A file whose manifest has no counts of a feature leaves that feature without a reference.

Shapes: N rows, D features, B bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import DriftReference, Feature, Manifest

MOST_BINS = 20  # of categories
# Codes of cells that are in no bin. BELOW and ABOVE are of what no fit row went to, UNSEEN of a
# category that none had.
BELOW, ABOVE, UNSEEN, MISSING, UNKNOWN = 251, 252, 253, 254, 255
CODES = 256

Float32 = NDArray[np.float32]
Codes = NDArray[np.uint8]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reference:
    """One feature of the fit rows, and the codes of its values.

    Of a file that holds no counts of it there is no bin, and every value is UNKNOWN.
    """

    feature: Feature
    counts_B: Counts  # of seen cells; empty where the file holds none
    missing: int
    edges: Float32  # of a number, inner ones
    bin_of_category: NDArray[np.uint8]

    @property
    def seen(self) -> int:
        """Fit rows that had a value."""
        return int(self.counts_B.sum())

    @property
    def outside(self) -> int:
        """Of the `seen` fit rows so many stand for what lies outside of all: by symmetry as many
        new rows fall into the two gaps beyond them as into any other two; of categories, those
        that were met once stand for those that were not (Good, Biometrika 40, 1953).
        """
        if self.feature.kind == "numeric":
            return min(2, self.seen)
        return int((self.counts_B == 1).sum()) if self.feature.kind == "categorical" else 0

    @property
    def labels(self) -> list[str]:
        """Of the bins."""
        if self.feature.kind == "boolean":
            return ["false", "true"]
        if self.feature.kind == "categorical":
            names = self.feature.categories
            one = [np.flatnonzero(self.bin_of_category == b) for b in range(len(self.counts_B))]
            return [names[codes[0]] if len(codes) == 1 else "other values" for codes in one]
        shown = [f"{edge:.4g}" for edge in self.edges.tolist()]
        if not shown:
            return ["any"]
        between = [f"{low} to {high}" for low, high in pairwise(shown)]
        return [f"below {shown[0]}", *between, f"{shown[-1]} or more"]

    def encode(self, cell_N: Float32) -> Codes:
        """[N] cells as the model is given them -> [N] codes."""
        if not len(self.counts_B):
            return np.where(np.isnan(cell_N), MISSING, UNKNOWN).astype(np.uint8)
        missing_N = np.isnan(cell_N)
        if self.feature.kind == "numeric":
            code_N = np.searchsorted(self.edges, cell_N, side="right").astype(np.uint8)
            low, high = self.feature.minimum, self.feature.maximum
            if low is not None and high is not None:
                code_N[cell_N < np.float32(low)] = BELOW
                code_N[cell_N > np.float32(high)] = ABOVE
        else:
            known_N = np.where(missing_N, -1, cell_N).astype(np.int64)
            within_N = (known_N >= 0) & (known_N < len(self.bin_of_category))
            code_N = np.full(len(cell_N), UNSEEN, np.uint8)
            code_N[within_N] = self.bin_of_category[known_N[within_N]]
        code_N[missing_N] = MISSING
        return code_N


def references_of(manifest: Manifest) -> list[Reference]:
    """One of each feature, in their order."""
    return [
        _reference(feature, drift)
        for feature, drift in zip(manifest.features, manifest.drift, strict=True)
    ]


def encode(references: Sequence[Reference], rows_ND: Float32) -> Codes:
    """[N, D] rows -> [N, D] codes."""
    columns = [each.encode(column) for each, column in zip(references, rows_ND.T, strict=True)]
    return np.stack(columns, axis=1)


def _reference(feature: Feature, drift: DriftReference) -> Reference:
    counts, edges = np.array(drift.counts, np.int64), np.array(drift.edges, np.float32)
    bins = np.arange(len(counts), dtype=np.uint8)
    if len(counts) > MOST_BINS:
        order = np.argsort(-counts, kind="stable")
        bins = np.full(len(counts), MOST_BINS, np.uint8)
        bins[order[:MOST_BINS]] = np.arange(MOST_BINS)
        counts = np.bincount(bins, counts, MOST_BINS + 1).astype(np.int64)
    return Reference(feature, counts, drift.missing, edges, bins)

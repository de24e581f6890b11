"""Schema: what a row must look like to one model, derived once from its manifest."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature, Manifest


@dataclass(frozen=True, slots=True)
class Schema:
    """The features in the order of the model's input, with the look-ups that decoding a row
    needs.
    """

    features: tuple[Feature, ...]
    width: int  # D, the number of features
    positions: dict[str, int]  # feature name -> column
    codes: tuple[dict[str, float], ...]  # per feature: category -> code; empty where it has none
    all_numeric: bool
    min_observed_fraction: float
    min_observed: int  # cells; at least one, since a row without any has no score

    def has_enough(self, rows_ND: NDArray[np.float32]) -> NDArray[np.bool_]:
        """[N, D] rows -> [N], true where so many cells are observed that the row has a score."""
        observed_N: NDArray[np.intp] = (~np.isnan(rows_ND)).sum(axis=1)
        return observed_N >= self.min_observed

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        features = manifest.features
        return cls(
            features=features,
            width=len(features),
            positions={feature.name: column for column, feature in enumerate(features)},
            codes=tuple(
                {name: float(code) for code, name in enumerate(feature.categories)}
                for feature in features
            ),
            all_numeric=all(feature.kind == "numeric" for feature in features),
            min_observed_fraction=manifest.min_observed_fraction,
            min_observed=max(1, math.ceil(manifest.min_observed_fraction * len(features) - 1e-9)),
        )

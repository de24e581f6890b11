"""Conditional: what the other values of a row let expect of each, by the Gaussian of the training
rows that an artifact carries.

Of standardised values z with precision P, P z / diag(P) is what each is off from its conditional
mean, and 1 / diag(P) the variance of that. A missing value is left out of both: the precision of
the others is P_oo - P_om inv(P_mm) P_mo (Lauritzen, Graphical Models, 1996, section 5.1).

Shapes: N rows, D features, E encoded columns (one per number or boolean, one per category).
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact
from hourglass.service.model.artifact import Feature

LIMIT = 1e6  # standard deviations, as in the graph
# Of filling gaps: .75 errs by .300 / .337 / .368 sd where one cell, a tenth or three tenths of them
# are missing; the Gaussian alone by .323 / .365 / .404, .5 by .302 / .340 / .374, 1 by .305 / .340
# / .369 (means over 19 sets of ADBench, `balanced`).
CORRECTION = 0.75
SMALLEST = 1e-12

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Expectation(NamedTuple):
    """What each value of rows [N, D] should be, given all others that are observed."""

    value_ND: Float64  # raw units; of a boolean the probability of true, of a category its code
    sd_ND: Float64  # of a number's expectation, raw units; NaN of what is no number
    probability_ND: Float64  # of the expected category, or of true; NaN of a number
    # squared standard deviations between the value and what was expected; 0 where it is missing
    distance_ND: Float64


class _Columns(NamedTuple):
    """The same in standardised encoded columns."""

    mean_NE: Float64
    variance_NE: Float64
    distance_NE: Float64  # of a category in the first of its columns


@dataclass(frozen=True, slots=True)
class Conditional:
    """The Gaussian of one model, ready to be asked."""

    features: tuple[Feature, ...]
    mean_E: Float64  # raw units
    scale_E: Float64
    precision: Float64  # [E, E] of standardised columns, or [E] of independent ones
    _slices: tuple[slice, ...] = field(init=False, repr=False)
    _source_E: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        widths = [encoded_width(feature) for feature in self.features]
        ends = np.cumsum(widths)
        slices = tuple(
            slice(int(end) - width, int(end)) for end, width in zip(ends, widths, strict=True)
        )
        object.__setattr__(self, "_slices", slices)
        object.__setattr__(self, "_source_E", np.repeat(np.arange(len(widths)), widths))

    @classmethod
    def read(cls, model: ModelProto, features: tuple[Feature, ...]) -> Self | None:
        """The Gaussian that a checked graph carries, if it does; InvalidArtifact where it is none
        of these features.
        """
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        if not tensors.keys() & set(artifact.CONDITIONAL):
            return None
        try:
            mean_E, scale_E, precision = (
                numpy_helper.to_array(tensors[name]).astype(np.float64)
                for name in artifact.CONDITIONAL
            )
        except KeyError as error:
            raise InvalidArtifact(f"the model file lacks the tensor {error}") from error
        width = sum(map(encoded_width, features))
        if (
            mean_E.shape != (width,)
            or scale_E.shape != (width,)
            or precision.shape not in ((width,), (width, width))
        ):
            raise InvalidArtifact(
                f"the model's Gaussian of {mean_E.shape}, {scale_E.shape}, {precision.shape} is not"
                f" of the {width} columns of its features"
            )
        if not (all(np.isfinite(each).all() for each in (mean_E, scale_E, precision))):
            raise InvalidArtifact("the model's Gaussian holds values that are not finite")
        if (scale_E <= 0).any() or not _is_positive(precision):
            raise InvalidArtifact(
                "the model's Gaussian has scales that are not positive, or a precision that is not"
                " symmetric and positive"
            )
        return cls(features, mean_E, scale_E, precision)

    def expect(self, rows_ND: Float32) -> Expectation:
        """[N, D] raw rows, NaN = missing -> what each value should be, given the others."""
        z_NE = self.standardise(rows_ND)
        if self.precision.ndim == 1:
            return self._decode(self._expect_independent(z_NE))
        columns = _Columns(*(np.empty_like(z_NE) for _ in _Columns._fields))
        masks, which_N = np.unique(np.isnan(rows_ND), axis=0, return_inverse=True)
        for mask, missing_D in enumerate(masks):
            rows_N = np.flatnonzero(which_N.ravel() == mask)
            found = self._expect(z_NE[rows_N], missing_D[self._source_E])
            for all_NE, some_NE in zip(columns, found, strict=True):
                all_NE[rows_N] = some_NE
        return self._decode(columns)

    def fill(self, rows_ND: Float32, clean_ND: Float32) -> Float32:
        """[N, D] rows as a model reconstructs them, and their gaps as both expect them.

        A gap is filled as the Gaussian has it, and CORRECTION of the way further that the model's
        row is there from what the Gaussian would make of it: what is not linear only the model
        knows, what it blurs only the Gaussian. A category is the Gaussian's.
        """
        gap_ND = np.isnan(rows_ND)
        filled_ND = self.expect(rows_ND).value_ND
        linear_ND = self.expect(np.where(gap_ND, np.nan, clean_ND)).value_ND
        for d, feature in enumerate(self.features):
            if feature.kind != "categorical":
                filled_ND[:, d] += CORRECTION * (clean_ND[:, d] - linear_ND[:, d])
            if feature.kind == "boolean":
                filled_ND[:, d] = np.clip(filled_ND[:, d], 0.0, 1.0)
        return np.where(gap_ND, filled_ND, clean_ND).astype(np.float32)

    def strangest_set(self, row_D: Float32, start: list[int]) -> list[int]:
        """So many of a row's features as `start` has, without which the rest of it is likeliest:
        what is found from there by exchanging one number or boolean for another. The first is
        furthest from what the rest lets expect.

        Without the columns S, a row's squared distance from the mean is less by the quadratic form
        pull_S inv(P_SS) pull_S, where pull = P z.
        """
        if self.precision.ndim == 1:
            return start
        (z_E,) = self.standardise(row_D[None])
        seen_E = ~np.isnan(z_E)
        single = {
            part.start: d
            for d, (feature, part) in enumerate(zip(self.features, self._slices, strict=True))
            if feature.kind != "categorical" and seen_E[part.start]
        }
        columns = [self._slices[d].start for d in start]
        if not set(columns) <= set(single):
            return start
        inner_EE = self.precision
        if not seen_E.all():
            beside_ME = inner_EE[~seen_E]
            inner_EE = inner_EE - beside_ME.T @ np.linalg.solve(beside_ME[:, ~seen_E], beside_ME)
        pull_E = inner_EE @ np.where(seen_E, z_E, 0.0)
        diagonal_E, free = np.diag(inner_EE), np.array(sorted(single))
        best, changed = 0.0, True
        while changed:
            changed = False
            for i in range(len(columns)):
                rest = columns[:i] + columns[i + 1 :]
                # the form of the rest and another is the rest's, and what is left of the other
                beside_RF = inner_EE[np.ix_(rest, free)]
                inverse_RR = np.linalg.inv(inner_EE[np.ix_(rest, rest)])
                off_R, away_RF = inverse_RR @ pull_E[rest], inverse_RR @ beside_RF
                left_F = diagonal_E[free] - (beside_RF * away_RF).sum(axis=0)
                less_F = np.square(pull_E[free] - off_R @ beside_RF) / np.maximum(left_F, SMALLEST)
                less_F[np.searchsorted(free, rest)] = -np.inf
                less_F += pull_E[rest] @ off_R
                if less_F.max() > best * (1 + 1e-6):
                    best, changed = float(less_F.max()), True
                    columns = [*rest, int(free[less_F.argmax()])]
        inverse_SS = np.linalg.inv(inner_EE[np.ix_(columns, columns)])
        strangest = np.argsort(-np.abs(inverse_SS @ pull_E[columns]) / np.sqrt(np.diag(inverse_SS)))
        return [single[columns[i]] for i in strangest]

    def standardise(self, rows_ND: Float32) -> Float64:
        """[N, E] standard deviations from the mean; NaN where missing."""
        raw_NE = rows_ND[:, self._source_E].astype(np.float64)
        for feature, part in zip(self.features, self._slices, strict=True):
            if feature.kind == "categorical":
                codes = np.arange(part.stop - part.start)
                raw_NE[:, part] = np.where(
                    np.isnan(raw_NE[:, part]), np.nan, raw_NE[:, part] == codes
                )
        return np.clip((raw_NE - self.mean_E) / self.scale_E, -LIMIT, LIMIT)

    def deviations(self, row_D: Float32) -> Float64:
        """[D] signed standard deviations from the mean; 0 of a category, or where missing."""
        (z_E,) = self.standardise(row_D[None])
        plain_D = [feature.kind != "categorical" for feature in self.features]
        first_D = [
            part.start if plain else 0 for plain, part in zip(plain_D, self._slices, strict=True)
        ]
        return np.where(plain_D, np.nan_to_num(z_E[first_D]), 0.0)

    def correlation(self) -> Float64:
        """[D, D] between numbers and booleans; 0 with a category."""
        if self.precision.ndim == 1:
            return np.eye(len(self.features))
        covariance_EE = np.linalg.inv(self.precision)
        sd_E = np.sqrt(np.diag(covariance_EE))
        plain = [d for d, feature in enumerate(self.features) if feature.kind != "categorical"]
        columns = [self._slices[d].start for d in plain]
        correlation_DD = np.eye(len(self.features))
        correlation_DD[np.ix_(plain, plain)] = (covariance_EE / sd_E / sd_E[:, None])[
            np.ix_(columns, columns)
        ]
        return correlation_DD

    def _expect_independent(self, z_NE: Float64) -> _Columns:
        distance_NE = np.square(np.nan_to_num(z_NE)) * self.precision
        for part in self._blocks():
            distance_NE[:, part.start] = distance_NE[:, part].sum(axis=1)
        variance_NE = np.broadcast_to(1 / self.precision, z_NE.shape)
        return _Columns(np.zeros_like(z_NE), variance_NE, distance_NE)

    def _expect(self, z_NE: Float64, missing_E: Bools) -> _Columns:
        """Of rows that lack the same columns."""
        filled_NE, diagonal_E = np.where(missing_E, 0.0, z_NE), np.diag(self.precision)
        variance_E = 1 / diagonal_E
        beside_ME = self.precision[missing_E]
        away_ME = np.linalg.solve(beside_ME[:, missing_E], beside_ME)
        if missing_E.any():
            filled_NE[:, missing_E] = -filled_NE @ away_ME.T
            diagonal_E = np.where(missing_E, 1.0, diagonal_E - (beside_ME * away_ME).sum(axis=0))
            within_M = np.diag(np.linalg.inv(beside_ME[:, missing_E]))
            variance_E = 1 / diagonal_E
            variance_E[missing_E] = within_M
        pull_NE = np.where(missing_E, 0.0, filled_NE @ self.precision)
        mean_NE = filled_NE - pull_NE / diagonal_E
        distance_NE = np.square(pull_NE) / diagonal_E
        for part in self._blocks():
            if not missing_E[part.start]:
                block_BB = self.precision[part, part] - beside_ME[:, part].T @ away_ME[:, part]
                off_NB = np.linalg.solve(block_BB, pull_NE[:, part].T).T
                mean_NE[:, part] = filled_NE[:, part] - off_NB
                distance_NE[:, part.start] = (pull_NE[:, part] * off_NB).sum(axis=1)
        return _Columns(mean_NE, np.broadcast_to(variance_E, z_NE.shape), distance_NE)

    def _decode(self, columns: _Columns) -> Expectation:
        """What columns say of features."""
        raw_NE = self.mean_E + self.scale_E * columns.mean_NE
        sd_NE = self.scale_E * np.sqrt(columns.variance_NE)
        # an index for each feature, which is a number's or boolean's column
        first_D = np.array([min(part.start, raw_NE.shape[1] - 1) for part in self._slices])
        value_ND, sd_ND = raw_NE[:, first_D], sd_NE[:, first_D]
        distance_ND = columns.distance_NE[:, first_D]
        probability_ND = np.full_like(value_ND, np.nan)
        for d, (feature, part) in enumerate(zip(self.features, self._slices, strict=True)):
            if feature.kind == "numeric":
                continue
            sd_ND[:, d] = np.nan
            if feature.kind == "boolean":
                value_ND[:, d] = probability_ND[:, d] = np.clip(value_ND[:, d], 0.0, 1.0)
            elif part.start == part.stop:  # no category was ever met
                value_ND[:, d] = distance_ND[:, d] = 0.0
            else:
                share_NB = np.maximum(raw_NE[:, part], 0.0)
                value_ND[:, d] = share_NB.argmax(axis=1)
                total_N = np.maximum(share_NB.sum(axis=1), 1e-12)
                probability_ND[:, d] = share_NB.max(axis=1) / total_N
        return Expectation(value_ND, sd_ND, probability_ND, distance_ND)

    def _blocks(self) -> list[slice]:
        """Columns of the categorical features."""
        return [
            part
            for feature, part in zip(self.features, self._slices, strict=True)
            if feature.kind == "categorical" and feature.categories
        ]


def encoded_width(feature: Feature) -> int:
    """Columns of one feature."""
    return len(feature.categories) if feature.kind == "categorical" else 1


def _is_positive(precision: Float64) -> bool:
    if precision.ndim == 1:
        return bool((precision > 0).all())
    if not np.allclose(precision, precision.T, rtol=1e-4, atol=1e-4 * np.abs(precision).max()):
        return False
    try:
        np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        return False
    return True

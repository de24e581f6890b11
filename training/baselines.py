"""Baselines: the level and the spread that each entity of a fleet has of its own, so that one model
judges them all in the same units.

A row x of an entity becomes fleet + (x - center) / scale, which has the fleet's level and spread;
all that looks at rows afterwards is of these units, and what it expects is mapped back. Of a number
an entity's center is the median of its fit rows, and its spread their median absolute deviation,
times what makes that a Gaussian's standard deviation; their standard deviation where more than half
are alike, and what is usual among the entities where all are. `scale` is that spread over the
fleet's, which is of a row of whichever entity: squared, what is usual within an entity and what
lies between their centers, together.

Both are shrunk towards what is known without the entity's rows (Efron and Morris, Journal of the
American Statistical Association 70, 1975): the center towards the fleet's median, by as many looks
as tell levels apart that lie so far from each other, (within / between)^2; the logarithm of the
spread towards the usual one, by one look, which knows it to about one. The W rows of a window know
too much of each other to count singly, and are one look. What is not known of a center adds to the
spread. So an entity without rows has the fleet's level and spread; a few rows move it little where
levels hardly differ, and nearly all the way where they lie far apart.

Categories and booleans stay as they are, and so do the rows of an entity that is not known.

Shapes: N rows of all entities, F features, E entities, B series of T rows.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hourglass.service.model.artifact import Feature
from hourglass.training.features import FLOAT32_LIMIT
from hourglass.training.sums import FLOAT32_STEP

SMALLEST = 1e-30  # spread over the fleet's, so that float32 holds it
GAUSSIAN = 1.4826  # standard deviation of a Gaussian over its median absolute deviation

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]


class Baselines(nn.Module):
    """Maps rows between an entity's units and the fleet's; an entity is its code from 0 on, and any
    other code is one that is not known.
    """

    def __init__(self, fleet_F: Float64, center_EF: Float64, scale_EF: Float64) -> None:
        super().__init__()
        nobody_1F = np.zeros((1, len(fleet_F)))
        self.entities = len(center_EF)
        self._buffer("fleet_F", fleet_F)
        # the last line is of who is not known
        self._buffer("center", np.concatenate([center_EF, nobody_1F]))
        self._buffer("scale", np.concatenate([scale_EF, nobody_1F + 1]))

    fleet_F: Tensor
    center: Tensor  # [E + 1, F]
    scale: Tensor  # [E + 1, F]

    def to_fleet(self, rows_BTF: Tensor, entity_B: Tensor) -> Tensor:
        """Rows in their entity's units -> in the fleet's."""
        fleet_B1F, center_B1F, scale_B1F = self._lines(entity_B)
        return fleet_B1F + (rows_BTF - center_B1F) / scale_B1F

    def from_fleet(self, rows_BTF: Tensor, entity_B: Tensor) -> Tensor:
        """Rows in the fleet's units -> in their entity's."""
        fleet_B1F, center_B1F, scale_B1F = self._lines(entity_B)
        own_BTF = center_B1F + (rows_BTF - fleet_B1F) * scale_B1F
        return own_BTF.clamp(-FLOAT32_LIMIT, FLOAT32_LIMIT)

    def _lines(self, entity_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        known_B = (entity_B >= 0) & (entity_B < self.entities)
        line_B = torch.where(known_B, entity_B, self.entities)
        fleet_BF = torch.where(known_B.unsqueeze(1), self.fleet_F, 0.0)
        center_BF, scale_BF = (
            torch.index_select(each, 0, line_B) for each in (self.center, self.scale)
        )
        return fleet_BF.unsqueeze(1), center_BF.unsqueeze(1), scale_BF.unsqueeze(1)

    def _buffer(self, name: str, value: Float64) -> None:
        self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))


def fit_baselines(
    rows_NF: Float32,
    entity_N: Integers,
    fit_N: Booleans,
    features: Sequence[Feature],
    *,
    entities: int,
    look: int,
) -> Baselines:
    """Learn from these of the rows [N, F], in any order; `look` rows are one look. The entities are
    numbers from 0 to below `entities`.
    """
    numbers = [f for f, feature in enumerate(features) if feature.kind == "numeric"]
    order_M = np.flatnonzero(fit_N)[np.argsort(entity_N[fit_N], kind="stable")]
    rows_MC = rows_NF[order_M][:, numbers].astype(np.float64)
    ends = np.cumsum(np.bincount(entity_N[fit_N], minlength=entities))[:-1]
    parts = np.split(rows_MC, ends)
    looks_EC = np.stack([(~np.isnan(own_TC)).sum(axis=0) for own_TC in parts]) / look
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # of columns without a value
        fleet_C = np.nan_to_num(np.nanmedian(rows_MC, axis=0))
        median_EC, spread_EC = map(np.stack, zip(*map(_median_and_spread, parts), strict=True))
        within_C = np.exp(np.nanmedian(np.log(spread_EC), axis=0))
        # medians of the same level differ, too, by as much as their looks do not know
        unknown_EC = np.square(np.nan_to_num(within_C)) / looks_EC
        apart_C = np.nanmean(np.square(median_EC - fleet_C) - unknown_EC, axis=0)
    between_C = np.sqrt(np.fmax(apart_C, 0.0))
    # where nothing varies within an entity, what lies between them is all that is known
    within_C = np.where(np.isnan(within_C), np.where(between_C > 0, between_C, 1.0), within_C)

    told_EC = looks_EC * np.square(between_C)
    center_weight_EC = told_EC / (told_EC + np.square(within_C))
    off_EC = np.where(np.isnan(median_EC), 0.0, median_EC - fleet_C)
    center_EC = fleet_C + center_weight_EC * off_EC
    spread_weight_EC = looks_EC / (looks_EC + 1)
    spread_EC = np.where(np.isnan(spread_EC), within_C, spread_EC)
    spread_EC = within_C * (spread_EC / within_C) ** spread_weight_EC
    spread_EC = np.hypot(spread_EC, between_C * np.sqrt(1 - center_weight_EC))
    spread_EC = np.maximum(spread_EC, FLOAT32_STEP * np.abs(center_EC))

    fleet_F, center_EF = np.zeros(len(features)), np.zeros((entities, len(features)))
    scale_EF = np.ones_like(center_EF)
    fleet_F[numbers], center_EF[:, numbers] = fleet_C, center_EC
    scale_EF[:, numbers] = np.maximum(spread_EC / np.hypot(within_C, between_C), SMALLEST)
    return Baselines(fleet_F, center_EF, scale_EF)


def to_fleet(baselines: Baselines, rows_NF: Float32, code_N: Integers) -> Float32:
    """Rows [N, F] of any entities in the fleet's units, as the graph computes them."""
    rows_N1F, codes_N = torch.from_numpy(rows_NF).unsqueeze(1), torch.from_numpy(code_N)
    fleet_NF: Float32 = baselines.to_fleet(rows_N1F, codes_N).squeeze(1).numpy()
    return fleet_NF


def from_fleet(baselines: Baselines, rows_NF: Float32, code_N: Integers) -> Float32:
    """Rows [N, F] in the fleet's units in those of their entities."""
    rows_N1F, codes_N = torch.from_numpy(rows_NF).unsqueeze(1), torch.from_numpy(code_N)
    own_NF: Float32 = baselines.from_fleet(rows_N1F, codes_N).squeeze(1).numpy()
    return own_NF


def _median_and_spread(own_TC: Float64) -> tuple[Float64, Float64]:
    """Of one entity's rows, each [C]; NaN of a column without a value, or without two."""
    if not len(own_TC):
        nothing_C = np.full(own_TC.shape[1], np.nan)
        return nothing_C, nothing_C
    median_C = np.nanmedian(own_TC, axis=0)
    spread_C = GAUSSIAN * np.nanmedian(np.abs(own_TC - median_C), axis=0)
    spread_C = np.where(spread_C > 0, spread_C, np.nanstd(own_TC, axis=0))
    return median_C, np.where(spread_C > 0, spread_C, np.nan)

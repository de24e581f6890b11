"""Windows: what the rows before let expect of a row, and what is said of it by that.

A windowed model looks at W rows of one entity, the judged one last. From them it derives columns in
which a member finds more than in the row alone, and folds what the member says of them back to the
features. Two representations:

- `residual`: the row; how far each number is from what a ridge regression on its LAGS rows before
  and the mean of the HISTORY rows before forecasts; the mean and the standard deviation of that
  over the rest of the window; and the mean of the row over the window.
- `multi`: the row, its difference from the row before, and its mean and standard deviation over
  SPANS of rows as far as the window goes.

All but the row itself is in standard deviations of the feature. A boolean is a number here; a
category has only its row's column. A missing cell is left out of means and
deviations, and is the mean of the history to the forecaster.

Means and deviations over a span are merged from those of its halves (Chan, Golub and LeVeque, The
American Statistician 37, 1983): no more work for a long span than for log2 of it rows, no
difference of large squares, and the same digits in one long series as in each of its windows.

Shapes: B series, T rows of each, F features, C of them numbers or booleans, D derived columns, N
rows of a table, M windows.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hourglass.service.model.artifact import Feature
from hourglass.training.baselines import Baselines
from hourglass.training.core import Core, CoreOutput
from hourglass.training.data import describe
from hourglass.training.features import FLOAT32_LIMIT, Encoding
from hourglass.training.folds import Folds
from hourglass.training.sums import measure

LAGS = 5
# one row in so many of a window is of the residuals' mean and deviation, the others are the
# forecaster's. Of W = 30 so divided, k nearest neighbours and Mahalanobis' distance had VUS-PR .837
# and .883 on average over three families of public series; halved .831 and .880; with 30 rows for
# each, of 60 in all, .828 and .852. Longer statistics alarm long after an event has ended.
PARTS = 3
SPANS = (5, 10, 30, 60)  # of `multi`
LIMIT = 10.0  # standard deviations that one value may move a forecast, a mean or a deviation by
RIDGE = 1e-6  # of a column's variance
CHUNK = 1024  # windows derived at a time

Representation = Literal["residual", "multi"]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]


class Windowing(nn.Module):
    """Series -> derived columns of each of their windows, in order: [B, T, F] raw rows, oldest
    first, NaN where missing -> [B * (T - W + 1), D].
    """

    def __init__(
        self,
        features: Sequence[Feature],
        rows: int,
        representation: Representation,
        center_F: Float64,
        scale_F: Float64,
        forecast_LF: Float64,
    ) -> None:
        super().__init__()
        self.features = tuple(features)
        self.rows = rows
        self.representation = representation
        self.history, self.span = shares(rows)
        self.numbers = [i for i, each in enumerate(features) if each.kind != "categorical"]
        self.statistics = statistics_of(rows, representation)
        self.all_numbers = len(self.numbers) == len(self.features)
        self._buffer("center_C", center_F[self.numbers])
        self._buffer("scale_C", scale_F[self.numbers])
        self._buffer("forecast_LC", forecast_LF[:, self.numbers])
        self.register_buffer("numbers_C", torch.tensor(self.numbers, dtype=torch.int64))
        booleans_C = [features[i].kind == "boolean" for i in self.numbers]
        self.has_booleans = any(booleans_C)
        self.register_buffer("boolean_C", torch.tensor(booleans_C, dtype=torch.bool))

    center_C: Tensor
    scale_C: Tensor
    forecast_LC: Tensor  # weight of the row before, the one before that, ..., and of the mean
    numbers_C: Tensor
    boolean_C: Tensor

    def forward(self, series_BTF: Tensor) -> Tensor:
        return self.look(series_BTF)[0]

    def look(self, series_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """The derived columns; and [B * (T - W + 1), F] what the rows before let expect of each
        number in the last row, in raw units, and of a boolean as a probability; NaN of a category.
        """
        rows_BTF = series_BTF[:, self.rows - 1 :]
        if not self.numbers:
            rows_NF = rows_BTF.reshape(-1, len(self.features))
            return rows_NF, torch.full_like(rows_NF, torch.nan)
        standard_BTC, observed_BTC = self._standardise(series_BTF)
        spans = (self.history, self.rows) if self.representation == "residual" else (self.history,)
        sums = _over(_Sums(torch.cat([standard_BTC, observed_BTC], dim=2)), spans)
        before = sums[0].part(slice(None, -1))
        forecast_BTC = self._forecast(standard_BTC, observed_BTC, before)
        if self.representation == "residual":
            statistics = self._residuals(standard_BTC, observed_BTC, forecast_BTC)
            statistics.append(sums[1].mean(nothing=torch.nan))
        else:
            statistics = self._multi(standard_BTC, observed_BTC)
        derived_BTD = torch.cat([rows_BTF, *statistics], dim=2)
        derived_ND = derived_BTD.reshape(-1, len(self.features) + len(statistics) * self.width)
        return derived_ND, self._expected(forecast_BTC[:, self.span - 1 :])

    @property
    def width(self) -> int:
        """C."""
        return len(self.numbers)

    def fold(self, parts_ND: Tensor) -> Tensor:
        """[N, F] of each feature the sum of what is said of its columns."""
        width = len(self.features)
        row_NF, statistics_NS = parts_ND[:, :width], parts_ND[:, width:]
        if not self.numbers:
            return row_NF
        sums_NC = statistics_NS.reshape(-1, len(self.statistics), self.width).sum(dim=1)
        return row_NF + self._place(sums_NC, 0.0)

    def derived_features(self, derived_MD: Float32) -> tuple[Feature, ...]:
        """The derived columns as features, with missing rate and range as these rows have them."""
        names = {feature.name for feature in self.features}
        derived = list(self.features)
        for statistic in self.statistics:
            for i in self.numbers:
                name = f"{self.features[i].name} {statistic}"
                while name in names:
                    name += "'"
                names.add(name)
                derived.append(Feature(name=name, kind="numeric"))
        return describe(tuple(derived), derived_MD)

    def _standardise(self, series_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers in standard deviations, 0 where missing; and 1 where observed."""
        if not self.all_numbers:
            series_BTF = torch.index_select(series_BTF, 2, self.numbers_C)
        missing_BTC = torch.isnan(series_BTF)
        standard_BTC = ((series_BTF - self.center_C) / self.scale_C).clamp(-LIMIT, LIMIT)
        return torch.where(missing_BTC, 0.0, standard_BTC), torch.where(missing_BTC, 0.0, 1.0)

    def _forecast(self, standard_BTC: Tensor, observed_BTC: Tensor, before: "_Sums") -> Tensor:
        """[B, T - history, C] what is expected of each row that has so many before it, of which
        these are the sums.
        """
        mean_BTC = before.mean()
        forecast_BTC = mean_BTC * self.forecast_LC.sum(dim=0)
        for lag, weight_C in enumerate(self.forecast_LC[:-1], 1):
            rows = slice(self.history - lag, -lag)
            apart_BTC = standard_BTC[:, rows] - mean_BTC * observed_BTC[:, rows]
            forecast_BTC = forecast_BTC + apart_BTC * weight_C
        return forecast_BTC

    def _expected(self, forecast_BTC: Tensor) -> Tensor:
        """[N, F] forecasts in raw units."""
        expected_BTC = self.center_C + self.scale_C * forecast_BTC
        expected_NC = expected_BTC.clamp(-FLOAT32_LIMIT, FLOAT32_LIMIT).reshape(-1, self.width)
        if self.has_booleans:
            share_NC = expected_NC.clamp(0.0, 1.0)
            expected_NC = torch.where(self.boolean_C, share_NC, expected_NC)
        return self._place(expected_NC, torch.nan)

    def _residuals(
        self, standard_BTC: Tensor, observed_BTC: Tensor, forecast_BTC: Tensor
    ) -> list[Tensor]:
        residual_BTC = standard_BTC[:, self.history :] - forecast_BTC
        seen_BTC = observed_BTC[:, self.history :]
        single = _Moments.of(residual_BTC * seen_BTC, seen_BTC)
        (moments,) = _over(single, (self.span,))
        last_BTC, seen_last_BTC = (each[:, self.span - 1 :] for each in (residual_BTC, seen_BTC))
        return [
            torch.where(seen_last_BTC > 0, last_BTC, torch.nan),
            moments.means(),
            moments.deviations(),
        ]

    def _multi(self, standard_BTC: Tensor, observed_BTC: Tensor) -> list[Tensor]:
        first = self.rows - 1
        last_BTC, before_BTC = standard_BTC[:, first:], standard_BTC[:, first - 1 : -1]
        both_BTC = observed_BTC[:, first:] * observed_BTC[:, first - 1 : -1]
        columns = [torch.where(both_BTC > 0, last_BTC - before_BTC, torch.nan)]
        spans = spans_of(self.rows)
        single = _Moments.of(standard_BTC, observed_BTC)
        for span, moments in zip(spans, _over(single, spans), strict=True):
            ending = moments.part(slice(self.rows - span, None))
            columns += [ending.means(), ending.deviations()]
        return columns

    def _place(self, values_NC: Tensor, other: float) -> Tensor:
        """[N, F] values of numbers in their places, and another for the categories."""
        if self.all_numbers:
            return values_NC
        places = torch.full((len(self.features),), self.width, dtype=torch.int64)
        places[self.numbers] = torch.arange(self.width)
        others_N1 = torch.full_like(values_NC[:, :1], other)
        return torch.index_select(torch.cat([values_NC, others_N1], dim=1), 1, places)

    def _buffer(self, name: str, value: Float64) -> None:
        self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))


class Windowed(nn.Module):
    """A core of derived columns behind its windowing: what the file of a windowed model computes.

    The score is the core's; contributions are folded to the features, and the expected values are
    those that the rows before let expect, of a category what the core expects. Where entities have
    baselines, all but the expected values is of rows in the fleet's units.
    """

    def __init__(
        self, windowing: Windowing, core: Core | Folds, baselines: Baselines | None = None
    ) -> None:
        super().__init__()
        self.windowing = windowing
        self.core = core
        self.baselines = baselines

    def forward(self, features: Tensor, entity: Tensor | None = None) -> CoreOutput:
        return self.answer(features, entity)[0]

    def answer(self, features: Tensor, entity: Tensor | None) -> tuple[CoreOutput, Tensor]:
        """What is said of series [B, T, F] of these entities [B], and the derived columns; they are
        None where there are no baselines.
        """
        if self.baselines is None or entity is None:
            derived_ND, forecast_NF = self.windowing.look(features)
            return self._judge(derived_ND, forecast_NF), derived_ND
        rows_BTF = self.baselines.to_fleet(features, entity)
        derived_ND, forecast_NF = self.windowing.look(rows_BTF)
        output, width = self._judge(derived_ND, forecast_NF), len(self.features)
        expected_BMF = output.reconstruction_ND.reshape(features.shape[0], -1, width)
        own_NF = self.baselines.from_fleet(expected_BMF, entity).reshape(-1, width)
        return output._replace(reconstruction_ND=own_NF), derived_ND

    def _judge(self, derived_ND: Tensor, forecast_NF: Tensor) -> CoreOutput:
        """What is said of windows, of which these are the derived columns and the forecasts."""
        output, width = self.core(derived_ND), len(self.features)
        # 0 / 0 where no cell of the row itself is observed
        seen_N = (~torch.isnan(derived_ND[:, :width])).to(derived_ND.dtype).sum(dim=1)
        known_N = seen_N / seen_N
        expected_NF = forecast_NF
        if not self.windowing.all_numbers:
            expected_NF = torch.where(
                torch.isnan(forecast_NF), output.reconstruction_ND[:, :width], forecast_NF
            )
        return CoreOutput(
            output.score_N * known_N,
            self.windowing.fold(output.contributions_ND) * known_N.unsqueeze(1),
            expected_NF,
            output.latent_NK,
        )

    @property
    def rows(self) -> int:
        """W."""
        return self.windowing.rows

    @property
    def features(self) -> tuple[Feature, ...]:
        """Of the rows, as the file's input has them."""
        return self.windowing.features

    @property
    def encoding(self) -> Encoding:
        """Of the derived columns."""
        return self.core.encoding

    @property
    def stores_rows(self) -> Literal["none", "averages", "rows"]:
        """What of the training rows the file will contain."""
        return self.core.stores_rows


def shares(rows: int) -> tuple[int, int]:
    """How a window is shared: rows of the forecaster's history, and of the residuals' mean and
    deviation; together all of them.
    """
    span = max(1, rows // PARTS)
    return rows - span, span


def spans_of(rows: int) -> tuple[int, ...]:
    """Over which `multi` takes means and deviations."""
    return tuple(span for span in SPANS if span <= rows) or (rows,)


def statistics_of(rows: int, representation: Representation) -> tuple[str, ...]:
    """What is derived of each number, in order, beside the row."""
    if representation == "residual":
        return ("residual", "residual mean", "residual deviation", "mean")
    means = [[f"mean {span}", f"deviation {span}"] for span in spans_of(rows)]
    return ("difference", *(name for pair in means for name in pair))


def fit_windowing(
    rows_NF: Float32,
    segment_N: Integers,
    features: Sequence[Feature],
    fit_N: Booleans,
    *,
    window: int,
    representation: Representation,
) -> Windowing:
    """Learn units and forecasts from these of the rows [N, F], which are in order within segments.

    A forecast is learnt from a row that is to be learnt from with all of its history.
    """
    if window < 2:
        raise ValueError(f"a window has at least 2 rows, got {window}")
    history, _ = shares(window)
    lags = min(LAGS, history)
    width = len(features)
    center_F, scale_F, forecast_LF = np.zeros(width), np.ones(width), np.zeros((lags + 1, width))
    follows_N = _follows(segment_N, fit_N, history)
    measures = measure(rows_NF[fit_N])
    for f, feature in enumerate(features):
        if feature.kind == "categorical" or not measures.seen_D[f]:
            continue
        column_N = rows_NF[:, f].astype(np.float64)
        seen_N = ~np.isnan(column_N)
        center_F[f], scale_F[f] = measures.mean_D[f], measures.unit_D[f]
        z_N = np.where(seen_N, np.clip((column_N - center_F[f]) / scale_F[f], -LIMIT, LIMIT), 0)
        forecast_LF[:, f] = _forecaster(z_N, seen_N, follows_N & seen_N, history, lags)
    return Windowing(features, window, representation, center_F, scale_F, forecast_LF)


@torch.no_grad()
def derive(windowing: Windowing, rows_NF: Float32, segment_N: Integers) -> tuple[Float32, Integers]:
    """Derived columns [M, D] of all windows of the rows, and which row [M] each answers for."""
    parts, numbers = [], []
    for part in stretches(segment_N, windowing.rows):
        series_1TF = torch.from_numpy(np.ascontiguousarray(rows_NF[part])).unsqueeze(0)
        parts.append(windowing(series_1TF).numpy())
        numbers.append(np.arange(part.start + windowing.rows - 1, part.stop))
    if not parts:
        width = len(windowing.features) + len(windowing.statistics) * windowing.width
        return np.zeros((0, width), np.float32), np.zeros(0, np.int64)
    return np.concatenate(parts), np.concatenate(numbers)


def stretches(segment_N: Integers, window: int) -> Iterator[slice]:
    """Slices of rows of one segment that make at most CHUNK windows each; every window is in one
    of them, and what is shorter than a window in none.
    """
    ends = np.flatnonzero(np.diff(segment_N)) + 1
    for start, stop in zip([0, *ends.tolist()], [*ends.tolist(), len(segment_N)], strict=True):
        for first in range(start, stop - window + 1, CHUNK):
            yield slice(first, min(first + CHUNK + window - 1, stop))


@torch.no_grad()
def expected_deviations(
    windowing: Windowing, rows_NF: Float32, segment_N: Integers, held_out_N: Booleans
) -> tuple[float | None, ...]:
    """Of each feature the root mean square of actual minus expected over held-out rows, in raw
    units; None of what is no number, or was never seen.
    """
    squares_F, seen_F = np.zeros(len(windowing.features)), np.zeros(len(windowing.features))
    for part in stretches(segment_N, windowing.rows) if windowing.numbers else ():
        answered = slice(part.start + windowing.rows - 1, part.stop)
        series_1TF = torch.from_numpy(np.ascontiguousarray(rows_NF[part])).unsqueeze(0)
        off_NF = rows_NF[answered].astype(np.float64) - windowing.look(series_1TF)[1].numpy()
        off_NF = off_NF[held_out_N[answered]]
        squares_F += np.nansum(np.square(off_NF), axis=0)
        seen_F += (~np.isnan(off_NF)).sum(axis=0)
    return tuple(
        float(np.sqrt(square / seen)) if seen and feature.kind == "numeric" else None
        for feature, square, seen in zip(windowing.features, squares_F, seen_F, strict=True)
    )


class _Sums(NamedTuple):
    """Of spans of rows."""

    both: Tensor  # [B, T, 2 C] of the values, 0 where missing, and of how many were observed

    def mean(self, nothing: float = 0.0) -> Tensor:
        """[B, T, C] of what was observed; that where nothing was."""
        total, counts = self.both.tensor_split(2, dim=2)
        mean = total / counts.clamp_min(1.0)
        return torch.where(counts > 0, mean, nothing) if nothing else mean

    def merged(self, others: Self) -> Self:
        """Of both together."""
        return self._replace(both=self.both + others.both)

    def part(self, of: slice) -> Self:
        """Of some of the spans."""
        return self._replace(both=self.both[:, of])


class _Moments(NamedTuple):
    """Of spans of rows, each [B, T, C]."""

    counts: Tensor
    mean: Tensor  # 0 where nothing was observed
    squares: Tensor  # sum of squared differences from the mean

    @classmethod
    def of(cls, values_BTC: Tensor, observed_BTC: Tensor) -> Self:
        """Of single rows; the values are 0 where missing."""
        return cls(observed_BTC, values_BTC, torch.zeros_like(values_BTC))

    def means(self) -> Tensor:
        """NaN where nothing was observed."""
        return torch.where(self.counts > 0, self.mean, torch.nan)

    def deviations(self) -> Tensor:
        """NaN where fewer than two cells were observed."""
        variance = self.squares / self.counts.clamp_min(1.0)
        return torch.where(self.counts > 1, torch.sqrt(variance), torch.nan)

    def merged(self, others: Self) -> Self:
        """Of both together."""
        counts = self.counts + others.counts
        share = others.counts / counts.clamp_min(1.0)
        apart = others.mean - self.mean
        return self._replace(
            counts=counts,
            mean=self.mean + apart * share,
            squares=self.squares + others.squares + apart * apart * self.counts * share,
        )

    def part(self, of: slice) -> Self:
        """Of some of the spans."""
        return self._replace(
            counts=self.counts[:, of], mean=self.mean[:, of], squares=self.squares[:, of]
        )


_Spans = TypeVar("_Spans", _Sums, _Moments)


def _over(single: _Spans, lengths: Sequence[int]) -> list[_Spans]:
    """Of all spans of each of these lengths, from those of one row: of 1, 2, 4, ... rows, and of
    these together.
    """
    blocks, totals = [single], []
    while 2 ** len(blocks) <= max(lengths):
        half, size = blocks[-1], 2 ** (len(blocks) - 1)
        blocks.append(half.part(slice(None, -size)).merged(half.part(slice(size, None))))
    for length in lengths:
        taken = [k for k in range(len(blocks)) if length >> k & 1]
        total, rows = blocks[taken[0]], 2 ** taken[0]
        for k in taken[1:]:
            total = total.part(slice(None, -(2**k))).merged(blocks[k].part(slice(rows, None)))
            rows += 2**k
        totals.append(total)
    return totals


def _follows(segment_N: Integers, fit_N: Booleans, history: int) -> Booleans:
    """[N] whether a row and all of its history are of one segment and may be learnt from."""
    taken_N = np.concatenate([[0], np.cumsum(fit_N)])
    follows_N = np.zeros(len(segment_N), dtype=bool)
    if len(segment_N) > history:
        together_N = segment_N[history:] == segment_N[:-history]
        all_N = taken_N[history + 1 :] - taken_N[: -history - 1] == history + 1
        follows_N[history:] = together_N & all_N
    return follows_N


def _forecaster(
    z_N: Float64, seen_N: Booleans, learnt_N: Booleans, history: int, lags: int
) -> Float64:
    """[lags + 1] ridge regression of a standardised column on itself; zeros without a row."""
    target_M = np.flatnonzero(learnt_N)
    if not len(target_M):
        return np.zeros(lags + 1)
    totals, counts = (
        np.concatenate([[0.0], np.cumsum(each)])[[target_M, target_M - history]]
        for each in (z_N, seen_N)
    )
    mean_M = (totals[0] - totals[1]) / np.maximum(counts[0] - counts[1], 1)
    lag_ML = target_M[:, None] - np.arange(1, lags + 1)
    before_ML = np.where(seen_N[lag_ML], z_N[lag_ML], mean_M[:, None])
    known_ML = np.concatenate([before_ML, mean_M[:, None]], axis=1)
    gram_LL = known_ML.T @ known_ML + RIDGE * len(target_M) * np.eye(lags + 1)
    weights_L: Float64 = np.linalg.solve(gram_LL, known_ML.T @ z_N[target_M])
    return weights_L

"""Per-feature encoding, inside the graph: raw rows -> what a network reads, and its outputs ->
errors and expected values.

Shapes: N rows, D features, E encoded columns (one per number or boolean, one per category), I
network inputs (E + D).

A number is standardised, a boolean is 0 or 1, a category is one-hot. Errors follow the likelihood
of each kind: Gaussian (squared error), Bernoulli and categorical (cross-entropy; for a number
between 0 and 1 the relative entropy, which is 0 when it is met). A discrete value's probability is
floored at 1 / (rows + 1), the chance the rule of succession gives to something never seen, so that
an unseen category is the most surprising value there is, and finite.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hourglass.service.model.artifact import Feature
from hourglass.training.sums import IN_MEMORY, Measures, Sums, Terms, measure

INPUT_LIMIT = 10.0  # standard deviations; a network has no business extrapolating further
VALUE_LIMIT = 1e6  # keeps squared errors within float32
LOGIT_LIMIT = 30.0
FLOAT32_LIMIT = 3.0e38
TIE = 1e-4  # of logits, that categories are equally likely within
WIDEST = 512  # encoded columns of which matrices are added up over rows beyond memory


Loss = Literal["auto", "mse", "bce"]


class Encoded(NamedTuple):
    """Encoded rows."""

    values_NE: Tensor  # 0 where missing
    observed_ND: Tensor  # 1 observed, 0 missing

    def repeat(self, times: int) -> "Encoded":
        """All rows, one after another, that many times over."""
        return Encoded(self.values_NE.repeat(times, 1), self.observed_ND.repeat(times, 1))

    def concatenate(self, others: "Encoded") -> "Encoded":
        """These rows, then the others."""
        return Encoded(*(torch.cat(pair) for pair in zip(self, others, strict=True)))

    def chunks(self, size: int) -> Iterator["Encoded"]:
        """The rows in order, that many at a time."""
        chunks = (torch.split(self.values_NE, size), torch.split(self.observed_ND, size))
        return map(Encoded, *chunks)


class Encoding(nn.Module):
    """The encoding of a fixed list of features, with centre and scale taken from the fit rows.

    The loss `bce` takes every number as a probability, unscaled; ValueError when one does not lie
    between 0 and 1. The loss `mse` insists that there are only numbers. `auto` is squared error for
    numbers and cross-entropy for the rest.

    Of fit rows that are not all in memory, `measures` are those of all, and what is fitted later
    goes by `sums`, but for tables of more than WIDEST encoded columns.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        rows_ND: NDArray[np.float32],
        loss: Loss = "auto",
        *,
        measures: Measures | None = None,
        sums: Sums = IN_MEMORY,
    ) -> None:
        super().__init__()
        measures = measures or measure(rows_ND)
        _check_loss(loss, features, measures)
        self.features = tuple(features)
        widths = [
            len(feature.categories) if feature.kind == "categorical" else 1 for feature in features
        ]
        starts = np.cumsum([0, *widths])
        self.slices = [
            slice(int(start), int(start) + width)
            for start, width in zip(starts, widths, strict=False)
        ]
        center_E, scale_E, numeric_E = (
            np.zeros(starts[-1]),
            np.ones(starts[-1]),
            np.zeros(starts[-1]),
        )
        self.sums = sums if starts[-1] <= WIDEST else sums.in_memory
        live_D = measures.seen_D > 0  # a feature that was always missing tells nothing
        for d, (feature, part) in enumerate(zip(features, self.slices, strict=True)):
            if feature.kind == "numeric" and loss != "bce" and live_D[d]:
                center_E[part], scale_E[part] = measures.mean_D[d], measures.unit_D[d]
            numeric_E[part] = feature.kind == "numeric"
        source_E = np.repeat(np.arange(len(features)), widths)
        self._buffer("source_E", source_E, torch.int64)
        self._buffer(
            "code_E", np.concatenate([np.arange(width) for width in widths]), torch.float32
        )
        self._buffer(
            "one_hot_E",
            np.repeat([feature.kind == "categorical" for feature in features], widths),
            torch.bool,
        )
        self._buffer("center_E", center_E, torch.float32)
        self._buffer("scale_E", scale_E, torch.float32)
        self._buffer("numeric_E", numeric_E, torch.float32)
        bernoulli_D = [
            feature.kind == "boolean" or (feature.kind == "numeric" and loss == "bce")
            for feature in features
        ]
        self._buffer("bernoulli_E", np.repeat(bernoulli_D, widths), torch.bool)
        self._buffer(
            "gaussian_E", numeric_E if loss != "bce" else np.zeros_like(numeric_E), torch.float32
        )
        self._buffer(
            "gaussian_D",
            [feature.kind == "numeric" and loss != "bce" for feature in features],
            torch.bool,
        )
        self._buffer(
            "categorical_D", [feature.kind == "categorical" for feature in features], torch.bool
        )
        self._buffer("live_D", live_D, torch.float32)
        self._buffer("live_E", live_D[source_E], torch.float32)
        self._buffer("floor", 1.0 / (measures.rows + 1), torch.float32)
        # known before any row is, so that the exported graph holds only what these features need
        self.gaussian_only = loss != "bce" and all(
            feature.kind == "numeric" for feature in features
        )
        self.bernoulli = any(bernoulli_D)
        self.one_hot = any(feature.kind == "categorical" for feature in features)
        self.live_features = float(live_D.sum())
        self.all_live = bool(live_D.all())
        self.one_column_each = np.array_equal(source_E, np.arange(len(features)))
        # of thousands of numbers it would be an identity larger than all else
        members_ED = np.zeros((0, 0)) if self.one_column_each else np.eye(len(features))[source_E]
        self._buffer("members_ED", members_ED, torch.float32)

    @property
    def encoded_width(self) -> int:
        """E."""
        return len(self.source_E)

    @property
    def input_width(self) -> int:
        """I = E + D: the encoded columns, and beside them the mask of what is missing."""
        return self.encoded_width + len(self.features)

    @property
    def scale_D(self) -> Tensor:
        """[D] raw units of one encoded unit of each number with Gaussian errors; 0 for the rest,
        whose noise is in their likelihood.
        """
        return self.gather((self.scale_E * self.gaussian_E).unsqueeze(0)).squeeze(0)

    def encode(self, x_ND: Tensor) -> Encoded:
        """Raw rows, NaN = missing -> encoded values and the mask."""
        missing_ND, x_NE = torch.isnan(x_ND), self.spread(x_ND)
        missing_NE = missing_ND if self.one_column_each else torch.isnan(x_NE)
        # written so that the graph selects between scalars where it can: onnxruntime takes several
        # times as long over vectors
        observed_ND = torch.where(missing_ND, 0.0, 1.0 if self.all_live else self.live_D)
        # infinities end here, too
        values_NE = ((x_NE - self.center_E) / self.scale_E).clamp(-VALUE_LIMIT, VALUE_LIMIT)
        if self.one_hot:
            values_NE = torch.where(self.one_hot_E, (x_NE == self.code_E).to(x_NE.dtype), values_NE)
        values_NE = torch.where(missing_NE, 0.0, values_NE)
        return Encoded(values_NE if self.all_live else values_NE * self.live_E, observed_ND)

    def total(self, rows: Encoded, terms: Callable[[Encoded], Terms]) -> Terms:
        """What all fit rows add to a closed form, these being the ones in memory."""
        return self.sums.over(rows, terms, self.encode)

    def spread(self, x_ND: Tensor) -> Tensor:
        """What is said of features [N, D], such as a mask, said of their encoded columns [N, E]."""
        return x_ND if self.one_column_each else torch.index_select(x_ND, 1, self.source_E)

    def gather(self, x_NE: Tensor) -> Tensor:
        """[N, D] of each feature the sum over its encoded columns."""
        return x_NE if self.one_column_each else x_NE @ self.members_ED

    def hide(self, encoded: Encoded, hidden_ND: Tensor) -> Encoded:
        """The same rows with more cells missing: those where the mask is 1."""
        seen_ND = encoded.observed_ND * (1 - hidden_ND)
        return Encoded(encoded.values_NE * self.spread(seen_ND), seen_ND)

    def inputs(self, encoded: Encoded) -> Tensor:
        """What the network reads: [N, I], missing cells as zero, and beside them which are
        missing.
        """
        return torch.cat(
            [encoded.values_NE.clamp(-INPUT_LIMIT, INPUT_LIMIT), 1 - encoded.observed_ND], dim=1
        )

    def errors(self, outputs_NE: Tensor, encoded: Encoded) -> Tensor:
        """[N, D]: squared error of a number, minus log-likelihood of a boolean or category; 0 where
        missing.
        """
        squared_NE = (encoded.values_NE - outputs_NE).square()
        if self.gaussian_only:
            return squared_NE * encoded.observed_ND
        entropy_NE = torch.where(
            self.bernoulli_E, self._relative_entropy(outputs_NE, encoded.values_NE), 0.0
        )
        errors_ND = self.gather(squared_NE * self.gaussian_E + entropy_NE)
        if self.one_hot:
            errors_ND = torch.where(
                self.categorical_D, self._surprise(outputs_NE, encoded.values_NE), errors_ND
            )
        return errors_ND * encoded.observed_ND

    def decode(self, outputs_NE: Tensor) -> Tensor:
        """[N, D] in raw units: the mean of a number, the probability of true, the likeliest
        category's index.
        """
        raw_NE = (self.center_E + self.scale_E * outputs_NE).clamp(-FLOAT32_LIMIT, FLOAT32_LIMIT)
        if self.bernoulli:
            raw_NE = torch.where(self.bernoulli_E, torch.sigmoid(outputs_NE), raw_NE)
        if not self.one_hot:
            return raw_NE
        columns = [
            (
                # of equally likely ones the first, whatever rounding makes of them
                (outputs_NE[:, part] - TIE * self.code_E[part])
                .argmax(dim=1, keepdim=True)
                .to(raw_NE.dtype)
                if feature.kind == "categorical"
                else raw_NE[:, part]
            )
            for feature, part in zip(self.features, self.slices, strict=True)
        ]
        return torch.cat(columns, dim=1)

    def _relative_entropy(self, outputs_NE: Tensor, values_NE: Tensor) -> Tensor:
        """[N, E] KL from the predicted Bernoulli to the value as one; what lies outside [0, 1] adds
        its squared distance.
        """
        # floats: whole numbers export as Min and Max, of which constants get lost
        inside_NE = values_NE.clamp(0.0, 1.0)
        p_NE = torch.sigmoid(outputs_NE).clamp(self.floor, 1 - self.floor)
        on_NE = inside_NE * (torch.log(inside_NE.clamp_min(1e-12)) - torch.log(p_NE))
        off_NE = (1 - inside_NE) * (
            torch.log((1 - inside_NE).clamp_min(1e-12)) - torch.log1p(-p_NE)
        )
        return (on_NE + off_NE).clamp_min(0.0) + (values_NE - inside_NE).square()

    def _surprise(self, outputs_NE: Tensor, values_NE: Tensor) -> Tensor:
        """[N, D] minus the log-probability of the category seen."""
        odds_NE = torch.exp(outputs_NE.clamp(-LOGIT_LIMIT, LOGIT_LIMIT))
        total_ND = self.gather(odds_NE).clamp_min(1e-30)
        p_ND = self.gather(odds_NE * values_NE * self.one_hot_E) / total_ND
        return -torch.log(p_ND.clamp_min(self.floor))

    def _buffer(self, name: str, value: object, dtype: torch.dtype) -> None:
        self.register_buffer(name, torch.as_tensor(np.asarray(value)).to(dtype))

    source_E: Tensor
    code_E: Tensor
    one_hot_E: Tensor
    center_E: Tensor
    scale_E: Tensor
    numeric_E: Tensor
    gaussian_E: Tensor
    gaussian_D: Tensor
    bernoulli_E: Tensor
    categorical_D: Tensor
    members_ED: Tensor
    live_D: Tensor
    live_E: Tensor
    floor: Tensor


def _check_loss(loss: Loss, features: Sequence[Feature], measures: Measures) -> None:
    ends_D2 = np.stack([measures.least_D, measures.largest_D], axis=1)
    for feature, ends_2 in zip(features, ends_D2, strict=True):
        if loss == "mse" and feature.kind != "numeric":
            raise ValueError(
                f"the loss mse is for numbers, and column {feature.name!r} is {feature.kind}; auto"
                " knows each kind"
            )
        if loss == "bce" and feature.kind == "numeric":
            outside = ends_2[(ends_2 < 0) | (ends_2 > 1)]
            if len(outside):
                raise ValueError(
                    f"the loss bce needs every number between 0 and 1, and column {feature.name!r}"
                    f" holds {outside[0]:g}; scale the column, or leave the loss at auto"
                )

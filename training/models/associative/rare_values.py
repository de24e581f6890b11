"""Rare values: how seldom the values of columns that have few are, one column at a time.

Of columns with few values a distance says little: neighbours coincide, and what is strange about a
row is a value that hardly any row holds (Koufakou, Ortiz, Georgiopoulos, Anagnostopoulos and
Reynolds, A Scalable and Efficient Outlier Detection Strategy for Categorical Data, ICTAI 2007). The
rule of succession gives a value that c of n rows hold the probability (c + 1) / (n + 1), and one
that none holds 1 / (n + 1). Minus the logs of it, as if columns were independent, are the evidence.

Shapes: N rows, D features, E encoded columns, S columns that are looked at, V values of one.
"""

import math

import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded, Encoding

FEWEST, MOST = 2, 10  # values of a column that is looked at
ROWS_PER_VALUE = 5  # of such a column, on average, at least
COMMONEST = 0.95  # of the rows, at most, hold one value of a column that is not nearly constant
NEAR = 0.01  # of the smallest step between two values of a column: what is as near is the same


class RareValues(nn.Module):
    """The values of the columns that have few of them, by how rare they are."""

    def __init__(self, encoding: Encoding, fit_rows: Encoded) -> None:
        super().__init__()
        self.encoding = encoding
        place_NE = self._places(fit_rows)
        starts = [part.start for part in encoding.slices]
        kept = [
            feature
            for feature, start in enumerate(starts)
            if _are_few(place_NE[fit_rows.observed_ND[:, feature] > 0, start])
        ]
        self.register_buffer("features_S", torch.tensor(kept, dtype=torch.int64))
        varied = [
            feature
            for feature in kept
            if _varies(place_NE[fit_rows.observed_ND[:, feature] > 0, starts[feature]])
        ]
        # of the features that were ever seen, those with few values that are not nearly constant
        self.share = len(varied) / max(1.0, encoding.live_features)
        self.register_buffer("columns_S", torch.tensor(starts)[kept])
        place_E = torch.full((encoding.encoded_width,), len(kept))
        place_E[self.columns_S] = torch.arange(len(kept))
        self.register_buffer("place_E", place_E)
        self.fit(fit_rows)

    features_S: Tensor
    columns_S: Tensor  # the first encoded one of each
    place_E: Tensor  # among the columns; of one that is not looked at, after the last
    values_SV: Tensor  # a column with fewer repeats its first
    gain_SV: Tensor  # how much likelier each is than a value that no row holds; 0 of the repeated
    near_S: Tensor
    never_S: Tensor  # minus the log of the probability of a value that no row holds

    def forward(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """The mean surprise [N, 1] of the observed columns that are looked at, and that of each
        [N, E], laid on its first encoded column.
        """
        place_NS1 = self._places(encoded).index_select(1, self.columns_S).unsqueeze(2)
        is_value_NSV = ((place_NS1 - self.values_SV).abs() <= self.near_S.unsqueeze(1)).float()
        observed_NS = encoded.observed_ND.index_select(1, self.features_S)
        surprise_NS = (self.never_S - (is_value_NSV * self.gain_SV).sum(dim=2)) * observed_NS
        seen_N1 = observed_NS.sum(dim=1, keepdim=True).clamp_min(1.0)
        parts_NE = nn.functional.pad(surprise_NS, (0, 1)).index_select(1, self.place_E)
        return surprise_NS.sum(dim=1, keepdim=True) / seen_N1, parts_NE

    @torch.no_grad()
    def fit(self, rows: Encoded) -> None:
        """Count the values of these rows, in the same columns."""
        place_NE, counted = self._places(rows), []
        for feature, column in zip(self.features_S, self.columns_S, strict=True):
            seen_N = place_NE[rows.observed_ND[:, feature] > 0, column]
            counted.append((len(seen_N), *torch.unique(seen_N, return_counts=True)))
        most = max((len(values_V) for _, values_V, _ in counted), default=1)
        self.register_buffer("values_SV", torch.zeros(len(counted), most))
        self.register_buffer("gain_SV", torch.zeros(len(counted), most))
        self.register_buffer("near_S", torch.zeros(len(counted)))
        self.register_buffer("never_S", torch.zeros(len(counted)))
        for s, (seen, values_V, count_V) in enumerate(counted):
            self.values_SV[s] = values_V[0]
            self.values_SV[s, : len(values_V)] = values_V
            self.gain_SV[s, : len(values_V)] = torch.log(count_V + 1.0)
            self.near_S[s] = NEAR * values_V.diff().min()
            self.never_S[s] = math.log(seen + 1)

    def _places(self, encoded: Encoded) -> Tensor:
        """[N, E] values; in the first column of a category its number, and -1 of an unknown one."""
        values_NE = encoded.values_NE
        if not self.encoding.one_hot:
            return values_NE
        hot_NE = values_NE * self.encoding.one_hot_E
        place_ND = self.encoding.gather(hot_NE * (self.encoding.code_E + 1)) - 1
        place_NE = self.encoding.spread(place_ND)
        return torch.where(self.encoding.one_hot_E, place_NE, values_NE)


def _are_few(seen_N: Tensor) -> bool:
    """Whether a column with these values is looked at: they are few, and most of them recur."""
    count_V = torch.unique(seen_N, return_counts=True)[1]
    values, once = len(count_V), int((count_V == 1).sum())
    return FEWEST <= values <= min(MOST, len(seen_N) / ROWS_PER_VALUE) and 2 * once <= values


def _varies(seen_N: Tensor) -> bool:
    """Whether no value holds nearly all rows, as in most columns of a sparse table."""
    count_V = torch.unique(seen_N, return_counts=True)[1]
    return float(count_V.max()) <= COMMONEST * len(seen_N)

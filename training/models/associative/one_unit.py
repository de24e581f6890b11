"""One unit: what directions tell of numbers that are many and measured in one unit, as those of an
embedding are.

Where the spreads of a hundred columns or more are within a factor of thirty, how widely a column
varies says something: rows differ along the wide directions, and a narrow one holds next to nothing
until a strange row comes. To standardise every column loses that. So here the columns keep their
scale, and one Gaussian describes them, whose covariance is shrunk towards a sphere (Ledoit and
Wolf, Journal of Multivariate Analysis 88, 2004) and not towards variances of their own, so that it
needs fewer rows than there are columns. The squared Mahalanobis distance is the evidence. What is
small beside the sphere, a fifth of the typical spread, the other evidence sees better.

Shapes: N rows, E encoded columns.
"""

import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.associative.whitening import Whitening

FEWEST = 100  # columns
WIDEST = 30.0  # spread, in those of a narrow one
END = 0.1  # of the columns, at either end, are not looked at for that
SHRINKAGE = 0.05
VARIES = 0.5  # standard deviations that a column reaches, if it has any


class OneUnit(nn.Module):
    """The Gaussian of all numbers in units of their typical spread; what is no number is 0."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding
        numbers_E = encoding.gaussian_E * encoding.live_E
        typical = (encoding.scale_E.square() * numbers_E).sum() / numbers_E.sum().clamp_min(1.0)
        self.register_buffer("unit_E", encoding.scale_E * numbers_E / typical.sqrt())
        self.whitening = Whitening(encoding.encoded_width)

    unit_E: Tensor  # in typical spreads, of what is one in the encoding

    def forward(self, filled_NE: Tensor, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Encoded rows with their gaps filled -> the mean squared Mahalanobis distance of observed
        columns [N, 1], and the part of each [N, E].
        """
        observed_NE = self.encoding.spread(encoded.observed_ND)
        width = observed_NE.shape[1]
        # exactly 1 where all are observed
        rescale_N1 = 1 / (observed_NE.sum(dim=1, keepdim=True).clamp_min(1.0) / width)
        whitened_NE = self.whitening(filled_NE * self.unit_E)
        parts_NE = whitened_NE.square() * observed_NE * rescale_N1
        return parts_NE.mean(dim=1, keepdim=True), parts_NE

    @torch.no_grad()
    def fit(self, filled_NE: Tensor) -> None:
        """From rows with their gaps filled."""
        self.whitening.fit(
            filled_NE * self.unit_E, None, power=1.0, shrinkage=SHRINKAGE, scale=False, sphere=True
        )


def share_a_unit(encoding: Encoding, fit_rows: Encoded) -> bool:
    """Whether there are many numbers, whose spreads are alike."""
    varies_E = fit_rows.values_NE.abs().amax(dim=0) > VARIES
    spread_E = encoding.scale_E[varies_E & (encoding.gaussian_E > 0)]
    if len(spread_E) < FEWEST:
        return False
    narrow, wide = torch.quantile(spread_E, torch.tensor([END, 1 - END])).tolist()
    return bool(wide <= WIDEST * narrow)

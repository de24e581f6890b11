"""Ridge: a denoiser in closed form, the ridge regression of rows on random features of themselves.

One hidden layer that is drawn, not fitted (Rahimi and Recht, Weighted Sums of Random Kitchen Sinks,
NeurIPS 2008), and a linear one whose weights have a closed form; ridge regression is what noise in
the hidden layer comes to (Bishop, Neural Computation 7, 1995). The residual that each fit row would
have if it were left out follows without fitting again (the hat matrix; Allen, Technometrics 16,
1974).

Shapes: N rows, E columns of all views together, P random features.
"""

import math

import torch
from torch import Tensor, nn

from hourglass.training.models.associative.whitening import Whitening
from hourglass.training.sums import Terms

STEEPNESS = 1.5  # of the random features, over the square root of the columns
OFFSET = 0.5
RIDGE = 0.01  # of the features' mean variance
SHRINKAGE = 0.1


class Ridge(nn.Module):
    """Random features, the linear layer that answers to them, and the whitening of what is left."""

    def __init__(self, columns: int, features: int) -> None:
        super().__init__()
        self.register_buffer(
            "enter_EP", torch.randn(columns, features) * STEEPNESS / math.sqrt(columns)
        )
        self.register_buffer("offset_P", torch.randn(features) * OFFSET)
        self.register_buffer("center_P", torch.zeros(features))
        self.register_buffer("answer_PE", torch.zeros(features, columns))
        self.whitening = Whitening(columns)

    enter_EP: Tensor
    offset_P: Tensor
    center_P: Tensor
    answer_PE: Tensor

    def forward(self, values_NE: Tensor) -> Tensor:
        """[N, E] what the rows should be."""
        # in float64: what is left is small beside what is subtracted
        hidden_NP = torch.tanh(
            torch.addmm(self.offset_P.double(), values_NE.double(), self.enter_EP.double())
        )
        answer_PE = self.answer_PE.double()
        return torch.addmm(-(self.center_P.double() @ answer_PE), hidden_NP, answer_PE).float()

    @torch.no_grad()
    def center(self, values_NE: Tensor) -> None:
        """Where about the random features are: sums of what differs from there lose no digits."""
        self.center_P.copy_(self._features(values_NE).mean(dim=0))

    def terms(self, values_NE: Tensor) -> Terms:
        """What rows add to the regression: their number, sums and products."""
        features_NP, wide_NE = self._features(values_NE) - self.center_P, values_NE.double()
        count = torch.tensor(float(len(wide_NE)), dtype=torch.float64)
        gram_PP, cross_PE = features_NP.T @ features_NP, features_NP.T @ wide_NE
        return Terms((count, features_NP.sum(dim=0), gram_PP, wide_NE.sum(dim=0), cross_PE))

    @torch.no_grad()
    def fit(self, terms: Terms, values_NE: Tensor, observed_NE: Tensor) -> None:
        """The linear layer, from the terms of all fit rows, and what whitens the residuals, from
        those in memory; the random features stay.
        """
        count, left_P, gram_PP, total_E, cross_PE = terms.sums
        left_P = left_P / count
        center_P = self.center_P.double() + left_P
        gram_PP = gram_PP / count - torch.outer(left_P, left_P)
        cross_PE = cross_PE / count - torch.outer(left_P, total_E / count)
        gram_PP += (
            RIDGE * gram_PP.trace() / len(center_P) * torch.eye(len(center_P), dtype=torch.float64)
        )
        inverse_PP = torch.linalg.inv(gram_PP)
        answer_PE = inverse_PP @ cross_PE
        self.center_P.copy_(center_P)
        self.answer_PE.copy_(answer_PE)
        features_NP = self._features(values_NE) - center_P
        leverage_N = ((features_NP @ inverse_PP) * features_NP).sum(dim=1) / count
        left_out_NE = (values_NE.double() - features_NP @ answer_PE) / (
            1 - leverage_N.clamp_max(0.99)
        ).unsqueeze(1)
        self.whitening.fit(
            left_out_NE, observed_NE.double(), power=1.0, shrinkage=SHRINKAGE, scale=True
        )

    def _features(self, values_NE: Tensor) -> Tensor:
        """[N, P] the random features, in float64."""
        return torch.tanh(values_NE.double() @ self.enter_EP.double() + self.offset_P.double())

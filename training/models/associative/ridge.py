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
    def fit(self, values_NE: Tensor, observed_NE: Tensor) -> None:
        """The linear layer; the random features stay."""
        wide_NE = values_NE.double()
        features_NP = torch.tanh(wide_NE @ self.enter_EP.double() + self.offset_P.double())
        center_P = features_NP.mean(dim=0)
        features_NP -= center_P
        gram_PP = features_NP.T @ features_NP / len(wide_NE)
        gram_PP += (
            RIDGE * gram_PP.trace() / len(center_P) * torch.eye(len(center_P), dtype=torch.float64)
        )
        inverse_PP = torch.linalg.inv(gram_PP)
        answer_PE = inverse_PP @ (features_NP.T @ wide_NE) / len(wide_NE)
        leverage_N = ((features_NP @ inverse_PP) * features_NP).sum(dim=1) / len(wide_NE)
        left_out_NE = (wide_NE - features_NP @ answer_PE) / (
            1 - leverage_N.clamp_max(0.99)
        ).unsqueeze(1)
        self.center_P.copy_(center_P)
        self.answer_PE.copy_(answer_PE)
        self.whitening.fit(
            left_out_NE, observed_NE.double(), power=1.0, shrinkage=SHRINKAGE, scale=True
        )

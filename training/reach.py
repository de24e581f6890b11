"""Reach: how far beyond all fit rows a value lies, so that a gross one is never lost among many.

A member bounds what one cell can say (views.py clips, logarithms bend), and among thousands of
columns what is left of it disappears. A number that lies farther than three ranges of the fit rows
from their middle is strange whatever the others are. Within that nothing is added, and the score is
the member's alone. Where no fit row has a value, any number is far.

Shapes: N rows, D features.
"""

import torch
from torch import Tensor, nn

WEIGHT = 10.0  # of the logarithm; a score of 10 is over any member's threshold
FARTHEST, FARTHEST_RANGES = 1e38, 1e9  # whatever is beyond is no farther, and finite
UNKNOWN = 100.0  # ranges that a value lies off where no fit row has one
GRANTED = 3.0  # ranges from the middle of the range; half a one is inside


class Reach(nn.Module):
    """How far values lie beyond what is granted, in ranges of the fit rows."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("middle_D", torch.zeros(features))
        self.register_buffer("per_range_D", torch.zeros(features))  # 0: no value is far
        self.register_buffer("unknown_D", torch.zeros(features))

    middle_D: Tensor
    per_range_D: Tensor
    unknown_D: Tensor

    def forward(self, features_ND: Tensor) -> Tensor:
        """[N, D] raw rows -> [N, D] ranges beyond those granted; 0 where missing."""
        seen_ND = ~torch.isnan(features_ND)
        off_ND = torch.where(seen_ND, features_ND - self.middle_D, 0.0).abs()
        off_ND = off_ND.clamp_max(FARTHEST) * self.per_range_D
        return (
            torch.relu(off_ND - GRANTED).clamp_max(FARTHEST_RANGES)
            + seen_ND.to(features_ND.dtype) * self.unknown_D
        )

    @torch.no_grad()
    def fit(self, rows_ND: Tensor, numeric_D: Tensor) -> None:
        """Take the ranges of the numeric columns [D] from raw fit rows [N, D]; of a constant column
        nothing is said.
        """
        seen_ND = ~torch.isnan(rows_ND)
        low_D = torch.where(seen_ND, rows_ND, torch.inf).amin(dim=0)
        high_D = torch.where(seen_ND, rows_ND, -torch.inf).amax(dim=0)
        known_D = seen_ND.any(dim=0)
        range_D = high_D.double() - low_D.double()
        varies_D = known_D & numeric_D & (range_D > 0)
        self.middle_D.copy_(torch.where(varies_D, (low_D.double() + high_D.double()) / 2, 0.0))
        self.per_range_D.copy_(torch.where(varies_D, 1 / range_D, 0.0))
        self.unknown_D.copy_((~known_D & numeric_D) * UNKNOWN)

"""Kinds: how heads, readings of how strange a row is, become one score.

How rare a head's level is among held-out rows puts all heads on one scale
(tail_probabilities.py). Those of one kind, which say nearly the same, are averaged; how rare the
averages are is joined by the harmonic mean of the shares.

Shapes: N rows, H heads, kind by kind, K kinds, R rates of missing cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hourglass.training.models.associative.tail_probabilities import Gaps, Tails


class Kinds(nn.Module):
    """The heads of each kind, their tails and those of their averages."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        size_K = torch.tensor(sizes)
        self.register_buffer(
            "kind_HK", (torch.eye(len(sizes)) / size_K).repeat_interleave(size_K, dim=0)
        )
        self.tails = Tails(len(self.kind_HK))
        self.kind_tails = Tails(len(sizes))
        self.gaps = Gaps(1)

    kind_HK: Tensor  # what share a head has in its kind

    def forward(self, levels_NH: Tensor, missing_N1: Tensor) -> tuple[Tensor, Tensor]:
        """Levels, and the share of cells that a row lacks -> the score [N, 1], and each head's part
        in it [N, H].
        """
        joint_N1, share_NH = self._join(levels_NH, missing_N1)
        narrowing_N1, shift_N1 = self.gaps.moves(missing_N1)  # of its logarithm
        return joint_N1**narrowing_N1 * torch.exp(shift_N1), share_NH

    @torch.no_grad()
    def fit(self, levels_RNH: Tensor, missing_RN1: Tensor) -> None:
        """From the levels of held-out rows, as they are and with more and more cells hidden."""
        rates_R = missing_RN1.mean(dim=(1, 2))
        self.tails.fit(levels_RNH, rates_R)
        hidden = list(zip(levels_RNH, missing_RN1, strict=True))
        means = [
            self.tails(levels_NH, missing_N1) @ self.kind_HK for levels_NH, missing_N1 in hidden
        ]
        self.kind_tails.fit(torch.stack(means), rates_R)
        joint = [self._join(levels_NH, missing_N1)[0] for levels_NH, missing_N1 in hidden]
        self.gaps.fit(torch.log(torch.stack(joint)), rates_R)

    def _join(self, levels_NH: Tensor, missing_N1: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the log of the kinds' weighted harmonic mean share (Wilson, PNAS 116, 2019) [N, 1],
        and each head's part in it [N, H].

        It listens to the kind that finds a row rarest, as far as the others leave room: one alone
        among many is heard.
        """
        rarity_NH = self.tails(levels_NH, missing_N1)
        mean_NK = rarity_NH @ self.kind_HK
        rarity_NK = self.kind_tails(mean_NK, missing_N1)
        weights_NK = self.kind_tails.gaps.worth(missing_N1)
        heard_NK = rarity_NK + torch.log(weights_NK / weights_NK.sum(dim=1, keepdim=True))
        share_NK = torch.softmax(heard_NK, dim=1)
        return torch.logsumexp(heard_NK, dim=1, keepdim=True), (
            share_NK / mean_NK
        ) @ self.kind_HK.T * rarity_NH

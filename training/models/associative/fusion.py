"""Fusion: how pieces of evidence, each a level that rises with strangeness, become one score.

How rare a level is among held-out rows puts all evidence on one scale (tail_probabilities.py). The
pieces of one group, which say nearly the same, are averaged; the harmonic mean of the shares joins
how rare the averages are.

Shapes: N rows, H pieces of evidence, group by group, G groups, R rates of missing cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hourglass.training.models.associative.tail_probabilities import Gaps, TailProbabilities

HIGHEST = 1e30  # score: held-out rows that are all alike make a power of it that float32 lacks


class Fusion(nn.Module):
    """Reads the tail probability of each piece of evidence, and that of each group's average."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float]) -> None:
        super().__init__()
        size_G = torch.tensor(sizes)
        self.register_buffer("weight_G", torch.tensor(weights))
        self.register_buffer(
            "share_HG",
            (torch.eye(len(sizes)) / size_G).repeat_interleave(
                size_G, dim=0, output_size=sum(sizes)
            ),
        )
        self.tail_probabilities = TailProbabilities(len(self.share_HG))
        self.group_tail_probabilities = TailProbabilities(len(sizes))
        self.gaps = Gaps(1)

    share_HG: Tensor  # what share a piece of evidence has in its group
    weight_G: Tensor  # what a group weighs beside the others

    def forward(self, levels_NH: Tensor, missing_N1: Tensor) -> tuple[Tensor, Tensor]:
        """Levels, and the share of cells that a row lacks -> the score [N, 1], and the share of it
        that each piece of evidence has [N, H].
        """
        joint_N1, share_NH = self._join(levels_NH, missing_N1)
        narrowing_N1, shift_N1 = self.gaps.moves(missing_N1)  # of its logarithm
        score_N1 = joint_N1**narrowing_N1 * torch.exp(shift_N1)
        return score_N1.clamp_max(HIGHEST), share_NH

    @torch.no_grad()
    def fit(self, levels_RNH: Tensor, missing_RN1: Tensor) -> None:
        """Read the levels of held-out rows, as they are and with more and more cells hidden."""
        rates_R = missing_RN1.mean(dim=(1, 2))
        self.tail_probabilities.fit(levels_RNH, rates_R)
        hidden = list(zip(levels_RNH, missing_RN1, strict=True))
        means = [
            self.tail_probabilities(levels_NH, missing_N1) @ self.share_HG
            for levels_NH, missing_N1 in hidden
        ]
        self.group_tail_probabilities.fit(torch.stack(means), rates_R)
        joint = [self._join(levels_NH, missing_N1)[0] for levels_NH, missing_N1 in hidden]
        self.gaps.fit(torch.log(torch.stack(joint)), rates_R)

    def _join(self, levels_NH: Tensor, missing_N1: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the log of the groups' weighted harmonic mean share (Wilson, PNAS 116, 2019)
        [N, 1], and each piece's share of it [N, H].

        It listens to the group that finds a row rarest, as far as the others leave room: one alone
        among many is heard.
        """
        rarity_NH = self.tail_probabilities(levels_NH, missing_N1)
        mean_NG = rarity_NH @ self.share_HG
        rarity_NG = self.group_tail_probabilities(mean_NG, missing_N1)
        weights_NG = self.weight_G * self.group_tail_probabilities.gaps.worth(missing_N1)
        heard_NG = rarity_NG + torch.log(weights_NG / weights_NG.sum(dim=1, keepdim=True))
        share_NG = torch.softmax(heard_NG, dim=1)
        share_NH = (share_NG / mean_NG) @ self.share_HG.T * rarity_NH
        return torch.logsumexp(heard_NG, dim=1, keepdim=True), share_NH

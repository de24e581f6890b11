"""Network: the residual networks of a noise-conditional denoiser, one for each view and member,
fitted side by side.

Shapes: V networks, N rows, E columns of one view, D features, W width, I inputs and O outputs of a
layer.
"""

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """One residual network per view and member, all in one batched product; at the start it answers
    0.
    """

    def __init__(self, networks: int, columns: int, features: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = Layer(networks, columns + features + 1, width)
        self.firsts = nn.ModuleList(Layer(networks, width, width) for _ in range(blocks))
        self.seconds = nn.ModuleList(
            Layer(networks, width, width, zero=True) for _ in range(blocks)
        )
        self.leave = Layer(networks, width, columns, zero=True)

    def forward(
        self, values_VNE: Tensor, condition_VN1: Tensor, missing_ND: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The answers [V, N, E], and the last hidden layers [V, N, W] that they are read off.

        The condition may be one for all. What is missing has a product of its own, which is 0 for
        rows that lack nothing.
        """
        columns = values_VNE.shape[2]
        values_VEW, observed_VDW, condition_V1W = self.enter.weight_VIO.tensor_split(
            [columns, -1], dim=1
        )
        always_VNW = condition_VN1 * condition_V1W + (
            self.enter.bias_V1O + observed_VDW.sum(dim=1, keepdim=True)
        )
        hidden_VNW = torch.bmm(values_VNE, values_VEW) + always_VNW - missing_ND @ observed_VDW
        for first, second in zip(self.firsts, self.seconds, strict=True):
            hidden_VNW = hidden_VNW + second(
                nn.functional.silu(first(nn.functional.silu(hidden_VNW)))
            )
        last_VNW = nn.functional.silu(hidden_VNW)
        return self.leave(last_VNW), last_VNW


class Layer(nn.Module):
    """A linear layer per network."""

    def __init__(self, networks: int, inputs: int, outputs: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else inputs**-0.5
        self.weight_VIO = nn.Parameter(
            torch.empty(networks, inputs, outputs).uniform_(-bound, bound)
        )
        self.bias_V1O = nn.Parameter(torch.empty(networks, 1, outputs).uniform_(-bound, bound))

    def forward(self, values_VNI: Tensor) -> Tensor:
        return torch.bmm(values_VNI, self.weight_VIO) + self.bias_V1O

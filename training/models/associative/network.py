"""Network: the residual networks of a noise-conditional denoiser, one for each view and member,
fitted side by side.

Shapes: V networks, N rows, E columns of one view, D features, W width, I inputs and O outputs of a
layer.
"""

import torch
from torch import Tensor, nn

ALL = slice(None)  # networks


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
        if self.training:
            return self._answer(ALL, values_VNE, condition_VN1, missing_ND)
        # one network after the other: onnxruntime has another kernel for a batched product of one
        # row, which rounds in another way, than of several
        conditions_VN1 = condition_VN1.expand(len(values_VNE), -1, 1)
        each = [
            self._answer(v, values_NE, condition_N1, missing_ND)
            for v, (values_NE, condition_N1) in enumerate(
                zip(values_VNE, conditions_VN1, strict=True)
            )
        ]
        answers, hidden = zip(*each, strict=True)
        return torch.stack(answers), torch.stack(hidden)

    def _answer(
        self, which: int | slice, values: Tensor, condition: Tensor, missing_ND: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of one network, or of all of them in batched products."""
        values_weight, observed_weight, condition_weight = self.enter.weight_VIO[
            which
        ].tensor_split([values.shape[-1], -1], dim=-2)
        always = condition * condition_weight + (
            self.enter.bias_V1O[which] + observed_weight.sum(dim=-2, keepdim=True)
        )
        hidden = values @ values_weight + always - missing_ND @ observed_weight
        for first, second in zip(self.firsts, self.seconds, strict=True):
            hidden = hidden + second(
                nn.functional.silu(first(nn.functional.silu(hidden), which)), which
            )
        last = nn.functional.silu(hidden)
        return self.leave(last, which), last


class Layer(nn.Module):
    """A linear layer per network."""

    def __init__(self, networks: int, inputs: int, outputs: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else inputs**-0.5
        self.weight_VIO = nn.Parameter(
            torch.empty(networks, inputs, outputs).uniform_(-bound, bound)
        )
        self.bias_V1O = nn.Parameter(torch.empty(networks, 1, outputs).uniform_(-bound, bound))

    def forward(self, values: Tensor, which: int | slice) -> Tensor:
        product: Tensor = values @ self.weight_VIO[which] + self.bias_V1O[which]
        return product

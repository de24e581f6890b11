"""Layers that several members are made of, and how wide they are where a config leaves it open.

Shapes: N rows, E encoded columns, D features, I network inputs (E + D), O outputs of a layer.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hourglass.training.features import Encoding


class Sizes(NamedTuple):
    """Widths of the hidden layers, from the row on, and of the code."""

    hidden: tuple[int, ...]
    latent: int


def sizes(encoding: Encoding, hidden: tuple[int, ...] | None, latent: int | None) -> Sizes:
    """Hidden widths and code width as given, else by the width of the data; () is no hidden
    layer.
    """
    if min(hidden or (1,)) < 1 or (latent is not None and latent < 1):
        raise ValueError(
            f"hidden and latent must be at least 1, got hidden = {hidden}, latent = {latent}"
        )
    width = encoding.encoded_width
    default = (min(256, max(64, 2 * width)),)
    return Sizes(default if hidden is None else hidden, latent or min(64, max(2, width // 2)))


Activation = Literal["silu", "relu", "tanh", "linear"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}


def mlp(widths: tuple[int, ...], activation: Activation = "silu") -> nn.Sequential:
    """Linear layers of the given widths with the activation between them."""
    return _layers([nn.Linear(before, after) for before, after in pairwise(widths)], activation)


def encoder(
    encoding: Encoding, widths: tuple[int, ...], activation: Activation = "silu"
) -> nn.Sequential:
    """The same, from network inputs on."""
    first, *others = pairwise((encoding.input_width, *widths))
    return _layers(
        [FirstLayer(encoding, first[1]), *(nn.Linear(before, after) for before, after in others)],
        activation,
    )


def _layers(layers: list[nn.Linear], activation: Activation) -> nn.Sequential:
    return nn.Sequential(
        *[part for layer in layers for part in (layer, ACTIVATIONS[activation]())][:-1]
    )


class FirstLayer(nn.Linear):
    """A linear layer of network inputs."""

    def __init__(self, encoding: Encoding, outputs: int) -> None:
        super().__init__(encoding.input_width, outputs)
        self.columns = encoding.encoded_width

    def forward(self, inputs_NI: Tensor) -> Tensor:
        return read_inputs(inputs_NI, self.weight, self.bias, self.columns)


def read_inputs(inputs_NI: Tensor, weight_OI: Tensor, bias_O: Tensor, columns: int) -> Tensor:
    """[N, O] of a layer whose weights, after those of the columns, are of what is observed.

    Such weights are fitted faster, since most of them stand by the bias for most rows; but rows
    that lack nothing need none of them if what is missing is read instead.
    """
    values_OE, observed_OD = weight_OI.tensor_split([columns], dim=1)
    weight_OI = torch.cat([values_OE, -observed_OD], dim=1)
    return nn.functional.linear(inputs_NI, weight_OI, bias_O + observed_OD.sum(dim=1))

"""Tied autoencoder: the decoder is the transposed encoder, layer by layer, so half the weights say
as much.

Vincent et al., JMLR 11 (2010), section 2.1: tying keeps a sigmoid layer out of its linear regime
and acts as a regulariser. The mask columns have encoder weights only in use: of the transposed
first layer, the encoded columns are the reconstruction. Each matrix is written as W x on the way in
and x^T W on the way out, which an ONNX graph says without a transposed copy.
"""

from itertools import pairwise

import msgspec
import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import ACTIVATIONS, Activation, read_inputs, sizes
from hourglass.training.models.member import FitConfig, Member


class TiedConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="tied",
):
    """Sizes are chosen by the width of the data when absent; hidden may be of any depth."""

    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    activation: Activation = "silu"
    fit: FitConfig = FitConfig()

    def resolve(self, encoding: Encoding) -> "TiedConfig":
        """The same with every size filled in."""
        hidden, latent = sizes(encoding, self.hidden, self.latent)
        return msgspec.structs.replace(self, hidden=hidden, latent=latent)

    def build(self, encoding: Encoding) -> "Tied":
        """The network of a resolved config."""
        return Tied(self, encoding)


class Tied(Member):
    def __init__(self, config: TiedConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        hidden, latent = sizes(encoding, config.hidden, config.latent)
        widths = (encoding.input_width, *hidden, latent)
        self.activation = ACTIVATIONS[config.activation]()
        self.weights = nn.ParameterList(
            torch.empty(after, before) for before, after in pairwise(widths)
        )
        self.encoder_biases = nn.ParameterList(torch.zeros(width) for width in widths[1:])
        self.decoder_biases = nn.ParameterList(
            torch.zeros(width) for width in reversed((encoding.encoded_width, *widths[1:-1]))
        )
        for weight in self.weights:
            nn.init.xavier_uniform_(weight)

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        layers = list(zip(self.weights, self.encoder_biases, strict=True))
        hidden = inputs_NI
        for i, (weight, bias) in enumerate(layers):
            if i == 0:
                hidden = read_inputs(inputs_NI, weight, bias, self.encoding.encoded_width)
            else:
                hidden = nn.functional.linear(hidden, weight, bias)
            if i < len(layers) - 1:
                hidden = self.activation(hidden)
        latent_NK = hidden
        for i, (weight, bias) in enumerate(
            zip(reversed(list(self.weights)), self.decoder_biases, strict=True)
        ):
            hidden = (hidden @ weight)[:, : len(bias)] + bias
            if i < len(layers) - 1:
                hidden = self.activation(hidden)
        return hidden, latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing random here
        outputs_NE, _ = self(self.encoding.inputs(encoded))
        return self.reconstruction_loss(outputs_NE, encoded)

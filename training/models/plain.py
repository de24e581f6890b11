"""Plain autoencoder: a code, narrower or wider than the row, and the squared error of what comes
back.

Rumelhart, Hinton and Williams, Nature 323 (1986); Hinton and Salakhutdinov, Science 313 (2006). Its
only constraint is the width of the code: one as wide as the row can copy whatever it is given,
anomalies included.
"""

import msgspec
import torch
from torch import Tensor

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import Activation, encoder, mlp, sizes
from hourglass.training.models.member import FitConfig, Member


class PlainConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="plain",
):
    """Sizes are chosen by the width of the data when absent; a latent of at least that width is
    overcomplete.
    """

    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    activation: Activation = "silu"
    fit: FitConfig = FitConfig()

    def resolve(self, encoding: Encoding) -> "PlainConfig":
        """The same with every size filled in."""
        hidden, latent = sizes(encoding, self.hidden, self.latent)
        return msgspec.structs.replace(self, hidden=hidden, latent=latent)

    def build(self, encoding: Encoding) -> "Plain":
        """The network of a resolved config."""
        return Plain(self, encoding)


class Plain(Member):
    def __init__(self, config: PlainConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        hidden, latent = sizes(encoding, config.hidden, config.latent)
        self.encoder = encoder(encoding, (*hidden, latent), config.activation)
        self.decoder = mlp((latent, *reversed(hidden), encoding.encoded_width), config.activation)

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        latent_NK = self.encoder(inputs_NI)
        return self.decoder(latent_NK), latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing random here
        outputs_NE, _ = self(self.encoding.inputs(encoded))
        return self.reconstruction_loss(outputs_NE, encoded)

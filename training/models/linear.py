"""Linear autoencoder: with squared error it spans the principal subspace.

Bourlard and Kamp, Biological Cybernetics 59 (1988); Baldi and Hornik, Neural Networks 2 (1989):
every minimum of the squared error is the projection on the leading principal components, up to an
invertible map of the code; with tied weights that map is a rotation (W W^T = I). The yardstick for
the rest of the family.
"""

import msgspec
import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import FirstLayer, sizes
from hourglass.training.models.member import FitConfig, Member


class LinearConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="linear",
):
    """The number of components is chosen by the width of the data when absent."""

    latent: int | None = None
    tied: bool = False
    fit: FitConfig = FitConfig(
        epochs=30,
        batch_size=0,
        patience=0,
        optimizer="lbfgs",
        precision="float64",
        weight_decay=0.0,
    )

    def resolve(self, encoding: Encoding) -> "LinearConfig":
        """The same with every size filled in."""
        latent = self.latent or min(64, max(1, encoding.encoded_width // 3))
        return msgspec.structs.replace(self, latent=sizes(encoding, (), latent).latent)

    def build(self, encoding: Encoding) -> "LinearAutoencoder":
        """The network of a resolved config."""
        return LinearAutoencoder(self, encoding)


class LinearAutoencoder(Member):
    def __init__(self, config: LinearConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        assert config.latent is not None
        self.tied = config.tied
        # tied, the mask has no weights: a missing cell is read as the mean, and W stays square with
        # the decoder's
        self.encoder = (
            nn.Linear(encoding.encoded_width, config.latent, bias=False)
            if config.tied
            else FirstLayer(encoding, config.latent)
        )
        self.decoder = (
            None if config.tied else nn.Linear(config.latent, encoding.encoded_width, bias=False)
        )
        self.bias_E = nn.Parameter(torch.zeros(encoding.encoded_width))

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        if self.decoder is None:
            centred_NE = inputs_NI[:, : len(self.bias_E)] - self.bias_E
            latent_NK = self.encoder(centred_NE)
            return latent_NK @ self.encoder.weight + self.bias_E, latent_NK
        latent_NK = self.encoder(inputs_NI)
        return self.decoder(latent_NK) + self.bias_E, latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing random here
        outputs_NE, _ = self(self.encoding.inputs(encoded))
        return self.reconstruction_loss(outputs_NE, encoded)

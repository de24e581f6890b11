"""Linear autoencoder: with squared error it spans the principal subspace.

Bourlard and Kamp, Biological Cybernetics 59 (1988); Baldi and Hornik, Neural Networks 2 (1989): every minimum of the squared error is
the projection on the leading principal components, up to an invertible map of the code. The yardstick for the rest of the family.
"""

import msgspec
import torch
from torch import Tensor, nn

from training.features import Encoded, Encoding
from training.models.member import FitConfig, Member


class LinearConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="variant", tag="linear"
):
    """The number of components is chosen by the width of the data when absent."""

    latent: int | None = None
    fit: FitConfig = FitConfig(
        epochs=30, batch_size=0, patience=0, optimizer="lbfgs", precision="float64", weight_decay=0.0
    )

    def resolve(self, encoding: Encoding) -> "LinearConfig":
        """The same with every size filled in."""
        return msgspec.structs.replace(self, latent=self.latent or min(64, max(1, encoding.encoded_width // 3)))

    def build(self, encoding: Encoding) -> "LinearAutoencoder":
        """The network of a resolved config."""
        return LinearAutoencoder(self, encoding)


class LinearAutoencoder(Member):
    def __init__(self, config: LinearConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        assert config.latent is not None
        self.encoder = nn.Linear(encoding.input_width, config.latent)
        self.decoder = nn.Linear(config.latent, encoding.encoded_width)

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        latent_NK = self.encoder(inputs_NI)
        return self.decoder(latent_NK), latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing random here
        outputs_NE, _ = self(self.encoding.inputs(encoded))
        return self.reconstruction_loss(outputs_NE, encoded)

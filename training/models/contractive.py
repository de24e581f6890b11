"""Contractive autoencoder: the code is asked to move little when the row moves, except where the
data needs it.

Rifai, Vincent, Muller, Glorot and Bengio, ICML 2011, equations 6 and 7: the penalty is the squared
Frobenius norm of the encoder's Jacobian, which for one sigmoid layer is sum_j (h_j (1 - h_j))^2
||W_j||^2, so no second backward pass is needed.
"""

import msgspec
import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import FirstLayer, sizes
from hourglass.training.models.member import FitConfig, Member


class ContractiveConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="contractive",
):
    """One sigmoid layer; the code is as wide as the data when not given."""

    latent: int | None = None
    weight: float = 0.1
    fit: FitConfig = FitConfig()

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError("weight must not be negative")

    def resolve(self, encoding: Encoding) -> "ContractiveConfig":
        """The same with every size filled in."""
        return msgspec.structs.replace(
            self, latent=sizes(encoding, (), self.latent or encoding.encoded_width).latent
        )

    def build(self, encoding: Encoding) -> "Contractive":
        """The network of a resolved config."""
        return Contractive(self, encoding)


class Contractive(Member):
    def __init__(self, config: ContractiveConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        assert config.latent is not None
        self.weight = config.weight
        self.encoder = FirstLayer(encoding, config.latent)
        self.decoder = nn.Linear(config.latent, encoding.encoded_width)

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        latent_NK = torch.sigmoid(self.encoder(inputs_NI))
        return self.decoder(latent_NK), latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing random here
        outputs_NE, latent_NK = self(self.encoding.inputs(encoded))
        penalty = self.jacobian_norm(latent_NK).mean() / self.encoding.encoded_width
        return self.reconstruction_loss(outputs_NE, encoded) + self.weight * penalty

    def jacobian_norm(self, latent_NK: Tensor) -> Tensor:
        """[N] squared Frobenius norm of the code's derivative by the row's values; the mask is no
        value.
        """
        slope_NK = latent_NK * (1 - latent_NK)
        size_K = self.encoder.weight[:, : self.encoding.encoded_width].square().sum(dim=1)
        return slope_NK.square() @ size_K

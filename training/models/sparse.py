"""Sparse autoencoder: a wide code of which few units speak for any one row.

L1: minus the log of a Laplace prior on rectified activations (Ranzato et al., NIPS 2007). KL: the
mean activation of each sigmoid unit is held near rho (Ng, CS294A lecture notes, 2011, section 3;
Lee, Ekanadham and Ng, NIPS 2007). Penalties are summed over units: their mean would leave the
activations alone, whatever the weight.
"""

from typing import Literal

import msgspec
import torch
from torch import Tensor

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import encoder, mlp, sizes
from hourglass.training.models.member import FitConfig, Member


class SparseConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="sparse",
):
    """The code is twice as wide as the data when not given."""

    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    penalty: Literal["l1", "kl"] = "l1"
    weight: float = 0.01
    rho: float = 0.05  # target mean activation, for kl
    fit: FitConfig = FitConfig()

    def __post_init__(self) -> None:
        if self.weight < 0 or not 0 < self.rho < 1:
            raise ValueError("weight must not be negative, rho must lie between 0 and 1")

    def resolve(self, encoding: Encoding) -> "SparseConfig":
        """The same with every size filled in."""
        hidden, latent = sizes(encoding, self.hidden, self.latent or 2 * encoding.encoded_width)
        return msgspec.structs.replace(self, hidden=hidden, latent=latent)

    def build(self, encoding: Encoding) -> "Sparse":
        """The network of a resolved config."""
        return Sparse(self, encoding)


class Sparse(Member):
    def __init__(self, config: SparseConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        hidden, latent = sizes(encoding, config.hidden, config.latent)
        self.penalty, self.weight, self.rho = config.penalty, config.weight, config.rho
        self.encoder = encoder(encoding, (*hidden, latent))
        self.decoder = mlp((latent, *reversed(hidden), encoding.encoded_width))

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        before_NK = self.encoder(inputs_NI)
        latent_NK = torch.relu(before_NK) if self.penalty == "l1" else torch.sigmoid(before_NK)
        return self.decoder(latent_NK), latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing random here
        outputs_NE, latent_NK = self(self.encoding.inputs(encoded))
        return self.reconstruction_loss(outputs_NE, encoded) + self.weight * self.sparsity(
            latent_NK
        )

    def sparsity(self, latent_NK: Tensor) -> Tensor:
        """The penalty of a batch of codes, a scalar."""
        if self.penalty == "l1":
            return latent_NK.sum(dim=1).mean()
        mean_K = latent_NK.mean(dim=0).clamp(1e-6, 1 - 1e-6)
        on_K = self.rho * torch.log(self.rho / mean_K)
        return (on_K + (1 - self.rho) * torch.log((1 - self.rho) / (1 - mean_K))).sum()

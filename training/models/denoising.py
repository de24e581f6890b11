"""Denoising autoencoder: spoil a row with noise and masking, learn to give the clean row back.

Vincent, Larochelle, Lajoie, Bengio and Manzagol, Stacked Denoising Autoencoders, JMLR 11 (2010),
equations 4 and 5. The noises are theirs and the swap noise of tabular practice. With small Gaussian
noise the residual points along the gradient of the log-density (Alain and Bengio, JMLR 15, 2014),
so a row far from the normal ones is pulled back by a long way. Masking at a rate drawn for each row
teaches the network to work with missing cells.
"""

import msgspec
import torch
from torch import Tensor

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import encoder, mlp, sizes
from hourglass.training.models.member import FitConfig, Member


class DenoisingConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="denoising",
):
    """Noise is in standard deviations of each number; hidden and latent are chosen by the width of
    the data when absent.
    """

    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    noise: float = 0.2
    mask_rate: float = 0.5  # each row's share of masked cells is uniform between 0 and this
    swap_rate: float = 0.0  # share of cells replaced by the same feature of another row
    fit: FitConfig = FitConfig()

    def __post_init__(self) -> None:
        if self.noise < 0 or not 0 <= self.mask_rate <= 1 or not 0 <= self.swap_rate <= 1:
            raise ValueError(
                "noise must not be negative, mask_rate and swap_rate must lie between 0 and 1"
            )

    def resolve(self, encoding: Encoding) -> "DenoisingConfig":
        """The same with every size filled in."""
        hidden, latent = sizes(encoding, self.hidden, self.latent)
        return msgspec.structs.replace(self, hidden=hidden, latent=latent)

    def build(self, encoding: Encoding) -> "Denoising":
        """The network of a resolved config."""
        return Denoising(self, encoding)


class Denoising(Member):
    def __init__(self, config: DenoisingConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        assert config.hidden is not None
        assert config.latent is not None
        self.noise, self.mask_rate, self.swap_rate = (
            config.noise,
            config.mask_rate,
            config.swap_rate,
        )
        self.encoder = encoder(encoding, (*config.hidden, config.latent))
        self.decoder = mlp((config.latent, *reversed(config.hidden), encoding.encoded_width))

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        latent_NK = self.encoder(inputs_NI)
        return self.decoder(latent_NK), latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        outputs_NE, _ = self(self.encoding.inputs(self._corrupt(encoded, generator)))
        return self.reconstruction_loss(outputs_NE, encoded)

    def _corrupt(self, encoded: Encoded, generator: torch.Generator) -> Encoded:
        values_NE, observed_ND = encoded
        if self.swap_rate:
            other_N = torch.randperm(len(values_NE), generator=generator)
            # a missing cell lends nothing and takes nothing
            both_ND = observed_ND * observed_ND[other_N]
            swapped_ND = both_ND * (
                torch.rand(observed_ND.shape, generator=generator) < self.swap_rate
            )
            values_NE = torch.where(
                self.encoding.spread(swapped_ND) > 0, values_NE[other_N], values_NE
            )
        noise_NE = (
            torch.randn(values_NE.shape, generator=generator, dtype=values_NE.dtype) * self.noise
        )
        noisy = Encoded(
            values_NE + noise_NE * self.encoding.numeric_E * self.encoding.spread(observed_ND),
            observed_ND,
        )
        rate_N1 = torch.rand((len(values_NE), 1), generator=generator) * self.mask_rate
        hidden_ND = (torch.rand(observed_ND.shape, generator=generator) < rate_N1).to(
            values_NE.dtype
        )
        return self.encoding.hide(noisy, hidden_ND)

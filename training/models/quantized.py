"""Quantized autoencoder (VQ-VAE): every row is one of a book of codes.

van den Oord, Vinyals and Kavukcuoglu, NIPS 2017, equations 2 and 3 (nearest code, straight-through
gradient, commitment) and appendix A.1 (the codebook as a moving average of the rows it stands for).
A code that stands for nothing is restarted at a row, as in Dhariwal et al., Jukebox, 2020.
"""

from typing import Literal

import msgspec
import torch
from torch import Tensor

from hourglass.service.model.artifact import Sampling
from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import encoder, mlp, sizes
from hourglass.training.models.member import Assessment, FitConfig, Member

DECAY = 0.95
TINY = 1e-12
DEAD_SHARE = 0.05  # of the rows a code would stand for if all stood for as many


class QuantizedConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="quantized",
):
    """Score `distance` is that of the row's code to its codebook entry, laid on the features by
    their share of the error.
    """

    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    codes: int = 64
    commitment: float = 0.25
    score: Literal["reconstruction", "distance"] = "reconstruction"
    fit: FitConfig = FitConfig(learning_rate=2e-3)

    def __post_init__(self) -> None:
        if self.codes < 2 or self.commitment < 0:
            raise ValueError("codes must be at least 2, commitment must not be negative")

    def resolve(self, encoding: Encoding) -> "QuantizedConfig":
        """The same with every size filled in."""
        hidden, latent = sizes(encoding, self.hidden, self.latent)
        return msgspec.structs.replace(self, hidden=hidden, latent=latent)

    def build(self, encoding: Encoding) -> "Quantized":
        """The network of a resolved config."""
        return Quantized(self, encoding)


class Quantized(Member):
    def __init__(self, config: QuantizedConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        hidden, latent = sizes(encoding, config.hidden, config.latent)
        self.config = config
        self.joint_error = config.score == "distance"
        self.encoder = encoder(encoding, (*hidden, latent))
        self.decoder = mlp((latent, *reversed(hidden), encoding.encoded_width))
        self.register_buffer("codebook_CK", torch.zeros(config.codes, latent))
        self.register_buffer("count_C", torch.zeros(config.codes))
        self.register_buffer("sum_CK", torch.zeros(config.codes, latent))

    codebook_CK: Tensor
    count_C: Tensor  # moving average of the rows each code stands for
    sum_CK: Tensor  # and of the sum of their codes

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        quantized_NK = self.codebook_CK[self.nearest(self.encoder(inputs_NI))]
        return self.decoder(quantized_NK), quantized_NK

    def nearest(self, code_NK: Tensor) -> Tensor:
        """[N] the index of the codebook entry at the smallest squared distance."""
        # |c|^2 - 2 z.c: the row's own |z|^2 does not change which entry is nearest
        return torch.argmin(
            self.codebook_CK.square().sum(dim=1) - 2 * code_NK @ self.codebook_CK.T, dim=1
        )

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        code_NK: Tensor = self.encoder(self.encoding.inputs(encoded))
        if self.training:
            self._update(code_NK.detach(), generator)
        quantized_NK = self.codebook_CK[self.nearest(code_NK)]
        outputs_NE = self.decoder(straight_through(code_NK, quantized_NK))
        commitment = (code_NK - quantized_NK.detach()).square().mean()
        return self.reconstruction_loss(outputs_NE, encoded) + self.config.commitment * commitment

    def assess(self, encoded: Encoded) -> Assessment:
        plain = super().assess(encoded)
        if self.config.score == "reconstruction":
            return plain
        distance_N1 = (
            (self.encoder(self.encoding.inputs(encoded)) - plain.latent_NK)
            .square()
            .mean(dim=1, keepdim=True)
        )
        # a row without error shares its distance equally
        blame_ND = plain.errors_ND + TINY * encoded.observed_ND
        share_ND = blame_ND / blame_ND.sum(dim=1, keepdim=True).clamp_min(TINY)
        # the mean over the observed cells is taken of what is returned: times their number, it is
        # the distance again
        observed_N1 = encoded.observed_ND.sum(dim=1, keepdim=True)
        return Assessment(distance_N1 * observed_N1 * share_ND, plain.outputs_NE, plain.latent_NK)

    @torch.no_grad()
    def sampling(self, encoded: Encoded) -> Sampling:
        count_C = self.usage(encoded)
        variance_D = super().assess(encoded).errors_ND.sum(dim=0) / encoded.observed_ND.sum(
            dim=0
        ).clamp_min(1.0)
        used_C = count_C > 0
        shares = (count_C[used_C] / count_C.sum()).double()
        return Sampling(
            kind="codebook",
            codes=tuple(tuple(map(float, code)) for code in self.codebook_CK[used_C].tolist()),
            shares=tuple((shares / shares.sum()).tolist()),
            noise=tuple((variance_D.sqrt() * self.encoding.scale_D).tolist()),
        )

    @torch.no_grad()
    def usage(self, encoded: Encoded) -> Tensor:
        """[C] how many of the rows each code stands for."""
        nearest_N = self.nearest(self.encoder(self.encoding.inputs(encoded)))
        return torch.bincount(nearest_N, minlength=self.config.codes)

    @torch.no_grad()
    def _update(self, code_NK: Tensor, generator: torch.Generator) -> None:
        if not self.count_C.any():  # the first batch: codes start at rows
            self._restart(torch.ones_like(self.count_C, dtype=torch.bool), code_NK, generator)
        nearest_N = self.nearest(code_NK)
        member_NC = torch.nn.functional.one_hot(nearest_N, self.config.codes).to(code_NK.dtype)
        self.count_C.lerp_(member_NC.sum(dim=0), 1 - DECAY)
        self.sum_CK.lerp_(member_NC.T @ code_NK, 1 - DECAY)
        dead_C = self.count_C < DEAD_SHARE * len(code_NK) / self.config.codes
        self.codebook_CK.copy_(self.sum_CK / self.count_C.clamp_min(1e-6).unsqueeze(1))
        if dead_C.any():
            self._restart(dead_C, code_NK, generator)

    def _restart(self, dead_C: Tensor, code_NK: Tensor, generator: torch.Generator) -> None:
        rows_C = torch.randint(len(code_NK), (self.config.codes,), generator=generator)
        count = len(code_NK) / self.config.codes
        self.codebook_CK.copy_(torch.where(dead_C.unsqueeze(1), code_NK[rows_C], self.codebook_CK))
        self.count_C.copy_(torch.where(dead_C, count, self.count_C))
        self.sum_CK.copy_(torch.where(dead_C.unsqueeze(1), count * self.codebook_CK, self.sum_CK))


def straight_through(code_NK: Tensor, quantized_NK: Tensor) -> Tensor:
    """The quantized code, with the gradient of the code itself: equation 2's minimum has none."""
    return code_NK + (quantized_NK - code_NK).detach()

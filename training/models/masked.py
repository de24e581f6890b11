"""Masked autoencoder: large parts of a row are hidden, and what is hidden is predicted from the
rest.

He et al., CVPR 2022; for vectors, Yin et al., MCM, ICLR 2024. A value that the others do not
support is the anomaly. The score is the mean error over hidden cells under fixed masks, which are
part of the graph: every feature is hidden equally often, and the same row always has the same
score.
"""

import msgspec
import torch
from torch import Tensor

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import encoder, mlp, sizes
from hourglass.training.models.member import Assessment, FitConfig, Member

# cells in sight count a little, so that the code of a whole row decodes to that row
VISIBLE_WEIGHT = 0.1


class MaskedConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="masked",
):
    """Training hides a share drawn for each row between the bounds; scoring hides each feature once
    in every round.
    """

    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    min_rate: float = 0.1
    max_rate: float = 0.6
    score_rate: float = 0.25  # share hidden by each of the fixed masks
    score_rounds: int = 2
    fit: FitConfig = FitConfig()

    def __post_init__(self) -> None:
        if (
            not 0 < self.min_rate <= self.max_rate < 1
            or not 0 < self.score_rate <= 0.5
            or self.score_rounds < 1
        ):
            raise ValueError(
                "expected 0 < min_rate <= max_rate < 1, 0 < score_rate <= 0.5 and score_rounds of"
                " at least 1"
            )

    def resolve(self, encoding: Encoding) -> "MaskedConfig":
        """The same with every size filled in."""
        hidden, latent = sizes(
            encoding, self.hidden, self.latent or min(64, max(4, encoding.encoded_width))
        )
        return msgspec.structs.replace(self, hidden=hidden, latent=latent)

    def build(self, encoding: Encoding) -> "Masked":
        """The network of a resolved config."""
        return Masked(self, encoding)


class Masked(Member):
    def __init__(self, config: MaskedConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        hidden, latent = sizes(encoding, config.hidden, config.latent)
        self.config = config
        self.encoder = encoder(encoding, (*hidden, latent))
        self.decoder = mlp((latent, *reversed(hidden), encoding.encoded_width))
        self.register_buffer(
            "masks_MD", fixed_masks(len(encoding.features), config.score_rate, config.score_rounds)
        )

    masks_MD: Tensor

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        latent_NK = self.encoder(inputs_NI)
        return self.decoder(latent_NK), latent_NK

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        low, high = self.config.min_rate, self.config.max_rate
        rate_N1 = low + (high - low) * torch.rand((len(encoded.values_NE), 1), generator=generator)
        hidden_ND = (torch.rand(encoded.observed_ND.shape, generator=generator) < rate_N1).to(
            encoded.values_NE.dtype
        )
        outputs_NE, _ = self(self.encoding.inputs(self.encoding.hide(encoded, hidden_ND)))
        weight_ND = encoded.observed_ND * (hidden_ND + VISIBLE_WEIGHT * (1 - hidden_ND))
        return (
            self.encoding.errors(outputs_NE, encoded) * weight_ND
        ).sum() / weight_ND.sum().clamp_min(1.0)

    def assess(self, encoded: Encoded) -> Assessment:
        outputs_NE, latent_NK = self(self.encoding.inputs(encoded))
        masks, width = self.masks_MD.shape
        whole = encoded.repeat(masks)
        hidden_MND = self.masks_MD.unsqueeze(1).expand(masks, encoded.values_NE.shape[0], width)
        hidden_ND = hidden_MND.reshape(-1, width)  # N here and below: every row under every mask
        guesses_NE, _ = self(self.encoding.inputs(self.encoding.hide(whole, hidden_ND)))
        errors_MND = (self.encoding.errors(guesses_NE, whole) * hidden_ND).reshape(masks, -1, width)
        return Assessment(errors_MND.sum(dim=0) / self.config.score_rounds, outputs_NE, latent_NK)


def fixed_masks(width: int, rate: float, rounds: int) -> Tensor:
    """[M, D] masks of 0 and 1; in each round every feature is hidden by exactly one of them."""
    groups = max(1, min(width, round(1 / rate)))
    generator = torch.Generator().manual_seed(0)
    masks = []
    for _ in range(rounds):
        order_D = torch.randperm(width, generator=generator)
        masks += [
            torch.zeros(width).index_fill(0, part, 1.0) for part in order_D.tensor_split(groups)
        ]
    return torch.stack(masks)

"""Core: the exported graph as one torch module, raw rows in, score, contributions, expected values
and code out.

score = mean over the observed cells of error / residual variance; each feature's share of that mean
is its contribution, so the contributions are non-negative and sum to the score, and a normal cell
contributes one, on average, before the division by the number of cells. A member with a score of
its own has it divided by what is usual, and its contributions are shares of it. A row without any
observed cell scores NaN.

Once a conditional Gaussian is there (conditional.py), a feature's share is of both: of the member's
contributions, and of the squared standard deviations between each value and what the others let
expect. When one value is grotesquely wrong, all that a member knows of the row is drawn along by
it; the second knows which one it is.

The score of the presets is such a one: models/associative/fusion.py has its formula. A value far
beyond all fit rows raises any score to what reach.py says.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hourglass.training import reach
from hourglass.training.conditional import SHARE_WEIGHT, Conditional
from hourglass.training.features import Encoding
from hourglass.training.models.member import Member

# of a standardised feature's variance: below it, a network's own inexactness would be the unit
RESIDUAL_FLOOR = 1e-3
CHUNK = 512  # rows assessed at a time


class CoreOutput(NamedTuple):
    """What the graph answers, in the order of its outputs; reconstruction in raw units."""

    score_N: Tensor
    contributions_ND: Tensor
    reconstruction_ND: Tensor
    latent_NK: Tensor
    deviation_NK: Tensor | None = None  # of a code that is a distribution


class Core(nn.Module):
    """Weighs a member's errors by what is usual of each feature; `weigh` sets the weights."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member
        self.conditional: Conditional | None = None
        self.reach = reach.Reach(len(member.encoding.features))
        self.register_buffer("weight_D", torch.ones(len(member.encoding.features)))

    weight_D: Tensor

    def forward(self, features: Tensor) -> CoreOutput:
        encoding = self.member.encoding
        encoded = encoding.encode(features)
        assessed = self.member.assess(encoded)
        errors_ND, outputs_NE, latent_NK, own_score_N, deviation_NK = assessed
        width = encoded.observed_ND.shape[1]
        # the share of cells, so that it is exactly 1 without a gap
        observed_N = encoded.observed_ND.sum(dim=1) / width
        # the score by itself, so that whoever wants no more has no contributions computed; of no
        # cell at all it is 0 / 0
        if own_score_N is None:
            weighed_ND = errors_ND * (self.weight_D / width)
            score_N, contributions_ND = (
                weighed_ND.sum(dim=1) / observed_N,
                weighed_ND / observed_N.unsqueeze(1),
            )
        else:
            score_N = own_score_N * self.weight_D[0] * (observed_N / observed_N)
            # where nothing is wrong nothing more is to blame than the rest
            parts_ND = errors_ND + encoded.observed_ND * 1e-20
            contributions_ND = score_N.unsqueeze(1) * (parts_ND / parts_ND.sum(dim=1, keepdim=True))
        # a gross value is heard however many others there are, and adds nothing where it is heard
        far_ND = self.reach(features)
        far_N = far_ND.sum(dim=1)
        heard_N = reach.WEIGHT * torch.log1p(far_N)
        parts_ND = contributions_ND + far_ND * (heard_N / far_N.clamp_min(1e-20)).unsqueeze(1)
        total_N = score_N + heard_N
        score_N = torch.where(heard_N > score_N, heard_N, score_N)  # a NaN stays
        contributions_ND = parts_ND * (score_N / total_N.clamp_min(1e-30)).unsqueeze(1)
        if self.conditional is not None:
            parts_ND = contributions_ND + encoded.observed_ND * 1e-20
            parts_ND = blend(self.conditional, encoding, features, encoded.observed_ND, parts_ND)
            contributions_ND = score_N.unsqueeze(1) * parts_ND
        expected_ND = encoding.decode(outputs_NE)
        return CoreOutput(score_N, contributions_ND, expected_ND, latent_NK, deviation_NK)

    @property
    def stores_rows(self) -> Literal["none", "averages", "rows"]:
        """What of the training rows the file will contain."""
        return self.member.stores_rows

    @property
    def encoding(self) -> Encoding:
        """Of the rows; the features are the file's."""
        return self.member.encoding

    @torch.no_grad()
    def weigh(self, rows_ND: Tensor) -> Tensor:
        """Set the weights from held-out rows; returns the residual variances [D], the mean held-out
        error of each feature.
        """
        encoding = self.member.encoding
        encoded = encoding.encode(rows_ND)
        assessments = [self.member.assess(chunk) for chunk in encoded.chunks(CHUNK)]
        errors_ND = torch.cat([assessed.errors_ND for assessed in assessments])
        own_scores = [assessed.score_N for assessed in assessments if assessed.score_N is not None]
        if own_scores:
            errors_ND = encoding.errors(
                torch.cat([assessed.outputs_NE for assessed in assessments]), encoded
            )
        seen_D = encoded.observed_ND.sum(dim=0)
        residual_D = torch.where(seen_D > 0, errors_ND.sum(dim=0) / seen_D.clamp_min(1.0), 1.0)
        unit_D = residual_D
        if own_scores:
            unit_D = (
                torch.cat(own_scores)[encoded.observed_ND.sum(dim=1) > 0]
                .mean()
                .expand_as(residual_D)
            )
        elif self.member.joint_error:
            unit_D = (errors_ND.sum() / seen_D.sum().clamp_min(1.0)).expand_as(residual_D)
        self.weight_D.copy_(1 / unit_D.clamp_min(RESIDUAL_FLOOR))
        return residual_D


def blend(
    conditional: Conditional,
    encoding: Encoding,
    features: Tensor,
    observed_ND: Tensor,
    parts_ND: Tensor,
) -> Tensor:
    """[N, D] each feature's share of the blame: by what a member lays on it, and by how far it is
    from what the others let expect.
    """
    parts_ND = parts_ND / parts_ND.sum(dim=1, keepdim=True)
    parts_ND = parts_ND * (SHARE_WEIGHT * parts_ND.shape[1])
    parts_ND = parts_ND + conditional(encoding, features, observed_ND)
    return parts_ND / parts_ND.sum(dim=1, keepdim=True)

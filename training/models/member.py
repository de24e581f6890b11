"""What every member of the family is, and the settings of the loop that fits it.

Shapes: N rows, D features, E encoded columns, I network inputs, K latent dimensions.
"""

import math
from typing import Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from hourglass.service.model.artifact import Sampling
from hourglass.training.features import Encoded, Encoding


class FitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a member is fitted; each member gives its own defaults."""

    epochs: int | None = (
        None  # at most; None: as many as make about `steps` steps, from 20 to 1,000
    )
    steps: int = 6000
    batch_size: int = 128  # 0: all rows at once
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["constant", "one_cycle"] = (
        "constant"  # one cycle: up and down again (Smith and Topin, 2018)
    )
    clip_norm: float = 0.0  # of the gradient; 0: not clipped
    patience: int = (
        50  # epochs without a better held-out loss; 0: no early stopping, the last weights are kept
    )
    optimizer: Literal["adamw", "lbfgs"] = "adamw"
    precision: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        if (self.epochs is not None and self.epochs < 1) or self.steps < 1:
            raise ValueError("epochs and steps must be at least 1")
        if (
            self.patience < 0
            or self.batch_size < 0
            or self.learning_rate <= 0
            or self.weight_decay < 0
        ):
            raise ValueError(
                "patience, batch_size and weight_decay must not be negative, learning_rate must be"
                " above 0"
            )

    def epochs_for(self, rows: int) -> int:
        """How many passes over that many rows are made at most."""
        batches = math.ceil(rows / (self.batch_size or rows))
        return self.epochs or min(1000, max(20, math.ceil(self.steps / batches)))


class Assessment(NamedTuple):
    """One row set seen by a member."""

    errors_ND: Tensor  # non-negative, 0 where missing
    outputs_NE: Tensor  # expected values, encoded
    latent_NK: Tensor
    score_N: Tensor | None = (
        # of a member that has a score of its own: then only the proportions of the errors count
        None
    )
    # standard deviation of a code that is a distribution, whose mean the latent is
    deviation_NK: Tensor | None = None


class Member(nn.Module):
    """A network with an objective and a deterministic way to assess rows."""

    # whether the errors are one quantity of the row laid on its features, so that one weight for
    # all must keep their proportions
    joint_error: bool = False

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        """Network inputs -> outputs [N, E] and latent [N, K]."""
        raise NotImplementedError

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        """The training objective of one batch, a scalar; all randomness comes from the
        generator.
        """
        raise NotImplementedError

    def assess(self, encoded: Encoded) -> Assessment:
        """Errors, expected values and code of clean rows; no randomness.

        A member with a score of its own overrides this.
        """
        outputs_NE, latent_NK = self(self.encoding.inputs(encoded))
        return Assessment(self.encoding.errors(outputs_NE, encoded), outputs_NE, latent_NK)

    @property
    def stores_rows(self) -> Literal["none", "averages", "rows"]:
        """What of the training rows the artifact will contain, beyond what a network's weights
        hold.
        """
        return "none"

    def begin(self, fit_rows: Encoded) -> None:
        """Learn, before the loop, what has to be known of the fit rows beyond their encoding."""

    def settle(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
        """Set, after the loop, what follows from the fitted network in closed form."""

    def absorb_held_out(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
        """Learn from the held-out rows, too: the last thing before export, when they have decided
        what they had to.
        """

    def sampling(self, encoded: Encoded) -> Sampling | None:  # noqa: ARG002 - most members cannot
        """How codes of new rows are drawn, from the fit rows; None where most of the code space
        decodes to nothing real.
        """
        return None

    def reconstruction_loss(self, outputs_NE: Tensor, clean: Encoded) -> Tensor:
        """Mean error over the observed cells."""
        return self.encoding.errors(outputs_NE, clean).sum() / clean.observed_ND.sum().clamp_min(
            1.0
        )

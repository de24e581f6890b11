"""What every member of the family is, and the settings of the loop that fits it.

Shapes: N rows, D features, E encoded columns, I network inputs, K latent dimensions.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
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


class Sizes(NamedTuple):
    hidden: tuple[int, ...]
    latent: int


def sizes(encoding: Encoding, hidden: tuple[int, ...] | None, latent: int | None) -> Sizes:
    """Hidden widths and code width as given, else by the width of the data; () is no hidden
    layer.
    """
    if min(hidden or (1,)) < 1 or (latent is not None and latent < 1):
        raise ValueError(
            f"hidden and latent must be at least 1, got hidden = {hidden}, latent = {latent}"
        )
    width = encoding.encoded_width
    default = (min(256, max(64, 2 * width)),)
    return Sizes(default if hidden is None else hidden, latent or min(64, max(2, width // 2)))


class Assessment(NamedTuple):
    """One row set seen by a member."""

    errors_ND: Tensor  # non-negative, 0 where missing
    outputs_NE: Tensor  # expected values, encoded
    latent_NK: Tensor
    score_N: Tensor | None = (
        # of a member that has a score of its own: then only the proportions of the errors count
        None
    )


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
        """Before the loop: what has to be known of the fit rows beyond their encoding."""

    def settle(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
        """After the loop: what follows from the fitted network in closed form."""

    def absorb_held_out(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
        """Last, before export: the held-out rows have decided what they had to, and may be learnt
        from like the fit rows.
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


def hide(encoded: Encoded, hidden_ND: Tensor, encoding: Encoding) -> Encoded:
    """The same rows with more cells missing."""
    seen_ND = encoded.observed_ND * (1 - hidden_ND)
    return Encoded(encoded.values_NE * encoding.spread(seen_ND), seen_ND)


def repeat(encoded: Encoded, times: int) -> Encoded:
    """All rows, one after another, that many times over."""
    return Encoded(encoded.values_NE.repeat(times, 1), encoded.observed_ND.repeat(times, 1))


def concatenate(first: Encoded, second: Encoded) -> Encoded:
    """The rows of both."""
    return Encoded(*(torch.cat(pair) for pair in zip(first, second, strict=True)))


def split(encoded: Encoded, size: int) -> Iterator[Encoded]:
    """The rows in parts of that size."""
    for values_NE, observed_ND in zip(
        torch.split(encoded.values_NE, size), torch.split(encoded.observed_ND, size), strict=True
    ):
        yield Encoded(values_NE, observed_ND)


Activation = Literal["silu", "relu", "tanh", "linear"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}


def mlp(widths: tuple[int, ...], activation: Activation = "silu") -> nn.Sequential:
    """Linear layers of the given widths with the activation between them."""
    return _layers([nn.Linear(before, after) for before, after in pairwise(widths)], activation)


def encoder(
    encoding: Encoding, widths: tuple[int, ...], activation: Activation = "silu"
) -> nn.Sequential:
    """The same, from network inputs on."""
    first, *others = pairwise((encoding.input_width, *widths))
    return _layers(
        [FirstLayer(encoding, first[1]), *(nn.Linear(before, after) for before, after in others)],
        activation,
    )


def _layers(layers: list[nn.Linear], activation: Activation) -> nn.Sequential:
    return nn.Sequential(
        *[part for layer in layers for part in (layer, ACTIVATIONS[activation]())][:-1]
    )


class FirstLayer(nn.Linear):
    """A linear layer of network inputs."""

    def __init__(self, encoding: Encoding, outputs: int) -> None:
        super().__init__(encoding.input_width, outputs)
        self.columns = encoding.encoded_width

    def forward(self, inputs_NI: Tensor) -> Tensor:
        return read_inputs(inputs_NI, self.weight, self.bias, self.columns)


def read_inputs(inputs_NI: Tensor, weight_OI: Tensor, bias_O: Tensor, columns: int) -> Tensor:
    """[N, O] of a layer whose weights, after those of the columns, are of what is observed.

    Such weights are fitted faster, since most of them stand by the bias for most rows; but rows
    that lack nothing need none of them if what is missing is read instead.
    """
    values_OE, observed_OD = weight_OI.tensor_split([columns], dim=1)
    weight_OI = torch.cat([values_OE, -observed_OD], dim=1)
    return nn.functional.linear(inputs_NI, weight_OI, bias_O + observed_OD.sum(dim=1))

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hourglass.service.model.artifact import Feature
from hourglass.training.features import Encoded, Encoding
from hourglass.training.fit import fit
from hourglass.training.models.member import FitConfig, Member
from hourglass.training.progress import Epoch, Progress
from tests.training import tables

FEATURES = (Feature(name="x", kind="numeric"),)
ROWS = torch.tensor([[1.0], [-1.0]]).repeat(8, 1)


class Scripted(Member):
    """Its held-out losses are given; its one weight counts the steps."""

    def __init__(self, held_out: Iterator[float]) -> None:
        super().__init__(Encoding(FEATURES, ROWS.numpy()))
        self.weight = nn.Parameter(torch.zeros(()))
        self.held_out = held_out

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        if torch.is_grad_enabled():
            return -self.weight
        return torch.tensor(next(self.held_out))


def steps(*, epochs: int, patience: int, batch_size: int = 0) -> FitConfig:
    return FitConfig(
        epochs=epochs, patience=patience, batch_size=batch_size, learning_rate=1.0, weight_decay=0.0
    )


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    member = Scripted(iter([5.0, 3.0, 4.0, 4.0]))
    fitted = fit(member, ROWS, ROWS, steps(epochs=4, patience=10), seed=0)
    assert (fitted.epochs, fitted.best_epoch, fitted.held_out_loss) == (4, 2, 3.0)
    # AdamW at a constant gradient moves by the learning rate
    assert float(member.weight.detach()) == pytest.approx(2.0, rel=1e-3)


def test_fitting_stops_when_held_out_rows_stopped_improving_for_as_long_as_patience_lasts() -> None:
    fitted = fit(
        Scripted(iter([5.0, 3.0, *[4.0] * 50])), ROWS, ROWS, steps(epochs=50, patience=3), seed=0
    )
    assert (fitted.epochs, fitted.best_epoch) == (5, 2)


def test_without_patience_the_last_weights_are_kept() -> None:
    member = Scripted(iter([5.0, 3.0, 4.0]))
    fitted = fit(member, ROWS, ROWS, steps(epochs=3, patience=0), seed=0)
    assert (fitted.epochs, fitted.best_epoch) == (3, 3)
    assert float(member.weight.detach()) == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_fit_with_the_epoch(loss: float) -> None:
    with pytest.raises(ValueError, match="in epoch 2"):
        fit(Scripted(iter([1.0, loss])), ROWS, ROWS, steps(epochs=3, patience=5), seed=0)


def test_a_member_without_weights_is_only_settled() -> None:
    told: list[object] = []

    class Settled(Member):
        def begin(self, fit_rows: Encoded) -> None:
            told.append(("begin", len(fit_rows.values_NE)))

        def settle(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
            told.append(
                ("settle", len(fit_rows.values_NE), len(held_out.values_NE), seed, self.training)
            )

    member = Settled(Encoding(FEATURES, ROWS.numpy()))  # without a loss: the first step would fail
    fitted = fit(
        member,
        ROWS,
        ROWS[:5],
        steps(epochs=3, patience=0),
        seed=7,
        progress=Progress(epoch=told.append),
    )
    assert told == [("begin", 16), ("settle", 16, 5, 7, False)]
    assert (fitted.epochs, fitted.best_epoch, fitted.held_out_loss) == (0, 0, 0.0)


def test_every_epoch_is_told() -> None:
    told: list[Epoch] = []
    fit(
        Scripted(iter([5.0, 3.0, 4.0])),
        ROWS,
        ROWS,
        steps(epochs=3, patience=9),
        seed=0,
        progress=Progress(epoch=told.append),
    )
    assert [(epoch.number, epoch.of, epoch.held_out_loss, epoch.best) for epoch in told] == [
        (1, 3, 5.0, 5.0),
        (2, 3, 3.0, 3.0),
        (3, 3, 4.0, 3.0),
    ]


def test_every_row_is_seen_once_an_epoch() -> None:
    seen: list[float] = []

    class Watching(Scripted):
        def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
            if torch.is_grad_enabled():
                seen.extend(encoded.values_NE[:, 0].tolist())
            return super().loss(encoded, generator)

    rows = torch.from_numpy(tables.correlated(50, width=1, latent=1))
    member = Watching(iter([1.0]))
    fit(member, rows, rows, steps(epochs=1, patience=9, batch_size=16), seed=0)
    assert sorted(seen) == sorted(member.encoding.encode(rows).values_NE[:, 0].tolist())
    assert seen != sorted(seen)


def test_about_as_many_steps_are_made_as_asked_for_within_twenty_and_a_thousand_epochs() -> None:
    config = FitConfig(steps=6000, batch_size=128)
    assert config.epochs_for(12_800) == 60
    assert config.epochs_for(10) == 1000
    assert config.epochs_for(10_000_000) == 20
    assert FitConfig(epochs=7).epochs_for(12_800) == 7

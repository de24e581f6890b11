"""Layers by hand: how wide they are when nobody says, and what the first one makes of a missing cell."""

import pytest
import torch

from hourglass.service.model.artifact import Feature
from hourglass.training.features import Encoding
from hourglass.training.models.layers import FirstLayer, encoder, mlp, sizes


def encoding(width: int) -> Encoding:
    features = [Feature(name=f"x{i}", kind="numeric") for i in range(width)]
    return Encoding(features, torch.zeros(2, width).numpy())


@pytest.mark.parametrize(
    ("width", "expected"),
    [(2, ((64,), 2)), (20, ((64,), 10)), (100, ((200,), 50)), (500, ((256,), 64))],
)
def test_sizes_that_nobody_gives_follow_the_width_of_the_data(
    width: int, expected: tuple[tuple[int, ...], int]
) -> None:
    assert sizes(encoding(width), None, None) == expected


def test_sizes_that_are_given_are_kept_and_no_hidden_layer_is_a_size_too() -> None:
    assert sizes(encoding(20), (7, 5), 3) == ((7, 5), 3)
    assert sizes(encoding(20), (), None) == ((), 10)


@pytest.mark.parametrize(("hidden", "latent"), [((0,), 3), ((8, -1), 3), ((8,), 0)])
def test_a_size_below_one_is_refused(hidden: tuple[int, ...], latent: int) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1, got hidden = \(.*\), latent = \d"):
        sizes(encoding(20), hidden, latent)


def test_the_activation_stands_between_layers_and_not_after_the_last() -> None:
    assert [type(module).__name__ for module in mlp((4, 3, 2), "tanh")] == [
        "Linear",
        "Tanh",
        "Linear",
    ]
    first, _, last = encoder(encoding(4), (3, 2))
    assert (first.in_features, first.out_features, last.out_features) == (8, 3, 2)


def test_the_first_layer_adds_the_weight_of_being_observed_for_every_column_but_the_missing() -> (
    None
):
    layer = FirstLayer(encoding(2), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 3.0, 10.0, 100.0]]))
        layer.bias.zero_()
        # values of two columns, then which of them are missing
        answers = layer(torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]))
    assert answers.squeeze(1).tolist() == [2.0 + 3.0 + 10.0 + 100.0, 2.0 + 10.0]

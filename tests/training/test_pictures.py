import numpy as np
import pytest

from hourglass.training import pictures
from hourglass.training.pictures import SHAPES, SIDE, draw_shape


def test_a_bar_is_as_wide_and_long_as_it_says() -> None:
    ink = draw_shape("bar").reshape(SIDE, SIDE)
    # pixels have their centres half a pixel from the middle: half inside at the ends
    np.testing.assert_allclose(ink.sum(), 1.8 * 8.8, rtol=0.05)
    np.testing.assert_array_equal(ink, ink[::-1])
    np.testing.assert_array_equal(ink, ink[:, ::-1])
    assert ink[:, :4].max() == 0


def test_a_disc_has_the_area_of_its_radius() -> None:
    assert draw_shape("disc").sum() == pytest.approx(np.pi * 3.6**2, rel=0.02)
    assert draw_shape("disc", size=0.5).sum() == pytest.approx(np.pi * 1.8**2, rel=0.03)


def test_what_is_moved_by_a_pixel_lies_a_pixel_further() -> None:
    still, moved = draw_shape("tee"), draw_shape("tee", right=1, down=-1)
    expected = np.roll(still.reshape(SIDE, SIDE), (-1, 1), axis=(0, 1))
    np.testing.assert_allclose(moved.reshape(SIDE, SIDE), expected, atol=1e-6)


def test_a_quarter_turn_makes_a_beam_of_a_bar() -> None:
    np.testing.assert_allclose(draw_shape("bar", degrees=90), draw_shape("beam"), atol=1e-6)


def test_no_two_shapes_are_alike() -> None:
    rows_ND = np.stack([draw_shape(name) for name in SHAPES])
    apart_NN = np.square(rows_ND[:, None] - rows_ND[None]).sum(axis=2) + 99 * np.eye(len(SHAPES))
    assert len(SHAPES) == 12
    assert apart_NN.min() > 2.5  # a disc and a square are nearest


def test_shapes_repeat_with_their_seed_and_never_within() -> None:
    rows_ND = pictures.shapes(5, seed=1)
    assert rows_ND.shape == (60, 144)
    np.testing.assert_array_equal(rows_ND, pictures.shapes(5, seed=1))
    assert len(np.unique(rows_ND, axis=0)) == 60
    assert 0 <= rows_ND.min() <= rows_ND.max() <= 1


def test_the_patches_of_a_shape_put_together_are_the_shape() -> None:
    assert pictures.patches(2, seed=0).shape == (2 * 12 * 9, 16)
    assert pictures.patches(2, seed=0).sum() == pytest.approx(pictures.shapes(2, seed=0).sum())


def test_digits_are_ink_between_0_and_1() -> None:
    rows_ND = pictures.digits()
    assert rows_ND.shape == (1797, 64)
    assert (rows_ND.min(), rows_ND.max()) == (0, 1)
    assert pictures.typical_digits().shape == (10, 64)


def test_points_lie_by_their_circle_and_their_curve() -> None:
    assert abs(np.linalg.norm(pictures.ring(2000, seed=0), axis=1) - 1).max() < 5 * pictures.SPREAD
    x, y = pictures.curve(2000, seed=0).T
    along, across = (x + y) / np.sqrt(2), (y - x) / np.sqrt(2)
    bend = pictures.BEND * np.sin(np.pi * along)
    assert abs(across - bend).max() < 5 * pictures.SPREAD

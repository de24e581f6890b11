"""Made-up anomalies: what they change, and what they leave alone."""

import numpy as np

from hourglass.service.model.artifact import Feature
from hourglass.training.inject import CELL_SHARE, inject

NUMBERS = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(10))
ROWS = np.random.default_rng(0).normal(size=(400, 10)).astype(np.float32)


def halves() -> tuple[np.ndarray, np.ndarray]:
    injected = inject(ROWS, NUMBERS, seed=1, copies=1)
    return injected[:400], injected[400:]


def test_half_are_swapped_and_half_are_shifted_rows_of_the_same_width() -> None:
    assert inject(ROWS, NUMBERS, seed=1, copies=3).shape == (2400, 10)


def test_a_swapped_cell_is_a_value_of_the_same_feature() -> None:
    swapped, _ = halves()
    assert all(np.isin(swapped[:, d], ROWS[:, d]).all() for d in range(10))
    assert 0.9 * CELL_SHARE < (swapped != ROWS).mean() <= CELL_SHARE


def test_a_shifted_cell_is_two_to_five_standard_deviations_away() -> None:
    _, shifted = halves()
    distance = np.abs(shifted - ROWS) / ROWS.std(axis=0)
    assert (((distance == 0) | ((distance > 1.99) & (distance < 5.01))).all(axis=1)).all()
    assert ((distance > 0).sum(axis=1) == round(CELL_SHARE * 10)).all()


def test_missing_cells_stay_missing_and_categories_become_other_categories() -> None:
    features = (
        Feature(name="a", kind="numeric"),
        Feature(name="b", kind="categorical", categories=("x", "y", "z")),
    )
    rows = np.array([[np.nan, 0.0], [1.0, 1.0], [2.0, np.nan], [3.0, 2.0]] * 50, dtype=np.float32)
    injected = inject(rows, features, seed=0)
    assert (np.isnan(injected) == np.isnan(np.tile(rows, (4, 1)))).all()
    codes = injected[:, 1][~np.isnan(injected[:, 1])]
    assert set(codes.tolist()) == {0.0, 1.0, 2.0}


def test_the_seed_determines_the_rows() -> None:
    assert np.array_equal(inject(ROWS, NUMBERS, seed=3), inject(ROWS, NUMBERS, seed=3))
    assert not np.array_equal(inject(ROWS, NUMBERS, seed=3), inject(ROWS, NUMBERS, seed=4))

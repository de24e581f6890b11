"""Made-up anomalies: what they change, and what they leave alone."""

import numpy as np

from hourglass.service.model.artifact import Feature
from hourglass.training.inject import (
    CELL_SHARE,
    FAULTS,
    LASTING_FAULTS,
    Fault,
    inject,
    inject_fault,
    inject_fault_in_windows,
)

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


MIXED = (
    Feature(name="a", kind="numeric"),
    Feature(name="b", kind="boolean"),
    Feature(name="c", kind="categorical", categories=("x", "y", "z")),
)
CELLS = np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 1.0], [4.0, 1.0, 2.0], [np.nan] * 3] * 25, np.float32)


def faulty(kind: str, column: int, size: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    fault = Fault(kind, size)
    assert fault in FAULTS[MIXED[column].kind]
    rows_ND, changed_N = inject_fault(CELLS, column, fault, np.random.default_rng(0))
    others = [d for d in range(3) if d != column]
    np.testing.assert_array_equal(rows_ND[:, others], CELLS[:, others])
    assert not changed_N[3::4].any()  # what is missing carries no fault
    return rows_ND[changed_N, column], CELLS[changed_N, column]


def test_a_shift_is_so_many_standard_deviations_either_way() -> None:
    after, before = faulty("shift", 0, 4.0)
    sd = np.nanstd(CELLS[:, 0].astype(np.float64))
    np.testing.assert_allclose(np.abs(after - before), 4 * sd, rtol=1e-5)
    assert 0.3 < (after > before).mean() < 0.7
    assert len(after) == 75


def test_a_swapped_value_is_another_row_s_and_another_one() -> None:
    after, before = faulty("swap", 2)
    assert set(after) <= {0.0, 1.0, 2.0}
    assert (after != before).all()


def test_a_stuck_value_is_the_median_and_rows_at_it_are_none() -> None:
    after, before = faulty("stuck", 0)
    assert set(after) == {2.0}
    assert set(before) == {0.0, 4.0}


def test_flips_unseen_categories_and_missing_values_are_what_they_say() -> None:
    after, before = faulty("flip", 1)
    np.testing.assert_array_equal(after, 1 - before)
    assert set(faulty("unseen", 2)[0]) == {-1.0}
    assert np.isnan(faulty("missing", 0)[0]).all()


def test_numbers_at_the_end_of_float32_stay_numbers() -> None:
    rows_ND = np.array([[-3e38], [3e38]] * 10, dtype=np.float32)
    shifted_ND, _ = inject_fault(rows_ND, 0, Fault("shift", 8.0), np.random.default_rng(0))
    assert np.isfinite(shifted_ND).all()


def test_a_fault_of_a_window_is_in_its_last_rows_and_in_one_column() -> None:
    windows_NWD = np.random.default_rng(5).normal(size=(50, 6, 3)).astype(np.float32)
    rng = np.random.default_rng(6)
    for fault, rows in (
        *((each, 1) for each in FAULTS["numeric"]),
        *((each, 3) for each in LASTING_FAULTS["numeric"]),
    ):
        faulty_NWD, changed_N = inject_fault_in_windows(windows_NWD, 1, fault, 3, rng)
        same = np.isclose(faulty_NWD, windows_NWD, rtol=0, atol=0, equal_nan=True)
        assert same[:, :, [0, 2]].all()
        assert same[:, : 6 - rows, 1].all()
        assert changed_N.mean() > 0.9
        if fault.kind == "frozen":
            assert (np.diff(faulty_NWD[:, -3:, 1], axis=1) == 0).all()
            assert same[:, -3, 1].all()
        if fault.kind == "shift":
            # all of the rows by as much, and one way
            away_NR = (faulty_NWD - windows_NWD)[:, -rows:, 1]
            np.testing.assert_allclose(away_NR, away_NR[:, :1].repeat(rows, axis=1), atol=1e-5)
            expected = fault.size * windows_NWD[:, -1, 1].std()
            np.testing.assert_allclose(np.abs(away_NR), expected, rtol=1e-4)
            assert 0.2 < (away_NR[:, 0] > 0).mean() < 0.8


def test_what_lasts_says_for_how_long() -> None:
    assert Fault("shift", 2.0, lasts=True).say(10) == "2 sd, 10 rows"
    assert Fault("frozen", lasts=True).say(10) == "frozen, 10 rows"
    assert Fault("shift", 2.0).say(10) == "shifted by 2 sd"

import numpy as np
import pytest

from hourglass.service.model.calibration import certified_rank
from hourglass.training.config import SplitConfig
from hourglass.training.errors import RunError
from hourglass.training.split import CERTIFYING_ROWS, admissible_rows, split_rows
from tests.training import tables

ROWS = np.arange(100, dtype=np.float32).reshape(100, 1)


def split(rows_ND: tables.Float32, **shares: float) -> tuple[tables.Float32, ...]:
    return split_rows(rows_ND, SplitConfig(**shares), 0)  # type: ignore[arg-type]


def test_the_three_sets_are_disjoint_and_together_all_rows() -> None:
    parts = split(ROWS)
    # 12 % held out; a quarter calibrates, as it is less than 59
    assert [len(part) for part in parts] == [
        63,
        12,
        25,
    ]
    assert sorted(np.concatenate(parts).ravel().tolist()) == list(range(100))


def test_the_seed_determines_the_split() -> None:
    first, again, other = (split_rows(ROWS, SplitConfig(), seed) for seed in (0, 0, 1))
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first.calibration_ND, other.calibration_ND)


@pytest.mark.parametrize(
    ("rows", "validation", "calibration"),
    [
        (20, 2, 5),  # a quarter, which is less than the 59 rows that can certify 5 %
        (200, 24, 50),
        (236, 28, 59),  # the fewest of which a quarter can
        (300, 36, 59),
        (590, 71, 59),
        (600, 72, 60),  # a tenth, from where that is more
        (5000, 600, 500),
        (300_000, 10_000, 20_000),  # the caps
    ],
)
def test_a_tenth_calibrates_but_at_least_59_rows_where_a_quarter_is_that_many(
    rows: int, validation: int, calibration: int
) -> None:
    parts = split(np.arange(rows, dtype=np.float32)[:, None])
    assert [len(part) for part in parts] == [
        rows - validation - calibration,
        validation,
        calibration,
    ]


def test_a_larger_share_than_a_tenth_is_taken_as_it_is_given() -> None:
    parts = split(ROWS, calibration=0.3)
    assert [len(part) for part in parts] == [58, 12, 30]


def test_59_rows_are_the_fewest_that_certify_one_false_alarm_in_twenty() -> None:
    assert certified_rank(CERTIFYING_ROWS, 0.05, 0.05) == 1
    assert certified_rank(CERTIFYING_ROWS - 1, 0.05, 0.05) == 0


def test_large_data_is_not_wasted_on_a_threshold() -> None:
    parts = split(ROWS, validation_cap=3, calibration_cap=7)
    assert [len(part) for part in parts] == [90, 3, 7]


def test_rows_that_show_only_what_no_fit_row_shows_are_left_out() -> None:
    rows_ND = np.full((40, 2), np.nan, dtype=np.float32)
    rows_ND[:, 0] = 1.0
    calibration_ND = split(np.arange(40, dtype=np.float32)[:, None])[2]
    odd = int(calibration_ND[0, 0])
    rows_ND[odd] = [np.nan, 1.0]
    fit_ND, held_out_ND, calibration_ND = split(rows_ND)
    assert len(fit_ND) + len(held_out_ND) + len(calibration_ND) == 39
    assert not np.isnan(calibration_ND[:, 0]).any()


def test_a_split_that_leaves_a_set_empty_is_refused() -> None:
    with pytest.raises(RunError, match=r"of 20 normal rows, .* leave a set without any"):
        split(ROWS[:20], validation=0.5, calibration=0.49)


def test_rows_with_less_than_half_their_cells_are_left_out() -> None:
    rows_ND = np.ones((2000, 4), dtype=np.float32)
    rows_ND[:5, :3] = np.nan
    kept_ND, enough = admissible_rows(rows_ND)
    assert (len(kept_ND), enough) == (1995, 0.5)


def test_where_rows_are_sparse_by_nature_less_is_enough() -> None:
    rows_ND = np.ones((100, 4), dtype=np.float32)
    rows_ND[:, 1:] = np.nan
    kept_ND, enough = admissible_rows(rows_ND)
    assert (len(kept_ND), enough) == (100, 0.25)


@pytest.mark.parametrize(
    ("rows_ND", "sentence"),
    [
        (np.ones((19, 2)), "there are 19 normal rows, expected at least 20"),
        (np.ones((0, 2)), "there are 0 normal rows, expected at least 20"),
        (np.full((50, 2), np.nan), "every cell of the normal rows is missing"),
    ],
)
def test_too_little_data_is_refused(rows_ND: tables.Float32, sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        admissible_rows(rows_ND.astype(np.float32))

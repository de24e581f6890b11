import numpy as np
import pytest

from hourglass.service.model.calibration import certified_rank
from hourglass.training.config import SplitConfig
from hourglass.training.errors import RunError
from hourglass.training.split import (
    BLOCKS,
    CERTIFYING_ROWS,
    FEWEST_IN_BLOCK,
    GAP,
    Split,
    admissible_rows,
    by_group,
    by_time,
    one_by_one,
    row_hashes,
    take,
)
from tests.training import tables

ROWS = np.arange(100, dtype=np.float32).reshape(100, 1)


def split(rows_ND: tables.Float32, **shares: float) -> Split:
    config = SplitConfig(**shares)  # type: ignore[arg-type]
    return take(rows_ND, one_by_one(row_hashes(rows_ND, config.seed), config))[0]


def test_the_three_sets_are_disjoint_and_together_all_rows() -> None:
    parts = split(ROWS)
    # 12 % held out; a quarter calibrates, as it is less than 59
    assert [len(part) for part in parts] == [
        63,
        12,
        25,
    ]
    assert sorted(np.concatenate(parts).ravel().tolist()) == list(range(100))


def test_values_and_the_seed_of_the_split_determine_where_a_row_goes() -> None:
    first, again, other = split(ROWS), split(ROWS[::-1].copy()), split(ROWS, seed=1)
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first.calibration_ND, other.calibration_ND)


def test_with_more_rows_the_earlier_ones_mostly_stay_where_they_were() -> None:
    rows_ND = np.arange(2200, dtype=np.float32)[:, None]
    before, after = (split(each_ND).calibration_ND for each_ND in (rows_ND[:2000], rows_ND))
    stayed = np.isin(before, after).mean()
    assert stayed > 0.8  # drawn anew .15 would


@pytest.mark.parametrize(
    ("rows", "validation", "calibration"),
    [
        (20, 2, 5),  # a quarter, which is less than the 59 rows that can certify 5 %
        (200, 24, 50),
        (236, 28, 59),  # the fewest of which a quarter can
        (300, 36, 59),
        (390, 47, 59),
        (400, 48, 60),  # three twentieths, from where that is more
        (5000, 600, 750),
        (300_000, 10_000, 20_000),  # the caps
    ],
)
def test_three_twentieths_calibrate_but_at_least_59_rows_where_a_quarter_is_that_many(
    rows: int, validation: int, calibration: int
) -> None:
    parts = split(np.arange(rows, dtype=np.float32)[:, None])
    assert [len(part) for part in parts] == [
        rows - validation - calibration,
        validation,
        calibration,
    ]


def test_a_larger_share_is_taken_as_it_is_given() -> None:
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
    places = one_by_one(np.arange(40, dtype=np.uint64), SplitConfig())
    rows_ND[places.calibration_N[0]] = [np.nan, 1.0]
    (fit_ND, held_out_ND, calibration_ND), block_N, _ = take(rows_ND, places)
    assert len(fit_ND) + len(held_out_ND) + len(calibration_ND) == 39
    assert not np.isnan(calibration_ND[:, 0]).any()
    assert block_N is None


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


def test_copies_of_a_row_stay_on_one_side() -> None:
    twice_ND = np.repeat(ROWS, 2, axis=0)
    parts = split(twice_ND)
    assert sum(map(len, parts)) == 200
    seen = [set(part.ravel().tolist()) for part in parts]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_rows_are_copies_where_every_cell_is_equal_missing_ones_included() -> None:
    rows_ND = np.array([[0.0, np.nan], [-0.0, np.nan], [0.0, 1.0], [np.nan, 0.0]], np.float32)
    hash_N = row_hashes(rows_ND, 0)
    assert hash_N[0] == hash_N[1]
    assert len(set(hash_N.tolist())) == 3


def test_a_row_that_repeats_by_nature_is_drawn_as_often_as_it_comes() -> None:
    rows_ND = np.concatenate([np.zeros((900, 1), np.float32), ROWS])
    parts = split(rows_ND)
    assert [len(part) for part in parts] == [730, 120, 150]
    assert all((part == 0).sum() > 50 for part in parts)


def test_by_time_whole_blocks_are_held_out_with_gaps_beside_them() -> None:
    rows = 2000
    places = by_time(rows, SplitConfig())
    calibration = round(rows * 0.15) // BLOCKS
    assert np.bincount(places.block_N).tolist() == [calibration] * BLOCKS  # type: ignore[arg-type]
    assert places.calibration_N[-1] == rows - 1  # the last block is the newest
    for block in range(BLOCKS):
        inside_N = places.calibration_N[places.block_N == block]
        assert np.array_equal(inside_N, np.arange(inside_N[0], inside_N[-1] + 1))
        others_N = np.concatenate([places.fit_N, places.validation_N])
        assert np.abs(others_N[:, None] - inside_N).min() > calibration // GAP
    taken_N = np.concatenate([places.fit_N, places.validation_N, places.calibration_N])
    assert len(np.unique(taken_N)) == len(taken_N)
    assert rows - len(taken_N) == (3 * BLOCKS - 1) * (calibration // GAP)


def test_too_few_rows_for_blocks_of_time_are_refused() -> None:
    with pytest.raises(RunError, match="10 normal rows are too few to hold out 5 blocks of time"):
        by_time(10, SplitConfig(validation=0.4, calibration=0.4))


def test_by_group_no_group_is_in_two_sets_and_small_groups_share_a_block() -> None:
    random = np.random.default_rng(0)
    group_N = random.integers(0, 60, 1200)
    places = by_group(group_N, SplitConfig())
    parts = (places.fit_N, places.validation_N, places.calibration_N)
    assert sum(map(len, parts)) == 1200
    groups = [set(group_N[part].tolist()) for part in parts]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert len(places.calibration_N) >= 180
    assert places.block_N is not None
    assert np.bincount(places.block_N).min() >= FEWEST_IN_BLOCK
    for group in groups[2]:  # wholly in one block
        assert len(set(places.block_N[group_N[places.calibration_N] == group].tolist())) == 1


def test_large_groups_are_blocks_of_their_own() -> None:
    places = by_group(np.repeat(np.arange(10), 100), SplitConfig())
    assert places.block_N is not None
    assert np.bincount(places.block_N).tolist() == [100, 100, 100]
    with pytest.raises(RunError, match="of 2 groups"):
        by_group(np.repeat([0, 1], 50), SplitConfig())

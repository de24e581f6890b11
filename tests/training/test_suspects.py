from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.training.config import RunConfig
from hourglass.training.data import Data, prepare
from hourglass.training.errors import RunError
from hourglass.training.exclusions import read_row_numbers
from hourglass.training.suspects import (
    Strangeness,
    list_suspects,
    look_for_suspects,
    strangest,
    warn,
    write_suspects,
)
from tests.training import tables

CONFIG = RunConfig(data="rows.csv", name="rows")


def data_of(rows_ND: tables.Float32) -> Data:
    return prepare(pl.DataFrame(rows_ND, schema=[f"x{i}" for i in range(rows_ND.shape[1])]))


def contaminated(share: float, *, rows: int = 1000, seed: int = 0) -> tuple[Data, np.ndarray]:
    """Correlated rows, of which a share has a feature of its own mind; and which."""
    rows_ND = tables.correlated(rows, width=6, seed=seed)
    rng = np.random.default_rng(seed)
    strange = rng.permutation(rows)[: round(share * rows)]
    sign_M = rng.choice([-1, 1], len(strange))
    rows_ND[strange, 2] += sign_M * rng.uniform(10, 20, len(strange))
    return data_of(rows_ND), strange


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05])
def test_anomalies_among_the_rows_are_listed(share: float) -> None:
    data, strange = contaminated(share)
    found = look_for_suspects(data, CONFIG)
    assert found
    suspects = list_suspects(data, found)
    assert len(suspects) <= 50
    named = {it.row - 1 for it in suspects}
    assert len(named & set(strange.tolist())) >= 0.8 * len(strange)
    assert suspects[0].features[0] == "x2"
    assert [it.score for it in suspects] == sorted((it.score for it in suspects), reverse=True)
    assert suspects[0].p_value == 1 / 1000


def test_one_and_three_percent_far_out_are_always_warned_of_and_five_mostly() -> None:
    warned = []
    for share in (0.01, 0.03, 0.05):
        found = [look_for_suspects(contaminated(share, seed=seed)[0], CONFIG) for seed in range(8)]
        warned.append(sum(warn(each) is not None for each in found if each))
    assert warned[:2] == [8, 8]
    assert warned[2] >= 4


def clean(kind: str, seed: int) -> tables.Float32:
    rng = np.random.default_rng((seed, 5))
    if kind == "gaussian":
        return tables.correlated(600, width=5, seed=seed)
    if kind == "heavy":
        return rng.standard_t(5, size=(600, 5)).astype(np.float32)
    return np.exp(0.5 * rng.normal(size=(600, 5))).astype(np.float32)


@pytest.mark.parametrize("kind", ["gaussian", "heavy", "log-normal"])
def test_clean_rows_are_warned_of_in_at_most_two_of_a_hundred_tables(kind: str) -> None:
    warned = 0
    for seed in range(100):
        found = look_for_suspects(data_of(clean(kind, seed)), CONFIG)
        assert found
        warned += warn(found) is not None
    assert warned <= 2


def test_a_cluster_of_equal_anomalies_does_not_hide_itself() -> None:
    rows_ND = tables.correlated(1000, width=6)
    rows_ND[:20] = np.float32([9, -9, 9, -9, 9, -9])
    data = data_of(rows_ND)
    found = look_for_suspects(data, CONFIG)
    assert found
    suspects = list_suspects(data, found)
    assert {it.row for it in suspects[:20]} == set(range(1, 21))
    assert {it.alike for it in suspects[:20]} == {19}
    assert warn(found)


def test_rare_values_of_columns_that_are_otherwise_constant_are_listed_and_not_warned_of() -> None:
    rows_ND = np.concatenate([tables.correlated(1000, width=5), np.zeros((1000, 3))], axis=1)
    rng = np.random.default_rng(0)
    for column in (5, 6, 7):
        rows_ND[rng.permutation(1000)[:10], column] = rng.uniform(1, 9, 10)
    found = look_for_suspects(data_of(rows_ND.astype(np.float32)), CONFIG)
    assert found
    rare_N = (rows_ND[:, 5:] != 0).any(axis=1)
    assert found.score_N[rare_N].min() > np.quantile(found.score_N[~rare_N], 0.99)
    assert found.tested_N[rare_N].mean() < 2 * found.tested_N[~rare_N].mean()
    assert warn(found) is None
    assert warn(found._replace(tested_N=found.score_N))  # they would be, if they were looked at


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_column_that_has_no_part_in_the_test_stands_anywhere(place: int) -> None:
    rows_ND = tables.correlated(200)
    rows_ND[7] += 20
    mostly = np.where(np.arange(200) < 10, 1.0, 0.0).astype(np.float32)
    data = data_of(np.insert(rows_ND, place, mostly, axis=1))
    strange = look_for_suspects(data, CONFIG)
    assert strange
    assert list_suspects(data, strange)[0].row == 8


def test_of_columns_that_mostly_have_one_value_nothing_is_warned() -> None:
    rows_ND = np.zeros((200, 4), np.float32)
    rows_ND[:5] = np.float32([9, 8, 7, 6])
    rows_ND[5:, 0] = np.arange(195) % 20 == 0
    found = look_for_suspects(data_of(rows_ND), CONFIG)
    assert found
    assert (found.tested_N == -np.inf).all()
    assert warn(found) is None


def test_scores_in_two_steps_have_a_tail_beyond_every_number_and_no_row_beyond_it() -> None:
    score_N = np.repeat([1e-6, 1.0], [60, 40])
    strange = Strangeness(score_N, score_N, np.zeros((100, 1)), np.zeros((100, 1), np.int64))
    assert warn(strange) is None


def test_few_rows_have_no_suspects_and_no_contamination_to_leave_out() -> None:
    data = data_of(tables.correlated(59))
    assert look_for_suspects(data, CONFIG) is None
    with pytest.raises(RunError, match="needs at least 60 normal rows"):
        strangest(data, None, 0.05)


def test_the_share_asked_for_is_left_out_and_the_others_keep_their_numbers() -> None:
    data, _ = contaminated(0.05)
    found = look_for_suspects(data, CONFIG)
    assert found
    left_out_N = strangest(data, found, 0.05)
    assert left_out_N.sum() == 50
    assert found.score_N[left_out_N].min() >= found.score_N[~left_out_N].max()
    kept = data.without(left_out_N)
    assert len(kept.normal_ND) == len(kept.number_N) == 950
    assert (kept.normal_ND == data.normal_ND[kept.number_N - 1]).all()


def test_rows_of_every_kind_with_gaps_are_scored() -> None:
    data = prepare(tables.mixed(), label="fault")
    found = look_for_suspects(data, CONFIG)
    assert found
    assert np.isfinite(found.score_N).all()
    suspects = list_suspects(data, found)
    assert set(data.number_N.tolist()) > {it.row for it in suspects}


def test_the_list_is_what_exclude_reads(tmp_path: Path) -> None:
    data, _ = contaminated(0.03)
    found = look_for_suspects(data, CONFIG)
    assert found
    suspects = list_suspects(data, found)
    path = tmp_path / "suspects.csv"
    path.write_text(write_suspects(suspects))
    assert read_row_numbers(path, 1000) == tuple(it.row for it in suspects)

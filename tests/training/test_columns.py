"""Columns that are no features, and numbers that stand for missing values."""

import numpy as np
import polars as pl
import pytest

from hourglass.training.columns import equals_label, no_feature, suspect_order, suspect_sentinel

ROWS = 200
RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=ROWS)
SHUFFLED = RANDOM.permutation(ROWS)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("Unnamed: 0", NORMAL, "an index that pandas wrote along"),
        ("Unnamed: 32", [None] * ROWS, "an index that pandas wrote along"),
        ("Unnamed: 0.1", np.arange(ROWS), "an index that pandas wrote along"),
        ("Unnamed: 0", ["2026-01-05 10:00"] * ROWS, "pandas wrote along of dates (--time orders"),
        ("__index_level_0__", np.arange(ROWS), "an index that pandas wrote along"),
        ("place", np.arange(ROWS), "rises with the row number"),
        ("left", np.arange(ROWS)[::-1], "falls with the row number"),
        ("elapsed", (0.1 * np.arange(ROWS)).round(1), "rises with the row number"),
        ("jittery", np.arange(ROWS) + 0.4 * RANDOM.random(ROWS), "rises with the row number"),
        ("event_time", np.cumsum(RANDOM.random(ROWS)), "rises with the row number"),
        ("filtered", np.flatnonzero(RANDOM.random(2 * ROWS) < 0.5)[:ROWS], "numbers the rows"),
        ("log", 1_704_067_200 + np.cumsum(RANDOM.integers(0, 90, ROWS)), "a Unix time"),
        ("number", SHUFFLED + 1, "numbers the rows"),
        ("customer_id", RANDOM.choice(10**9, ROWS, replace=False), "an id, of each row another"),
        ("userId", RANDOM.choice(10**9, ROWS, replace=False), "an id, of each row another"),
        ("x", 1_704_067_200 + RANDOM.choice(10**7, ROWS, replace=False), "a Unix time"),
        ("x", 1e3 * (1_704_067_200 + RANDOM.choice(10**7, ROWS, replace=False)), "a Unix time"),
        ("event_time", 1_704_067_200 + 0.5 * SHUFFLED, "a Unix time"),
    ],
)
def test_an_index_a_time_and_an_id_are_no_features(name, values, why):
    found = no_feature(pl.Series(name, values))
    assert found is not None
    assert why in found


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("load", NORMAL),
        ("price", np.sort(np.exp(NORMAL))),
        ("kwh", np.cumsum(RANDOM.random(ROWS))),
        ("meter", np.cumsum(RANDOM.integers(0, 9, ROWS))),
        ("year", np.sort(RANDOM.integers(1990, 2024, ROWS))),
        ("cents", RANDOM.integers(1, 10**6, ROWS)),
        ("cents", RANDOM.choice(10**6, ROWS, replace=False)),
        ("grid", RANDOM.choice(10**6, ROWS, replace=False)),
        ("meter", 1e9 + NORMAL),
        ("constant", np.zeros(ROWS)),
        ("site_id", RANDOM.integers(0, 20, ROWS)),
        ("open", np.arange(ROWS) > 100),
        ("few", np.arange(10)),
        ("gaps", [None, *range(1, ROWS)]),
        ("text", [str(i) for i in range(ROWS)]),
    ],
)
def test_what_only_looks_a_little_like_one_stays_a_feature(name, values):
    assert no_feature(pl.Series(name, values)) is None


@pytest.mark.parametrize(
    ("values", "ways"),
    [
        (np.sort(NORMAL), "rises"),
        (np.sort(NORMAL)[::-1], "falls"),
        (np.cumsum(RANDOM.integers(0, 9, ROWS)), "rises"),
    ],
)
def test_a_column_in_order_throughout_is_said_to_be(values, ways):
    found = suspect_order(pl.Series("kwh", values))
    assert found is not None
    assert found.startswith(f"column 'kwh' {ways} with the row number throughout")


@pytest.mark.parametrize(
    "values", [NORMAL, np.zeros(ROWS), np.arange(10), ["a"] * ROWS, np.sort(NORMAL.round())]
)
def test_a_column_in_no_order_is_not(values):
    assert suspect_order(pl.Series("a", values)) is None


def test_a_column_that_tells_all_anomalies_from_all_normal_rows_equals_the_label():
    anomalous_N = np.arange(ROWS) % 10 == 0
    for values in (anomalous_N, ~anomalous_N, np.where(anomalous_N, SHUFFLED + 5, 3)):
        assert equals_label(pl.Series(values), anomalous_N)
    assert equals_label(pl.Series(np.where(anomalous_N, "bad", "ok")), anomalous_N)
    assert not equals_label(pl.Series(NORMAL + 100 * anomalous_N), anomalous_N)
    assert not equals_label(pl.Series(np.arange(ROWS) % 20 == 0), anomalous_N)
    assert not equals_label(pl.Series(np.arange(ROWS) < 2), np.arange(ROWS) < 2)
    assert not equals_label(pl.Series([[1.0]] * ROWS), anomalous_N)


@pytest.mark.parametrize("sentinel", [-999, 9999, 65535, -32768, 2**31 - 1])
def test_a_number_far_from_the_others_is_suspected_to_mean_missing(sentinel):
    values = np.where(SHUFFLED < 6, sentinel, NORMAL.round(2))
    found = suspect_sentinel(pl.Series("vib", values))
    assert found is not None
    assert f"column 'vib': 6 of {ROWS} cells are " in found
    assert f"if it stands for a missing value, --null {sentinel} reads it so" in found


@pytest.mark.parametrize(
    "values",
    [
        NORMAL,
        np.where(SHUFFLED < 1, -999, NORMAL),  # one cell may be anything
        np.where(SHUFFLED < 100, 999, NORMAL),  # half of all is a state
        np.where(SHUFFLED < 6, 999, RANDOM.integers(0, 5000, ROWS)),  # among the others
        np.where(SHUFFLED < 6, 99, RANDOM.integers(18, 90, ROWS)),  # an age
        np.where(SHUFFLED < 6, -1, RANDOM.integers(0, 2, ROWS)),
    ],
)
def test_a_number_among_the_others_is_not_suspected(values):
    assert suspect_sentinel(pl.Series("a", values)) is None


def test_text_is_not_suspected():
    assert suspect_sentinel(pl.Series("a", ["-999"] * 3)) is None

"""Series of several variables as rows of one table."""

import numpy as np
import pytest

from hourglass.service.errors import InvalidTable
from hourglass.service.rows.aligned import (
    FILL_METHODS,
    Series,
    TooMuchMissing,
    join,
    require_observed,
)

NAN = np.nan
A = Series("a", np.array([0.0, 10, 20, 40]), np.array([1.0, NAN, 3, 5]))
B = Series("b", np.array([40.0, 10, 30]), np.array([8.0, 2, 6]))  # not in order


def test_outer_has_the_times_of_any_and_inner_those_of_all():
    outer, inner = join([A, B], "Outer"), join([A, B], "Inner")
    assert outer.time_N.tolist() == [0, 10, 20, 30, 40]
    np.testing.assert_array_equal(outer.value_ND, [[1, NAN], [NAN, 2], [3, NAN], [NAN, 6], [5, 8]])
    assert inner.time_N.tolist() == [10, 40]
    np.testing.assert_array_equal(inner.value_ND, [[NAN, 2], [5, 8]])
    for mode in ("Inner", "Outer"):
        assert join([A, A._replace(variable="c")], mode).time_N.tolist() == A.time_M.tolist()
    apart = Series("z", np.array([5.0]), np.array([1.0]))
    assert join([A, apart], "Inner").value_ND.shape == (0, 2)


def test_rows_of_too_many_times_are_refused_before_they_are_made():
    apart = [
        Series(f"v{place}", np.arange(1000.0) + place / 1000, np.ones(1000)) for place in range(300)
    ]
    with pytest.raises(InvalidTable, match="at most 100 timestamps, got 300000 that a variable"):
        join(apart, "Outer", most=100)
    some = join(apart, "Outer", start=500.0, end=500.001, before=3, most=2)
    np.testing.assert_allclose(some.time_N, [499.297, 499.298, 499.299, 500, 500.001])
    assert np.nansum(some.value_ND, axis=1).tolist() == [1] * 5
    with pytest.raises(InvalidTable, match="at most 1 timestamps from startTime to endTime, got 2"):
        join(apart, "Outer", start=500.0, end=500.001, most=1)


@pytest.mark.parametrize(
    ("method", "a", "b"),
    [
        ("Previous", [1, 1, 3, 3, 5], [NAN, 2, 2, 6, 8]),
        ("Subsequent", [1, 3, 3, 5, 5], [2, 2, 6, 6, 8]),
        ("Linear", [1, 2, 3, 4, 5], [2, 2, 4, 6, 8]),
        ("Zero", [1, 0, 3, 0, 5], [0, 2, 0, 6, 8]),
        ("Fixed", [1, 7, 3, 7, 5], [7, 2, 7, 6, 8]),
    ],
)
def test_gaps_are_filled_as_is_asked(method: str, a: list[float], b: list[float]):
    filled_ND = join([A, B], "Outer").filled(method, 7.0)
    assert filled_ND.dtype == np.float32
    np.testing.assert_array_equal(filled_ND.T, [a, b])


@pytest.mark.parametrize("method", FILL_METHODS)
def test_a_variable_without_any_value_stays_missing_but_for_a_number(method: str):
    nothing = Series("a", np.array([0.0, 1]), np.array([NAN, NAN]))
    filled_ND = join([nothing], "Outer").filled(method, 7.0)
    expected = {"Zero": 0.0, "Fixed": 7.0}.get(method, NAN)
    np.testing.assert_array_equal(filled_ND, [[expected], [expected]])


def test_a_line_is_drawn_by_time_and_not_by_rows():
    series = Series("a", np.array([0.0, 1, 10]), np.array([0.0, NAN, 10]))
    assert join([series], "Outer").filled("Linear", 0).T.tolist() == [[0, 1, 10]]


def test_rows_between_two_times_come_with_some_before_them():
    rows = join([A, B], "Outer")
    assert rows.between(20, 30).time_N.tolist() == [20, 30]  # both included
    assert rows.between(20, 30, before=1).time_N.tolist() == [10, 20, 30]
    assert rows.between(20, 30, before=9).time_N.tolist() == [0, 10, 20, 30]
    assert rows.between(50, 60).time_N.tolist() == []


def test_states_tell_of_what_there_was_before_it_was_filled():
    a, b = join([A, B], "Outer").states()
    assert a == ("a", 0.4, 3, 0.0, 40.0)
    assert b == ("b", 0.4, 3, 10.0, 40.0)
    (nothing,) = join([Series("n", np.array([1.0]), np.array([NAN]))], "Outer").states()
    assert nothing == ("n", 1.0, 0, None, None)
    with pytest.raises(TooMuchMissing, match="variable 'a': expected at most 20% of the rows"):
        require_observed([a, b])
    require_observed([a._replace(filled_ratio=0.2)])


def test_a_time_that_comes_twice_is_refused():
    twice = Series("a", np.array([0.0, 5, 0]), np.array([1.0, 2, 3]))
    with pytest.raises(InvalidTable, match="variable 'a', row 3: expected a time of its own"):
        join([twice], "Outer")
    with pytest.raises(InvalidTable, match="got two of 'a'"):
        join([A, A], "Outer")

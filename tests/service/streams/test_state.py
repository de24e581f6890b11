"""What is kept of an entity: how large it is, and what it is equal to after any number of rows."""

import math

import msgspec
import numpy as np
import pytest

from hourglass.service.model.artifact import Feature
from hourglass.service.streams.state import State, advance, repeated_rows, rule_for
from tests.artifacts import NUMERIC, make_served, make_windowed_served, sample_rows


def windowed(rows: int, features=NUMERIC):
    return make_windowed_served(features, rows=rows, gap=600.0)


def take(state, served, rows, time):
    time = np.asarray(time, np.float64)
    repeated = repeated_rows(state, rows, time)
    return advance(state, served, rows, time, rule_for(served, 1.0), repeated)


def test_thirty_rows_of_52_features_take_at_most_14_kb():
    features = tuple(Feature(name=f"f{k}", kind="numeric") for k in range(52))
    served, state = windowed(30, features), State()
    rows = sample_rows(features, 300)
    take(state, served, rows, np.arange(300) * 60.0)
    assert len(state.before) == 29 * 52 * 4
    assert 8_000 < len(msgspec.msgpack.encode(state)) <= 14_000


def test_after_any_number_of_rows_the_answers_are_those_of_the_batch():
    served, state = windowed(4), State()
    rows = sample_rows(NUMERIC, 5000)
    expected = served.detector.score(rows)
    got, at = [], 0
    generator = np.random.default_rng(0)
    while at < len(rows):
        count = int(generator.integers(1, 40))
        part = rows[at : at + count]
        got.append(take(state, served, part, (at + np.arange(len(part))) * 60.0).answers)
        at += len(part)
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State)
    answers = np.concatenate(got)
    assert state.rows == 5000
    for name in ("score", "p_value", "severity"):
        np.testing.assert_allclose(answers[name][3:], getattr(expected, name), rtol=1e-5)


@pytest.mark.parametrize("rows_before", [0, 3])
def test_after_100_000_rows_with_restarts_and_swaps_the_answers_are_those_of_the_batch(rows_before):
    if rows_before:
        models = [make_windowed_served(NUMERIC, rows=4, seed=seed) for seed in (0, 3)]
    else:
        models = [make_served(NUMERIC, seed=seed) for seed in (0, 3)]
    rows = sample_rows(NUMERIC, 100_000)
    time = np.arange(100_000) * 60.0
    expected = [served.detector.score(rows).score for served in models]
    state, at, turn = State(), 0, 0
    generator = np.random.default_rng(0)
    sizes = []
    while at < len(rows):
        stop = min(at + int(generator.integers(1, 1000)), len(rows))
        served = models[turn % 2]  # a swap
        again = max(at - 2, 0)  # two rows come again
        taken = take(state, served, rows[again:stop], time[again:stop])
        assert taken.repeated == at - again
        got = taken.answers["score"][at - again :]
        if turn > 0:
            want = expected[turn % 2][at - rows_before : stop - rows_before]
            np.testing.assert_allclose(got, want, rtol=1e-5)
        body = msgspec.msgpack.encode(state)  # a restart
        state, at, turn = msgspec.msgpack.decode(body, type=State), stop, turn + 1
        sizes.append(len(body))
    assert turn > 100
    assert state.rows == 100_000
    assert max(sizes[20:]) - min(sizes[20:]) < 200  # an event, or none


def test_a_row_with_too_few_values_is_null_and_history_of_the_next_ones():
    served, state = windowed(4), State()
    rows = sample_rows(NUMERIC, 10)
    rows[5, :3] = np.nan
    answers = take(state, served, rows, np.arange(10) * 60.0).answers
    expected = served.detector.score(rows).score
    assert answers["warming"].tolist() == [True] * 3 + [False] * 7
    assert np.flatnonzero(np.isnan(answers["score"])).tolist() == [0, 1, 2, 5]
    np.testing.assert_allclose(answers["score"][6:], expected[3:], rtol=1e-5)
    assert math.isnan(answers["p_value"][5])


def test_a_row_that_cannot_be_scored_changes_nothing():
    served, state = make_served(NUMERIC), State()
    rows = sample_rows(NUMERIC, 3)
    take(state, served, rows, np.arange(3) * 60.0)
    before = msgspec.msgpack.encode(state)
    far = np.full((1, 4), 3e38, np.float32)
    with pytest.raises(Exception, match="beyond float32"):
        take(state, served, far, [180.0])
    assert msgspec.msgpack.encode(state) == before


def test_a_changed_alpha_begins_the_level_anew():
    served, state = make_served(NUMERIC), State()
    rows = sample_rows(NUMERIC, 40)
    take(state, served, rows[:20], np.arange(20) * 60.0)
    assert state.level != 0.05
    other = make_served(NUMERIC, alpha=0.2)
    answers = take(state, other, rows[20:], np.arange(20, 40) * 60.0).answers
    assert answers["level"][0] == np.float32(0.2)


def test_a_missing_value_is_the_same_row_however_it_is_written():
    served, state = make_served(NUMERIC), State()
    rows = sample_rows(NUMERIC, 1)
    rows[0, 0], rows[0, 1] = np.nan, 0.0
    take(state, served, rows, [0.0])
    again = rows.copy()
    again.view(np.uint32)[0, 0] = 0xFFC00001  # another NaN
    again[0, 1] = -0.0
    assert repeated_rows(state, again, np.array([0.0])) == 1

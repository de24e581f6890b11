"""Rows in order: stretches, and their scores, whatever way the rows came."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from hourglass.service.errors import InvalidJSON, InvalidRow, TooManyRows
from hourglass.service.model.schema import Schema
from hourglass.service.rows import decoding, ordered
from hourglass.service.rows.decoding import JSON, RAW
from hourglass.service.rows.ordered import Stretch, in_places, score_stretches, stretches
from tests.artifacts import MIXED, NUMERIC, as_json_rows, make_windowed_served, sample_rows

SERVED = make_windowed_served(rows=4, gap=10.0)
ROWS = sample_rows(NUMERIC, 24, seed=3)


def decode(body: object, *, schema: Schema = SERVED.schema, max_rows: int = 100):
    return ordered.decode_ordered(json.dumps(body).encode(), JSON, schema, max_rows=max_rows)


def plain(parts: list[Stretch]) -> list[tuple[str | None, list[int]]]:
    return [(part.entity, part.rows_T.tolist()) for part in parts]


def scores_of(rows_ND, entities=None, time_N=None):
    parts = ordered.sorted_stretches(len(rows_ND), entities, time_N, 10.0)
    runs = ordered.score_stretches(SERVED, rows_ND, parts)
    came = ordered.Ordered(rows_ND, entities, time_N, b"")
    return ordered.spread(SERVED, came, runs)


def test_rows_without_an_entity_are_one_stretch() -> None:
    assert plain(stretches(3, None, None, 1.0)) == [(None, [0, 1, 2])]
    assert plain(stretches(2, "a", None, 1.0)) == [("a", [0, 1])]


def test_entities_may_be_mixed_and_keep_their_order() -> None:
    found = stretches(5, ["b", "a", "b", "b", "a"], np.arange(5.0), None)
    assert plain(found) == [("b", [0, 2, 3]), ("a", [1, 4])]


def test_a_step_longer_than_the_gap_begins_another_stretch_and_one_as_long_does_not() -> None:
    time_N = np.array([0.0, 10.0, 20.0, 30.1, 30.1])
    assert plain(stretches(5, "a", time_N, 10.0)) == [("a", [0, 1, 2]), ("a", [3, 4])]
    assert len(stretches(5, "a", time_N, None)) == 1


def test_time_that_goes_back_within_an_entity_names_the_row_and_the_entity() -> None:
    with pytest.raises(
        InvalidRow, match='of entity "a" in order of time, got row 3 at 4 after'
    ) as e:
        stretches(4, ["a", "b", "a", "a"], np.array([1.0, 0.5, 5.0, 4.0]), None)
    assert (e.value.row, e.value.expected, e.value.got) == (3, "a time of at least 5", "4")


def test_rows_of_a_file_are_put_in_order_of_time_first() -> None:
    found = ordered.sorted_stretches(5, ["a", "b", "a", "b", "a"], np.array([5.0, 1, 3, 2, 4]), 1.5)
    assert plain(found) == [("b", [1, 3]), ("a", [2, 4, 0])]


def test_a_series_gives_the_same_bits_alone_mixed_with_others_shuffled_and_in_pieces() -> None:
    alone = [scores_of(ROWS[i::3]).scores.score for i in range(3)]
    mixed = scores_of(ROWS, list("abc") * 8, np.arange(24.0)).scores.score
    for i in range(3):
        np.testing.assert_array_equal(mixed[i::3], alone[i])
    drawn = np.random.default_rng(0).permutation(24)
    shuffled = scores_of(ROWS[drawn], [list("abc")[i % 3] for i in drawn], drawn.astype(float))
    np.testing.assert_array_equal(shuffled.scores.score, mixed[drawn])
    pieces = ordered.looks(SERVED, ROWS, stretches(24, None, None, None), cells=8)
    found = [(each.judged_M, SERVED.detector.score(each.rows_TD).score) for each in pieces]
    assert np.concatenate([rows for rows, _ in found]).tolist() == list(range(3, 24))
    whole = SERVED.detector.score(ROWS).score
    np.testing.assert_array_equal(np.concatenate([score for _, score in found]), whole)


def test_the_first_rows_and_those_after_a_gap_are_warming() -> None:
    time_N = np.concatenate([np.arange(12.0), 100 + np.arange(12.0)])
    found = scores_of(ROWS, "a", time_N)
    assert np.flatnonzero(found.warming_N).tolist() == [0, 1, 2, 12, 13, 14]
    assert np.isnan(found.scores.score).tolist() == found.warming_N.tolist()
    assert scores_of(ROWS[:3]).warming_N.all()


def test_a_row_with_too_few_values_has_no_score_and_is_looked_back_at() -> None:
    rows_ND = ROWS.copy()
    rows_ND[8, :3] = np.nan  # 1 of 4, and half are needed
    rows_ND[9] = np.nan
    found = scores_of(rows_ND)
    assert np.flatnonzero(np.isnan(found.scores.score)).tolist() == [0, 1, 2, 8, 9]
    assert np.flatnonzero(found.warming_N).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found.known_N, ~np.isnan(found.scores.score))
    window = SERVED.detector.score(rows_ND[7:11]).score
    np.testing.assert_array_equal(found.scores.score[10], window[0])


def test_windows_are_those_that_end_with_the_row() -> None:
    parts = stretches(24, list("ab") * 12, None, None)
    looked = ordered.windows_at(SERVED, ROWS, parts, np.array([9, 20]))
    found = {row: window for row, window, _ in looked}
    np.testing.assert_array_equal(found[9], ROWS[[3, 5, 7, 9]])
    np.testing.assert_array_equal(found[20], ROWS[[14, 16, 18, 20]])


def test_a_body_says_whose_rows_are_and_when_they_were() -> None:
    rows = as_json_rows(NUMERIC, ROWS[:3])
    times = [1, "1970-01-01T00:00:02Z", "1970-01-01T01:00:02.5+01:00"]
    came = decode({"rows": rows, "entity": ["a", "b", "a"], "time": times})
    np.testing.assert_array_equal(came.rows_ND, ROWS[:3])
    assert came.entities == ["a", "b", "a"]
    assert came.time_N.tolist() == [1.0, 2.0, 2.5]
    alone = decode({"rows": rows})
    assert (alone.entities, alone.time_N) == (None, None)
    assert decode({"entity": "é" * 256, "rows": rows}).entities == "é" * 256
    raw = ordered.decode_ordered(ROWS.tobytes(), RAW, SERVED.schema, max_rows=100)
    np.testing.assert_array_equal(raw.rows_ND, ROWS)


def test_a_large_body_is_read_as_a_small_one_is() -> None:
    served = make_windowed_served(MIXED)
    rows_ND = sample_rows(MIXED, 6000)
    rows_ND[7] = np.nan
    body = {
        "time": [f"2026-01-01T00:{n // 60 % 60:02}:{n % 60:02}Z" for n in range(6000)],
        "rows": as_json_rows(MIXED, rows_ND),
        "entity": [f"machine {n % 7}" for n in range(6000)],
    }
    came = decode(body, schema=served.schema, max_rows=6000)
    np.testing.assert_array_equal(came.rows_ND, rows_ND)
    assert came.entities == body["entity"]
    alone = decode({"rows": body["rows"]}, schema=served.schema, max_rows=6000)
    np.testing.assert_array_equal(alone.rows_ND, rows_ND)
    assert came.time_N[61] - came.time_N[0] == 61
    assert came.time_N[0] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    with pytest.raises(TooManyRows):
        decode(body, schema=served.schema, max_rows=5999)


@pytest.mark.parametrize("number", [b"1e400", b"1" + b"0" * 5000])
def test_a_number_beyond_any_float_is_named_with_its_row(number: bytes) -> None:
    rows = json.dumps(ROWS[:2].tolist()).encode()
    with pytest.raises(InvalidRow, match="got Infinity as the time of row 1") as error:
        decode_bytes(b'{"rows":%b,"time":[0,%b]}' % (rows, number))
    assert error.value.row == 1
    with pytest.raises(InvalidRow, match="got Infinity as the entity of row 0"):
        decode_bytes(b'{"rows":%b,"entity":[%b,"a"]}' % (rows, number))


def decode_bytes(body: bytes):
    return ordered.decode_ordered(body, JSON, SERVED.schema, max_rows=100)


def test_many_short_entities_are_scored_together_and_as_each_alone() -> None:
    """Of several lengths, some too short to be judged, in no order but that of time."""
    served = make_windowed_served(NUMERIC, rows=4, gap=600.0)
    draw = np.random.default_rng(0)
    entities = draw.permutation(np.repeat([f"pump {k}" for k in range(300)], range(1, 301)))
    entities = entities[:4000].tolist()
    rows_ND = sample_rows(NUMERIC, len(entities))
    rows_ND[7::50, :3] = np.nan  # too few values to be judged
    parts = stretches(len(rows_ND), entities, np.arange(4000) * 1.0, None)
    runs = [*score_stretches(served, rows_ND, parts)]
    together, warming_N = in_places(len(rows_ND), runs)
    alone = [run for part in parts for run in score_stretches(served, rows_ND, [part])]
    expected_scores, expected_N = in_places(len(rows_ND), alone)
    for got, expected in zip(together, expected_scores, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_array_equal(warming_N, expected_N)
    assert len(runs) == len({len(part.rows_T) for part in parts if len(part.rows_T) >= 4})
    told = [each for run in runs for each in run.apart()]
    assert len(told) == sum(len(part.rows_T) >= 4 for part in parts)
    for rows_TD, scores, _, entity in told:
        (part,) = (each for each in parts if each.entity == entity)
        np.testing.assert_array_equal(rows_TD, rows_ND[part.rows_T])
        np.testing.assert_array_equal(scores.score, together.score[part.rows_T[3:]])


@pytest.mark.parametrize(
    ("fields", "problem", "row"),
    [
        ({"entity": ["a"]}, "expected one entity for each of 3 rows, got 1", 1),
        ({"entity": list("abcd")}, "expected one entity for each of 3 rows, got 4", 3),
        ({"entity": ["a", None, "b"]}, "got null as the entity of row 1", 1),
        ({"entity": ["a", "b", 7]}, "got 7 as the entity of row 2", 2),
        ({"entity": ""}, 'got "" as the entity', None),
        ({"entity": "a" * 257}, "expected a string of 1 to 256 characters", None),
        ({"entity": 7}, "got 7 as the entity", None),
        ({"time": [1, 2]}, "expected one time for each of 3 rows, got 2", 2),
        ({"time": [1, None, 3]}, "got null as the time of row 1", 1),
        ({"time": [True, 2, 3]}, "got true as the time of row 0", 0),
        ({"time": [1, 2, "noon"]}, 'got "noon" as the time of row 2', 2),
        ({"time": [1, 2, 1e20]}, r"got 1e\+20 as the time of row 2", 2),
        ({"time": [1, 10**400, 3]}, "got 10+… as the time of row 1", 1),
        ({"entity": [10**400, "b", "c"]}, "got 10+… as the entity of row 0", 0),
        ({"time": 5}, "expected an array of times, one for each row, got 5", None),
    ],
)
def test_what_is_said_of_the_order_is_checked(
    fields: dict[str, object], problem: str, row: int | None
) -> None:
    with pytest.raises(InvalidRow, match=problem) as error:
        decode({"rows": as_json_rows(NUMERIC, ROWS[:3]), **fields})
    assert error.value.row == row


def test_another_field_is_refused_by_name() -> None:
    with pytest.raises(InvalidJSON, match=r"with rows, entity, time: .* unknown field `entities`"):
        decode({"rows": as_json_rows(NUMERIC, ROWS[:3]), "entities": "a"})


def test_bad_rows_are_told_of_as_ever() -> None:
    with pytest.raises(InvalidRow, match="expected 4 features, got 3 in row 1"):
        decode({"rows": [[1, 2, 3, 4], [1, 2, 3]], "entity": "a"})
    with pytest.raises(InvalidRow, match=r"expected a finite number .* for 'b', got NaN in row 0"):
        ordered.decode_ordered(
            b'{"entity": "a", "rows": [[1, NaN, 3, 4]]}', JSON, SERVED.schema, max_rows=9
        )
    with pytest.raises(InvalidJSON, match="not JSON"):
        ordered.decode_ordered(b'{"rows": [[1', JSON, SERVED.schema, max_rows=9)


def test_a_model_of_single_rows_says_that_its_rows_have_no_order() -> None:
    for name in decoding.OF_ORDER:
        body = json.dumps({"rows": [[1, 2, 3, 4]], name: ["a"]}).encode()
        with pytest.raises(InvalidRow, match=f"scores single rows, which have no {name}"):
            ordered.decode_single(body, JSON, SERVED.schema, max_rows=9)

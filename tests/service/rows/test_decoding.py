"""Request bytes -> rows."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.service import floats
from hourglass.service.errors import (
    HourglassError,
    InvalidBody,
    InvalidJSON,
    InvalidNumber,
    InvalidRow,
    TooManyRows,
    UnsupportedMediaType,
)
from hourglass.service.rows import decoding
from tests.artifacts import MIXED, NUMERIC, make_served

JSON, RAW = decoding.JSON, decoding.RAW


PLAIN_MODEL, MIXED_MODEL = make_served(NUMERIC), make_served(MIXED)
PLAIN, MIX = PLAIN_MODEL.schema, MIXED_MODEL.schema


def decode(body, schema=PLAIN, content_type=JSON, max_rows=10):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decoding.decode_rows(body, content_type, schema, max_rows=max_rows)


class TestRowsAsJson:
    def test_arrays_are_read_in_feature_order_with_null_as_missing(self):
        rows_ND = decode({"rows": [[1, 2.5, None, -3], [0, 0, 0, 1e-3]]})
        assert rows_ND.dtype == np.float32
        np.testing.assert_array_equal(
            rows_ND, np.array([[1, 2.5, np.nan, -3], [0, 0, 0, 1e-3]], np.float32)
        )

    def test_objects_are_read_by_feature_name_in_any_order(self):
        np.testing.assert_array_equal(
            decode({"rows": [{"d": 4, "b": 2, "a": 1, "c": None}]}), [[1, 2, np.nan, 4]]
        )

    def test_arrays_and_objects_may_be_mixed(self):
        np.testing.assert_array_equal(
            decode({"rows": [[1, 2, 3, 4], {"a": 5, "b": 6, "c": 7, "d": 8}]}),
            [[1, 2, 3, 4], [5, 6, 7, 8]],
        )

    def test_categories_are_strings_and_booleans_true_or_false_or_0_or_1(self):
        rows = [[1.5, True, "west", 0], [1, 0, "north", 0], [1, 1.0, "mars", 0], [1, None, None, 0]]
        np.testing.assert_array_equal(
            decode({"rows": rows}, MIX),
            [[1.5, 1, 2, 0], [1, 0, 0, 0], [1, 1, -1, 0], [1, np.nan, np.nan, 0]],
        )

    @pytest.mark.parametrize(
        "body",
        [
            b'{"rows":[[1,2.5,-3,4]]}', b'{"rows":[[1,2,3,4],[0,-0.0,1e-45,3.4e38]]}', b'{"ro\\u0077s":[[1,2,3,4]]}',
            b'{"rows":[[1,2,3,18446744073709551615]]}', b'{"rows":[[1,2,3,123456789012345678901234567890]]}',
            b'{"rows":[[1,2,3,null]]}', b'{"rows":[[1,2,3,4]],"rows":[[5,6,7,8]]}', b'{"rows":[{"a":1,"b":2,"c":3,"d":4}]}',
            b'{"rows":[[1,2,3,true]]}', b'{"rows":[[1,2,3,"4"]]}', b'{"rows":[[1,2,3,1e39]]}', b'{"rows":[[1,2,3,1e999]]}',
            b'{"rows":[[1,2,3,[4]]]}', b'{"rows":[[1,2,[],[3,4]]]}', b'{"rows":[[[1,2,3,4]]]}', b'{"rows":[[1,2,3],[4]]}',
            b'{"rows":[[1,2,3],[1,2,3,4,5]]}', b'{"rows":[{"a":1,"b":2,"c":3,"d":[4]}]}', b'{"rows":["[bcd"]}', b'{"rows":"[[["}',
            b'{"rows":{"a":[1,2,3,4]}}', b'{"rows":[]}', b'{"rows":[[1,2,3,4]],"[":1}', b'{"rows":[[1,2,3,4]],"x":1}', b"[[1,2,3,4]]",
            b'{}', b'3', b'"[["', b'{"rows":[[1,2,3,4]]}x', b'{"rows":[[1,2,3,4]}', b'{"rows":[[1,2,3,\xff]]}', b'{"rows":null}',
        ],
    )  # fmt: skip
    def test_a_body_is_read_alike_whatever_its_size(self, body):
        """White space before it makes it large."""
        found = []
        for size in (0, 2000, 70_000):
            try:
                found.append(decode(b" " * size + body).tolist())
            except (InvalidBody, InvalidRow) as error:
                found.append((type(error), str(error).partition(" (byte")[0]))
        assert str(found[1:]) == str([found[0]] * 2)

    def test_threads_that_read_at_the_same_time_each_read_their_own_body(self):
        def read(number):
            rows = [[number, row, 0.5, -1] for row in range(200)]
            body = json.dumps({"rows": rows}).encode()
            return all(np.array_equal(decode(body, max_rows=200), rows) for _ in range(50))

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(read, range(16)))

    def test_a_byte_order_mark_is_no_json_whatever_the_size(self):
        for size in (0, 2000, 70_000):
            with pytest.raises(InvalidJSON, match="the body is not JSON"):
                decode(b'\xef\xbb\xbf{"rows":[[1,2,3,4]]}' + b" " * size)

    def test_the_content_type_may_carry_a_charset_and_any_case(self):
        assert decode(
            {"rows": [[1, 2, 3, 4]]}, content_type="Application/JSON; charset=utf-8"
        ).shape == (1, 4)

    @pytest.mark.parametrize(
        ("cell", "column", "got"),
        [
            ("x", "b", '"x"'),
            (True, "b", "true"),
            ([1], "b", "an array of 1"),
            ({}, "b", "an object of 0"),
        ],
    )
    @pytest.mark.parametrize("as_object", [False, True])
    def test_what_is_no_number_is_refused_by_row_and_feature(self, cell, column, got, as_object):
        row = {"a": 1, "b": cell, "c": 3, "d": 4} if as_object else [1, cell, 3, 4]
        with pytest.raises(InvalidRow) as caught:
            decode({"rows": [[1, 2, 3, 4], row]})
        error = caught.value
        assert (error.row, error.feature, error.expected, error.got) == (
            1,
            column,
            "a number or null",
            got,
        )
        assert str(error) == f"expected a number or null for 'b', got {got} in row 1"
        assert error.reason == "value"

    @pytest.mark.parametrize(
        ("row", "feature", "expected", "got"),
        [
            ([1, "yes", "west", 0], "open", "true, false or null", '"yes"'),
            ([1, 2, "west", 0], "open", "true, false or null", "2"),
            ([1, True, 2, 0], "site", "a string or null", "2"),
            ([1, True, True, 0], "site", "a string or null", "true"),
            (["1", True, "west", 0], "load", "a number or null", '"1"'),
        ],
    )
    def test_each_kind_of_feature_says_what_it_expects(self, row, feature, expected, got):
        with pytest.raises(InvalidRow) as caught:
            decode({"rows": [row]}, MIX)
        assert (caught.value.feature, caught.value.expected, caught.value.got) == (
            feature,
            expected,
            got,
        )

    @pytest.mark.parametrize(
        "literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e39", "-1e39", "9" * 400]
    )
    @pytest.mark.parametrize(
        "template",
        ['{"rows":[[1,2,3,4],[1,2,%s,4]]}', '{"rows":[[1,2,3,4],{"a":1,"b":2,"c":%s,"d":4}]}'],
    )
    def test_a_number_that_is_no_float32_is_refused_by_row_and_feature(self, literal, template):
        with pytest.raises(InvalidNumber) as caught:
            decode((template % literal).encode())
        assert (caught.value.row, caught.value.feature) == (1, "c")
        assert caught.value.expected == "a finite number within float32"

    def test_the_largest_float32_is_still_a_number_and_what_rounds_beyond_is_not(self):
        largest = 3.4028234663852886e38
        assert decode({"rows": [[largest, -largest, 0, 0]]})[0, 0] == np.float32(largest)
        for row in ([3.4028236e38, 0, 0, 0], {"a": 3.4028236e38, "b": 0, "c": 0, "d": 0}):
            with pytest.raises(InvalidNumber):
                decode({"rows": [row]})

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            (b'{"rows":[' + b"[]," * 200_000 + b"[]]}", "expected at most 10 rows in one request, got 200001"),
            (b'{"rows":[' + b"{}," * 200_000 + b"{}]}", "expected at most 10 rows in one request, got 200001"),
            (b'{"rows":[[' + b"[]," * 200_000 + b"[]]]}", "expected 4 [a-z ]+, got 200001 in row 0 or one soon after"),
            (b'{"rows":[[' + b"1," * 200_000 + b"1]]}", "expected 4 [a-z ]+, got 200001 in row 0 or one soon after"),
            (b'{"rows":[[' + b'1,",[",' * 200_000 + b"1]]}", "expected 4 [a-z ]+, got 400001 in row 0 or one soon after"),
            (b'{"rows":[{' + b'"a":1,' * 200_000 + b'"a":1}]}', "expected 4 [a-z ]+, got 200001 in row 0 or one soon after"),
            (b'{"rows":[["' + b"x" * 2_000_000 + b'",1,2,3]]}', "expected at most 1048576 bytes of JSON for one of the .*, got 20000"),
            (b'{' + b'"a":1,' * 200_000 + b'"rows":[[1,2,3,4]]}', "expected one array with all but 65536 of the body's 120002\\d bytes"),
            (b'{"rows":{' + b'"a":1,' * 200_000 + b'"a":1}}', "expected one array with all but 65536 of the body's 12000\\d\\d bytes"),
            (b'{"' + b"\\\\" * 99 + b'":[' + b"[]," * 200_000 + b"[]]}", "expected a JSON object"),
            (b"[" * 200_000, "expected one array with all but 65536 of the body's 200000 bytes, got 0 bytes"),
        ],
    )  # fmt: skip
    def test_millions_of_cells_keys_and_arrays_are_refused_before_they_are_parsed(
        self, body, error, monkeypatch
    ):
        parsed = []
        parse = msgspec.json.decode
        monkeypatch.setattr(
            msgspec.json, "decode", lambda text: (parsed.append(len(text)), parse(text))[1]
        )
        for field, refuse in (
            (b'"rows"', decoding.decode_rows),
            (b'"codes"', lambda *arguments, max_rows: decoding.decode_codes(*arguments[:2], 4, max_rows=max_rows)),
        ):  # fmt: skip
            with pytest.raises(HourglassError, match=error):
                refuse(body.replace(b'"rows"', field), "application/json", PLAIN, max_rows=10)
        assert max(parsed, default=0) < 100_000

    def test_a_category_means_what_the_cell_of_a_file_means(self):
        rows = [[1, True, text, 2] for text in ("south", " south", "south \t", "South", "", " ")]
        np.testing.assert_array_equal(
            decode({"rows": rows}, MIX)[:, 2], [1, 1, 1, -1, np.nan, np.nan]
        )

    @pytest.mark.parametrize("objects", [False, True])
    @pytest.mark.parametrize("count", [50, 20_000])
    def test_many_rows_are_read_as_each_alone_is(self, objects, count):
        """At once, by column or by cell, whole or slice after slice."""
        draw, names = random.Random(count), [feature.name for feature in MIX.features]
        values = [1, 2.5, 7, -3e38, 2**40], [True, False, None], ["south", "mars", None, " west"]
        arrays = [[*map(draw.choice, values), draw.random()] for _ in range(count)]
        arrays[count // 2][1] = 0.0  # which has to be looked at by itself
        sent = [dict(zip(names, row, strict=True)) if objects else row for row in arrays]
        found_ND = decode({"rows": sent}, MIX, max_rows=count)
        each_ND = np.concatenate([decode({"rows": [row]}, MIX) for row in sent[:: count // 50]])
        np.testing.assert_array_equal(found_ND[:: count // 50], each_ND)
        for n, cell, error in ((count - 1, "x", InvalidRow), (count // 3, 1e39, InvalidNumber)):
            spoilt = {**sent[n], "heat": cell} if objects else [*sent[n][:3], cell]
            rows = [*sent[:n], spoilt, *sent[n + 1 :]]
            with pytest.raises(error, match=f"in row {n}$") as caught:
                decode({"rows": rows}, MIX, max_rows=count)
            assert (caught.value.row, caught.value.feature) == (n, "heat")
        text = json.dumps({"rows": sent}).encode()
        for wrong in (b"NaN", b"1e999"):
            place = text.rindex(b"0.")
            broken = text[:place] + wrong + text[place:].lstrip(b"0123456789.e-")
            named = f"for 'heat', got {wrong.decode()} in row {count - 1}"
            with pytest.raises(InvalidNumber, match=named):
                decode(broken, MIX, max_rows=count)
        with pytest.raises(InvalidJSON, match="the body is not JSON"):
            decode(text[:-2] + b",]}", MIX, max_rows=count + 1)
        with pytest.raises(TooManyRows, match=f"got {count}$"):
            decode(text, MIX, max_rows=count - 1)

    def test_brackets_in_strings_are_no_arrays(self):
        for text in ("[" * 200_000, '\\"[{' * 100_000, "\\" + '"[' * 100_000):
            np.testing.assert_array_equal(
                decode({"rows": [[1, True, text, 2]]}, MIX), [[1, 1, -1, 2]]
            )

    @pytest.mark.parametrize("width", [0, 1, 3, 5])
    def test_a_wrong_width_names_the_row(self, width):
        with pytest.raises(InvalidRow) as caught:
            decode({"rows": [[1, 2, 3, 4], [0] * width]})
        assert str(caught.value) == f"expected 4 features, got {width} in row 1"
        assert (caught.value.row, caught.value.reason) == (1, "width")

    @pytest.mark.parametrize("row", [1, "x", None, True])
    def test_a_row_that_is_neither_array_nor_object_is_refused(self, row):
        with pytest.raises(
            InvalidRow, match=r"^expected an array of 4 features or an object, got .* in row 0$"
        ):
            decode({"rows": [row]})

    def test_an_absent_feature_is_named(self):
        with pytest.raises(InvalidRow) as caught:
            decode({"rows": [{"a": 1, "b": 2, "d": 4}]})
        assert (caught.value.row, caught.value.feature, caught.value.reason) == (0, "c", "feature")
        assert str(caught.value) == "row 0 lacks the feature 'c'; null stands for a missing value"

    def test_an_unknown_feature_is_named(self):
        with pytest.raises(InvalidRow) as caught:
            decode({"rows": [{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}]})
        assert (caught.value.row, caught.value.feature, caught.value.reason) == (0, "e", "feature")

    def test_a_row_with_too_few_values_is_refused_by_row_and_share(self):
        with pytest.raises(InvalidRow) as caught:
            decode({"rows": [[1, 2, None, None], [1, None, None, None]]})
        assert (caught.value.row, caught.value.got, caught.value.reason) == (
            1,
            "1 (25%)",
            "missing",
        )
        assert caught.value.expected == "at least 2 of 4 values"

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            (b"", InvalidBody),
            (b"{", InvalidJSON),
            (b"[]", InvalidJSON),
            (b"null", InvalidJSON),
            (b"{}", InvalidJSON),
            (b'{"rows": 1}', InvalidJSON),
            (b'{"rows": {}}', InvalidJSON),
            (b'{"rows": []}', InvalidBody),
            (b'{"rows": [[1,2,3,4]], "more": 1}', InvalidJSON),
            (b'{"rows": [[1,2,3,4]]} x', InvalidJSON),
            (b"\xff\xfe", InvalidJSON),
            (b'\xef\xbb\xbf{"rows": [[1,2,3,4]]}', InvalidJSON),
            (b'{"rows": NaN}', InvalidJSON),
            (b'{"rows": [NaN]}', InvalidJSON),
            (b"[" * 100_000, InvalidJSON),
            (b'{"rows": [[' * 40_000, InvalidJSON),
            (b'{"rows": [[{"a": ["\\ud800"]}]]}', InvalidJSON),
        ],
    )
    def test_what_is_not_the_body_expected_is_refused(self, body, error):
        for schema in (PLAIN, MIX):
            with pytest.raises(error):
                decode(body, schema)

    def test_too_many_rows_are_refused(self):
        assert len(decode({"rows": [[1, 2, 3, 4]] * 10})) == 10
        for row in ([1, 2, 3, 4], {"a": 1}):
            with pytest.raises(
                TooManyRows, match="expected at most 10 rows in one request, got 11"
            ):
                decode({"rows": [row] * 11})


class TestRowsAsBytes:
    def test_little_endian_float32_is_taken_as_it_is(self):
        rows_ND = np.array([[1, 2, 3, 4], [5, np.nan, 7, 8]], "<f4")
        np.testing.assert_array_equal(decode(rows_ND.tobytes(), content_type=RAW), rows_ND)

    @pytest.mark.parametrize("size", [1, 15, 17, 24])
    def test_a_length_that_is_no_number_of_rows_is_refused(self, size):
        with pytest.raises(
            InvalidRow, match=rf"^expected a multiple of 16 bytes, 4 features .*, got {size} bytes$"
        ) as caught:
            decode(bytes(size), content_type=RAW)
        assert caught.value.reason == "width"

    def test_an_empty_body_is_refused(self):
        with pytest.raises(InvalidBody, match="the body is empty"):
            decode(b"", content_type=RAW)

    def test_infinity_is_refused_by_row_and_feature(self):
        rows_ND = np.zeros((3, 4), "<f4")
        rows_ND[2, 1] = -np.inf
        with pytest.raises(InvalidRow) as caught:
            decode(rows_ND.tobytes(), content_type=RAW)
        assert (caught.value.row, caught.value.feature, caught.value.got) == (2, "b", "-inf")

    @pytest.mark.parametrize(
        ("column", "value", "expected"),
        [
            (1, 2, "a whole number from 0 to 1"),
            (1, 0.5, "a whole number from 0 to 1"),
            (1, -1, "a whole number from 0 to 1"),
            (2, 3, "a whole number from -1 to 2"),
            (2, -2, "a whole number from -1 to 2"),
            (2, 0.5, "a whole number from -1 to 2"),
        ],
    )
    def test_a_code_that_stands_for_nothing_is_refused(self, column, value, expected):
        rows_ND = np.zeros((2, 4), "<f4")
        rows_ND[1, column] = value
        with pytest.raises(InvalidRow) as caught:
            decode(rows_ND.tobytes(), MIX, RAW)
        assert (caught.value.row, caught.value.feature) == (1, MIXED[column].name)
        assert caught.value.expected == expected

    def test_an_unseen_category_is_minus_one_and_a_missing_one_nan(self):
        rows_ND = np.array([[0, 1, -1, 0], [0, np.nan, np.nan, 0]], "<f4")
        np.testing.assert_array_equal(decode(rows_ND.tobytes(), MIX, RAW), rows_ND)

    def test_too_many_rows_are_refused(self):
        with pytest.raises(TooManyRows):
            decode(bytes(16 * 11), content_type=RAW)


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
def test_another_content_type_is_refused_by_name(content_type):
    with pytest.raises(UnsupportedMediaType, match=content_type or "none"):
        decode({"rows": [[1, 2, 3, 4]]}, content_type=content_type)
    with pytest.raises(UnsupportedMediaType, match=content_type or "none"):
        decoding.decode_codes(b'{"codes": [[1, 2]]}', content_type, 2, max_rows=1)


class TestCodes:
    def test_codes_are_rows_of_numbers(self):
        np.testing.assert_array_equal(
            decoding.decode_codes(b'{"codes": [[1, 2.5]]}', JSON, 2, max_rows=1), [[1, 2.5]]
        )

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"codes": [[1]]}', "expected 2 latent numbers, got 1 in row 0"),
            (
                b'{"codes": [[1, null]]}',
                r"expected a number or null for 'code\[1\]', got null in row 0",
            ),
            (b'{"codes": [[1, 1e39]]}', r"expected a finite number within float32 for 'code\[1\]'"),
            (
                b'{"codes": [[NaN, 1]]}',
                r"expected a finite number within float32 for 'code\[0\]', got NaN in row 0",
            ),
            (b'{"rows": [[1, 2]]}', "expected a JSON object"),
        ],
    )
    def test_what_is_no_code_is_refused(self, body, message):
        with pytest.raises(HourglassError, match=message):
            decoding.decode_codes(body, JSON, 2, max_rows=1)


CELLS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["north", "west", "mars"])
    | st.text(max_size=3)
)
ROWS = st.lists(CELLS, max_size=5) | st.dictionaries(
    st.sampled_from("abcde") | st.sampled_from([feature.name for feature in MIXED]),
    CELLS,
    max_size=5,
)
ANYTHING = st.recursive(
    CELLS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5)
    ),
)
BODIES = (
    st.binary(max_size=64)
    | ANYTHING.map(lambda sent: json.dumps(sent).encode())
    | st.lists(ROWS, max_size=4).map(lambda rows: json.dumps({"rows": rows}).encode())
    | st.binary(max_size=64).map(lambda noise: b'{"rows": [[1, 2, 3, 4], ' + noise + b"]}")
)


@settings(max_examples=600, deadline=None)
@given(BODIES, st.sampled_from([JSON, RAW]), st.sampled_from([PLAIN, MIX]))
def test_any_bytes_become_finite_rows_or_an_error_for_a_person(body, content_type, schema):
    rows_ND, message = None, None
    try:
        rows_ND = decode(body, schema, content_type)
    except HourglassError as error:
        message = str(error)
    if rows_ND is None:
        assert message
        assert message.isprintable()
    else:
        assert rows_ND.dtype == np.float32
        assert rows_ND.shape == (len(rows_ND), 4)
        assert not np.isinf(rows_ND).any()
        assert ((~np.isnan(rows_ND)).sum(axis=1) >= 2).all()


@settings(max_examples=300, deadline=None)
@given(st.lists(CELLS, min_size=4, max_size=4))
def test_an_array_and_an_object_of_the_same_cells_mean_the_same(cells):
    outcomes = []
    for row in (cells, dict(zip("abcd", cells, strict=True))):
        try:
            outcomes.append(decode({"rows": [row]}).tobytes())
        except HourglassError as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]


SPACE = st.sampled_from(["", " ", "\n\t ", " " * 20_000])
NUMBER = st.floats(-1e40, 1e40).map(repr) | st.integers(-(2**70), 2**70).map(str) | st.sampled_from(
    ["1e400", "-0", "-0.0", "1e-400", "null", "true", "[1]", "[]", "{}", '"]"', "01", "NaN", "1.5E+3",
     "nul", "-", "1.", ".5", "1e", "+1"]
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(
    st.data(),
    st.lists(st.lists(NUMBER, min_size=4, max_size=4) | st.lists(NUMBER, max_size=6), max_size=12),
    SPACE,
)
def test_what_is_read_fast_is_what_is_read_exactly(data, sent, space):
    """The fast way either agrees with the exact one, or leaves the body to it."""
    text = f"{space},".join(f"[{space}{','.join(row)}]" for row in sent)
    body = f'{space}{{{space}"rows"{space}:{space}[{space}{text}{space}]{space}}}{space}'
    place = data.draw(st.integers(0, len(body)))
    for each in (
        body,
        body[:place]
        + data.draw(st.sampled_from(["", ",", "]", "[", "x", "}"]))
        + body[place + 1 :],
    ):
        fast = floats.read_rows(each.encode(), 4, 10)
        try:
            exact = decoding._decode_objects(each.encode(), PLAIN, 10)
        except HourglassError:
            assert fast is None
            continue
        if fast is not None:
            np.testing.assert_array_equal(decoding.as_rows(fast[0], 4), exact)
            assert fast[1] == np.isnan(exact).any()


def test_rows_of_numbers_are_read_fast_with_and_without_gaps_and_white_space():
    for indent in (None, 1):
        for gap in ([], [None]):
            rows = [[1.5, 2, -3e5, 4]] * 50 + [[*gap, 2, 3, 4]] * len(gap)
            cells, has_gap = floats.read_rows(
                json.dumps({"rows": rows}, indent=indent).encode(), 4, 100
            )
            np.testing.assert_array_equal(decoding.as_rows(cells, 4), np.array(rows, np.float32))
            assert has_gap == bool(gap)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.none()


@settings(deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS, st.just(1.0), st.just(2.0)), min_size=1, max_size=5))
def test_rows_survive_the_way_through_json_and_bytes_bit_by_bit(rows):
    rows_ND = np.array(rows, np.float32)
    for body, content_type in (
        (json.dumps({"rows": rows}).encode(), JSON),
        (rows_ND.tobytes(), RAW),
    ):
        np.testing.assert_array_equal(decode(body, content_type=content_type), rows_ND)

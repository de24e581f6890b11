"""JSON text <-> float32, and a step function: the same of C and of Python."""

import json
import math
import re
import threading
import tracemalloc
from decimal import Decimal
from time import perf_counter

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.service.floats import plain
from hourglass.service.model.calibration import Threshold

LARGE = 70_000  # characters: others run while so many are read
HEAD = b'{"model":"m"'
FLOAT32 = st.floats(width=32)
BODIES = [
    b'{"rows":[[1.5,-2.25e1],[null,12345678.87654321],[-0,1e-0]]}',
    b' { "rows" : [ [ 0.1234567890123456789 , 1E-5,-0.0]\n,[18446744073709551616,-9223372036854775809,3] ] }\t',
    b'{"rows":[[1,2,3]],"rows":[[4,5,6]]}',
    b'{"rows":[[3.4028235677973362e38,1e-46,0e5],[1,2,3],[4,5,6]]}',
]
PIECES = [
    b"", b"0", b"-0", b"9" * 25, b".", b"e", b"E-", b"e-0", b"-", b"+", b"null", b"nul", b"true", b"NaN", b"[", b"]", b"[]", b"{}",
    b"]]}", b"[1,2]", b"[1,2],", b",", b":", b" ", b"\n", b"\x0b", b"\x00", b"\xff", b"\\", b'"', b'"-0"', b'"rows"', b'"\\u0072ows":',
    b'"x":', b',"rows":[[1,2]]',
]  # fmt: skip


def read(floats, texts, *, after=""):
    """One row of these numbers, as it is read."""
    body = f'{{"rows":[[{",".join(texts)}]]}}{after}'.encode()
    answer = floats.read_rows(body, len(texts), 1)
    return None if answer is None else np.frombuffer(answer[0], np.float32)


def is_read_as_python_does(floats, texts):
    with np.errstate(over="ignore", under="ignore"):
        expected = np.array([float(text) for text in texts]).astype(np.float32)
    beyond = [text for text, value in zip(texts, expected, strict=True) if np.isinf(value)]
    within = [text for text, value in zip(texts, expected, strict=True) if not np.isinf(value)] or [
        "0"
    ]
    for after in ("", " " * LARGE):
        assert read(floats, within, after=after).tobytes() == (
            expected[np.isfinite(expected)].tobytes() or bytes(4)
        )
        assert all(read(floats, [text], after=after) is None for text in beyond)


def write(floats, values):
    """The numbers of an answer, each as its text."""
    score_N = np.array(values, np.float32)
    (answer,) = floats.write_scores(HEAD, 1.0, 1.0, score_N, score_N, score_N, [(0, len(score_N))])
    return re.fullmatch(rb'.*"score":\[(.*)\],"ratio".*', answer)[1].split(b",")


def write_one(floats, threshold, score, *, head=HEAD):
    """The answer to a request of one row."""
    score_1 = np.array([score], np.float32)
    (answer,) = floats.write_scores(head, threshold, 1.0, score_1, score_1, score_1, [(0, 1)])
    return answer


def as_orjson_does(values):
    return orjson.dumps(np.array(values, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)[
        1:-1
    ].split(b",")


class TestReading:
    @settings(deadline=None, max_examples=500)
    @given(
        st.lists(
            st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e9, 1e9),
            min_size=1,
            max_size=5,
        ),
        st.integers(0, 25),
    )
    def test_a_number_is_the_double_nearest_to_its_text_rounded_to_float32(
        self, floats, values, digits
    ):
        is_read_as_python_does(floats, [repr(value) for value in values])
        is_read_as_python_does(floats, [f"{value:.{digits}e}" for value in values])
        is_read_as_python_does(
            floats, [f"{value:.{digits}f}" for value in values if abs(value) < 1e60] or ["0"]
        )

    @settings(deadline=None, max_examples=500)
    @given(
        st.integers(0, 10**22),
        st.integers(-75, 45),
        st.sampled_from(["", "-"]),
        st.sampled_from(["e", "E"]),
    )
    def test_every_size_of_mantissa_and_exponent_is_read(self, floats, mantissa, exponent, sign, e):
        is_read_as_python_does(
            floats,
            [
                f"{sign}{mantissa}{e}{exponent}",
                f"{sign}{mantissa}",
                f"{sign}{mantissa}{e}+{abs(exponent)}"[:30],
            ],
        )

    def test_more_digits_than_any_double_has(self, floats):
        values = np.random.default_rng(2).lognormal(0, 10, 2000)
        is_read_as_python_does(floats, [f"{value:.40f}" for value in values.tolist()])
        is_read_as_python_does(floats, [f"{Decimal(value):.50e}" for value in values.tolist()])
        is_read_as_python_does(
            floats,
            [
                "0." + "0" * 30 + "1" * 30,
                "1" + "0" * 38,
                "9" * 38,
                "9" * 39,
                "0." + "9" * 60,
                "16777217." + "0" * 30 + "1",
            ],
        )

    def test_exponents_beyond_any_integer(self, floats):
        is_read_as_python_does(
            floats,
            [
                "1e-9223372036854775808",
                "1.55e-9223372036854775807",
                "-1e-99999",
                "0e99999999999999999999",
                "0e-1",
            ],
        )
        is_read_as_python_does(floats, ["0.5e9223372036854775808"])
        is_read_as_python_does(
            floats, ["1.5" + "0" * 200 + "1e-99999", "-" + "7" * 400 + "e-000420"]
        )

    def test_halfway_between_two_float32_numbers_and_beside_it(self, floats):
        lower = np.random.default_rng(0).lognormal(0, 20, 2000).astype(np.float32)
        lower = lower[(lower > 1e-30) & (lower < 1e30)]
        upper = np.nextafter(lower, np.float32(np.inf))
        assert len(lower) > 1000
        texts = []
        for low, high in zip(lower.tolist(), upper.tolist(), strict=True):
            half = (Decimal(low) + Decimal(high)) / 2
            for moved in (
                half,
                half * (1 + Decimal(10) ** -17),
                half * (1 - Decimal(10) ** -17),
                half * (1 + Decimal(10) ** -13),
            ):
                texts += [f"{moved:.17e}", f"{moved:.18e}", f"{moved:.30e}"]
        is_read_as_python_does(floats, texts)

    def test_many_numbers_as_python_and_c_write_them(self, floats):
        rng = np.random.default_rng(1)
        values = np.concatenate(
            [
                rng.normal(size=20_000),
                rng.lognormal(0, 8, 20_000),
                rng.integers(-(10**9), 10**9, 20_000),
            ]
        )
        is_read_as_python_does(floats, [repr(value) for value in values.tolist()])
        is_read_as_python_does(floats, [f"{value:.6f}" for value in values.tolist()])
        is_read_as_python_does(
            floats,
            [
                f"{value:.{digits}g}"
                for value, digits in zip(values, rng.integers(1, 20, len(values)), strict=True)
            ],
        )

    @pytest.mark.parametrize(
        "text",
        [
            "", "-", "+1", "01", "-01", "00", ".5", "1.", "-.5", "1e", "1e+", "1.e5", "1.5.5", "--1", "1-", "0x1", "1_0", "Infinity",
            "NaN", "nul", "nullnull", "-null", "true", '"1"', "[1]", "{}", "1 2", "1e39", "-1e39", "3.4028235677973366e38", "1e400",
            "1e99999999",
        ],
    )  # fmt: skip
    def test_what_is_no_float32_number_is_left_alone(self, floats, text):
        for before in ([], ["1"]):
            assert read(floats, [*before, text]) is None
            assert read(floats, [*before, text], after=" " * LARGE) is None

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"{", b"[[1,2]]", b'{"rows"', b'{"rows":', b'{"rows":[', b'{"rows":[]}', b'{"rows":[[]]}', b'{"rows":[[1,2]',
            b'{"rows":[[1,2]]', b'{"rows":[[1,2],]}', b'{"rows":[[1,2,]]}', b'{"rows":[[1]]}', b'{"rows":[[1,2,3]]}', b'{"rows":[1,2]}',
            b'{"rows":[[1,2],[3]]}', b'{"rows":[[1,2]]}x', b'{"rows":[[1,2]]]}', b'{"rows":[[1,2]],"x":1}', b'{"x":1,"rows":[[1,2]]}',
            b'{"ROWS":[[1,2]]}', b'{"rows":[[1,2]],"rows":[[1,2]]}', b'\xef\xbb\xbf{"rows":[[1,2]]}', b'{"rows":[[1,2]]}\x00',
            b'{"rows":[[1,\xff]]}', b'{"rows":[[1,2] [3,4]]}',
        ],
    )  # fmt: skip
    def test_what_is_not_rows_of_numbers_is_left_alone(self, floats, body):
        assert floats.read_rows(body, 2, 10) is None
        assert floats.read_rows(b" " * LARGE + body, 2, 10) is None

    def test_a_body_that_was_cut_off_is_left_alone(self, floats):
        body = b'{"rows":[[1.5,-2.25e1,null,12345678.87654321],[0,0,1e-5,20000000]]}'
        assert floats.read_rows(body, 4, 10) is not None
        for end in range(len(body)):
            for kind in (bytes, bytearray):
                assert floats.read_rows(kind(body[:end]), 4, 10) is None
                assert floats.read_rows(kind(b" " * LARGE + body[:end]), 4, 10) is None

    def test_no_more_rows_than_allowed_are_read(self, floats):
        body = json.dumps({"rows": [[1, 2]] * 5}).encode()
        assert floats.read_rows(body, 2, 4) is None
        cells, has_gap = floats.read_rows(bytearray(body), 2, 5)
        assert (len(cells), has_gap) == (40, False)

    def test_a_body_gets_no_more_memory_than_it_has_bytes_to_fill(self, floats):
        body = b'{"rows":[' + b"[" * 1_000_000
        tracemalloc.start()
        try:
            assert floats.read_rows(body, 1000, 2_000_000) is None
            assert floats.read_rows(body, 2**62, 2_000_000) is None
            assert floats.read_rows(body, 0, 2_000_000) is None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 100_000

    def test_others_run_while_c_reads_a_large_body(self, compiled):
        body = json.dumps({"rows": [[0.123456789] * 100] * 20_000}).encode()
        spans, seen = [], []

        def work():
            started = perf_counter()
            compiled.read_rows(body, 100, 20_000)
            spans.append((started, perf_counter()))

        thread = threading.Thread(target=work)
        thread.start()
        while not spans:
            seen.append(perf_counter())
        thread.join()
        ((start, end),) = spans
        assert any(
            start + 0.1 * (end - start) < moment < start + 0.9 * (end - start) for moment in seen
        )

    def test_arguments_of_another_kind_are_refused(self, floats):
        for arguments in (
            (),
            (b"{}",),
            ("{}", 1, 1),
            (memoryview(b"{}"), 1, 1),
            (b"{}", "1", 1),
            (b"{}", 1, None),
        ):
            with pytest.raises(TypeError):
                floats.read_rows(*arguments)


class TestLookingUp:
    @given(
        st.sets(st.floats(width=32, allow_nan=False), min_size=1, max_size=40),
        st.lists(st.floats(width=32) | st.integers(-5, 5).map(float), max_size=40),
    )
    def test_a_number_is_in_the_first_step_whose_end_is_not_below_it(self, floats, ends, numbers):
        ends_E = np.array(sorted(ends), np.float32)
        with np.errstate(over="ignore", under="ignore"):
            beside_E = np.nextafter(ends_E, np.float32(np.inf))
        numbers_N = np.concatenate([np.array(numbers, np.float32), ends_E, beside_E])
        values, found_N = (
            np.arange(len(ends_E) + 1, dtype=np.float32),
            np.full(len(numbers_N), -1, np.float32),
        )
        lines_E4 = np.zeros((len(values), 4), np.float32)
        lines_E4[:, 1], lines_E4[:, 2] = 1, values
        on_line_N = np.full(len(numbers_N), -1, np.float32)
        floats.look_up(ends_E, values, lines_E4.ravel(), numbers_N, found_N, on_line_N)
        # which puts NaN behind all
        steps_N = np.searchsorted(ends_E, numbers_N)
        np.testing.assert_array_equal(found_N, steps_N)
        # level lines are the values; NaN is nowhere on them
        np.testing.assert_array_equal(on_line_N, np.where(np.isnan(numbers_N), np.nan, steps_N))

    def test_a_number_has_its_place_on_the_line_of_its_step(self, floats):
        ends_E = np.array([2, 4, np.inf], np.float32)
        largest, nan = np.finfo(np.float32).max, np.nan
        lines_E4 = np.array(
            [[0, 2, 0, 1], [2, 2, 1, 0.5], [4, largest, 2, 1], [nan, nan, nan, nan]], np.float32
        )
        numbers_N = np.array([-np.inf, -1, 0, 1, 2, 3, 4, largest, np.inf, nan], np.float32)
        found_N, on_line_N = np.empty((2, len(numbers_N)), np.float32)
        floats.look_up(
            ends_E, np.arange(4, dtype=np.float32), lines_E4.ravel(), numbers_N, found_N, on_line_N
        )
        expected_N = np.array([0, 0, 0, 0.5, 1, 1.25, 1.5, 3, 3, nan], np.float32)
        np.testing.assert_array_equal(on_line_N, expected_N)

    @pytest.mark.parametrize(
        "lengths",
        [
            (0, 1, 4, 1, 1, 1),
            (3, 3, 16, 1, 1, 1),
            (3, 4, 15, 1, 1, 1),
            (3, 4, 16, 2, 1, 1),
            (3, 4, 16, 1, 2, 1),
            (3, 4, 16, 1, 1, 2),
        ],
    )
    def test_lengths_that_do_not_fit_are_refused(self, floats, lengths):
        with pytest.raises(ValueError, match="expected a value and a line for each step and one"):
            floats.look_up(*(np.zeros(length, np.float32) for length in lengths))

    def test_arrays_of_another_kind_are_refused(self, floats):
        some, fixed = np.zeros(2, np.float32), np.zeros(2, np.float32)
        lines = np.ones(8, np.float32)
        fixed.flags.writeable = False
        for arrays in (
            (np.zeros(1), some, lines, some, some, some),
            (some[:1], some, np.zeros(8), some, some, some),
            (some[:1], some, lines, some, fixed, some),
            (some[:1], some, lines, some, some, fixed),
            (some[:1], some, lines, [0.0, 1.0], some, some),
        ):
            with pytest.raises((TypeError, ValueError, BufferError)):
                floats.look_up(*arrays)


class TestWriting:
    @given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
    def test_a_number_is_as_short_as_orjson_has_it(self, floats, values):
        assert write(floats, values) == as_orjson_does(values)

    def test_numbers_of_every_size(self, floats):
        rng = np.random.default_rng(0)
        any_bits = rng.integers(0, 2**32, 300_000, dtype=np.uint32).view(np.float32)
        powers = [*np.exp2(np.arange(-149.0, 128)), *10.0 ** np.arange(-45, 39), *np.arange(3000)]
        values = np.concatenate(
            [any_bits[np.isfinite(any_bits)], rng.random(100_000), powers]
        ).astype(np.float32)
        beside = np.concatenate([np.nextafter(values, np.float32(side)) for side in (-1e38, 1e38)])
        for each in (values, beside):
            assert write(floats, each) == as_orjson_does(each)

    def test_an_answer_is_json_by_column(self, floats):
        columns = np.array(
            [[0.5, 2, 3e38, 1], [1, 0.25, 1e-7, 0.5], [0, 0.5, 6.25, 0.3]], np.float32
        )
        first, second = floats.write_scores(HEAD, 1.0, 2.0, *columns, [(0, 1), (1, 4)])
        assert (
            first
            == HEAD
            + b',"score":[0.5],"ratio":[0.5],"p_value":[1.0],"severity":[0.0],"extrapolated":[false],"is_anomaly":[false]}'
        )
        assert (
            second
            == HEAD
            + b',"score":[2.0,3e+38,1.0],"ratio":[2.0,3e+38,1.0],"p_value":[0.25,1e-7,0.5],"severity":[0.5,6.25,0.3],"extrapolated":[false,true,false],"is_anomaly":[true,true,false]}'
        )

    def test_a_ratio_is_never_beyond_float32(self, floats):
        answer = json.loads(write_one(floats, 0.0, 3e38))
        assert answer["ratio"] == [pytest.approx(np.finfo(np.float32).max)]

    @pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
    def test_of_a_score_that_is_not_finite_there_is_no_answer(self, floats, score):
        score_N, p_value_N = np.array([1, score, 1], np.float32), np.full(3, 0.5, np.float32)
        answers = floats.write_scores(
            HEAD, 1.0, 1.0, score_N, p_value_N, p_value_N, [(0, 1), (1, 3), (2, 3)]
        )
        assert [answer is None for answer in answers] == [False, True, False]

    def test_a_head_of_any_length_is_kept(self, floats):
        head = b'{"model":"' + b"m" * 5000 + b'"'
        assert write_one(floats, 1.0, 0.5, head=head).startswith(head + b',"score":[0.5]')

    @pytest.mark.parametrize("span", [(-1, 1), (0, 0), (2, 1), (0, 4), (3, 4)])
    def test_a_span_of_other_rows_is_refused(self, floats, span):
        values_N = np.ones(3, np.float32)
        with pytest.raises(ValueError, match="3 rows have no span"):
            floats.write_scores(HEAD, 1.0, 1.0, values_N, values_N, values_N, [(0, 1), span])

    def test_spans_that_change_meanwhile_are_those_that_were_given(self, floats):
        values_N, spans = np.ones(1_000_000, np.float32), [(0, 1_000_000), (0, 1)]
        answers = []
        thread = threading.Thread(
            target=lambda: answers.extend(
                floats.write_scores(HEAD, 1.0, 1.0, values_N, values_N, values_N, spans)
            )
        )
        thread.start()
        spans.clear()
        thread.join()
        assert len(answers) == 0 or [
            len(json.loads(answer[:-1] + b"}")["score"]) for answer in answers
        ] == [
            1_000_000,
            1,
        ]

    @pytest.mark.parametrize(
        ("head", "threshold"), [("{", 1.0), (None, 1.0), (HEAD, "1"), (HEAD, None)]
    )
    def test_a_head_that_is_no_bytes_and_a_threshold_that_is_no_number_are_refused(
        self, floats, head, threshold
    ):
        with pytest.raises(TypeError):
            write_one(floats, threshold, 0.5, head=head)

    @pytest.mark.parametrize(
        ("score_N", "p_value_N", "spans"),
        [
            (np.ones(2), np.ones(2, np.float32), [(0, 1)]),
            (np.ones((1, 2), np.float32), np.ones(2, np.float32), [(0, 1)]),
            (np.ones(2, np.float32), np.ones(2, np.int32), [(0, 1)]),
            (np.ones(2, np.float32), b"12345678", [(0, 1)]),
            (np.ones(2, np.float32), np.ones(2, np.float32), ((0, 1),)),
            (np.ones(2, np.float32), np.ones(2, np.float32), [[0, 1]]),
            (np.ones(2, np.float32), np.ones(2, np.float32), [(0, "1")]),
            (np.ones(2, np.float32), np.ones(2, np.float32), [()]),
            (np.ones(4, np.float32)[::2], np.ones(2, np.float32), [(0, 1)]),
            (np.ones(2, np.float32), np.ones(3, np.float32), [(0, 1)]),
        ],
    )
    def test_arguments_of_another_kind_are_refused(self, floats, score_N, p_value_N, spans):
        with pytest.raises((TypeError, ValueError, BufferError)):
            floats.write_scores(HEAD, 1.0, 1.0, score_N, p_value_N, np.ones(2, np.float32), spans)

    def test_a_severity_is_expected_for_each_score(self, floats):
        two_N, three_N = np.ones(2, np.float32), np.ones(3, np.float32)
        with pytest.raises(ValueError, match="expected a p-value and a severity for each score"):
            floats.write_scores(HEAD, 1.0, 1.0, two_N, two_N, three_N, [(0, 1)])


class TestEqualAnswers:
    @settings(deadline=None, max_examples=300)
    @given(st.randoms(use_true_random=False))
    def test_of_any_body_python_reads_what_c_reads(self, compiled, rng):
        body = rng.choice(BODIES)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(body) + 1)
            body = body[:place] + rng.choice(PIECES) + body[place + rng.randrange(4) :]
            for width in (2, 3):
                assert plain.read_rows(body, width, 3) == compiled.read_rows(body, width, 3)

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(st.tuples(FLOAT32, FLOAT32, FLOAT32), min_size=1, max_size=8),
        FLOAT32 | st.floats() | st.sampled_from([0.0, -1.0, math.nan, math.inf]),
        FLOAT32,
    )
    def test_of_any_scores_python_writes_what_c_writes(self, compiled, rows, threshold, largest):
        columns = np.array(rows, np.float32).T.copy()
        spans = [(0, len(rows)), *((n, n + 1) for n in range(len(rows)))]
        arguments = HEAD, threshold, largest, *columns, spans
        assert plain.write_scores(*arguments) == compiled.write_scores(*arguments)

    @given(
        st.lists(st.floats(0, width=32, allow_infinity=False), min_size=1, max_size=8),
        st.floats(0, width=32, allow_infinity=False),
    )
    def test_both_decide_as_the_threshold_does(self, floats, scores, limit):
        score_N = np.array(scores, np.float32)
        (answer,) = floats.write_scores(
            HEAD, limit, limit, score_N, score_N, score_N, [(0, len(score_N))]
        )
        threshold, written = Threshold(0.01, 0.05, True, 1, limit, 0.005), json.loads(answer)
        assert written["is_anomaly"] == threshold.is_anomaly(score_N).tolist()
        assert written["extrapolated"] == written["is_anomaly"]
        ratio_N = np.array(written["ratio"], np.float32)
        np.testing.assert_array_equal(ratio_N, threshold.ratio(score_N))

"""The Open Inference Protocol's wire form: request bytes -> rows, tensors -> bytes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.service.errors import (
    HourglassError,
    InvalidBody,
    InvalidJSON,
    InvalidNumber,
    InvalidRow,
    TooManyRows,
)
from hourglass.service.rows import tensors
from hourglass.service.rows.tensors import Inference, Output
from tests.artifacts import MIXED, NUMERIC, make_served, sample_rows

PLAIN_MODEL = make_served(NUMERIC)
PLAIN, MIX = PLAIN_MODEL.schema, make_served(MIXED).schema
ROWS = [[1.5, None, 0, -3], [0, 0, 0, 1e-3]]
ROWS_ND = np.array([[1.5, np.nan, 0, -3], [0, 0, 0, 1e-3]], np.float32)


def request(data, shape=(2, 4), datatype="FP32", **more):
    return {
        "inputs": [{"name": "features", "shape": list(shape), "datatype": datatype, "data": data}],
        **more,
    }


def decode(sent, schema=PLAIN, max_rows=10, header_length=None):
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return tensors.decode_request(body, header_length, schema, max_rows=max_rows)


def decode_raw(
    raw,
    datatype="FP32",
    shape=(2, 4),
    schema=PLAIN,
    size=None,
    header_length=None,
    tail=b"",
    **more,
):
    tensor = {"name": "features", "shape": list(shape), "datatype": datatype}
    tensor["parameters"] = {"binary_data_size": len(raw) if size is None else size}
    head = json.dumps({"inputs": [tensor | more]}).encode()
    length = len(head) if header_length is None else header_length
    return tensors.decode_request(head + raw + tail, length, schema, max_rows=10)


class TestRowsAsJson:
    @pytest.mark.parametrize("data", [ROWS, [*ROWS[0], *ROWS[1]]])
    def test_data_is_read_flat_or_row_by_row_with_null_as_missing(self, data):
        rows_ND = decode(request(data)).rows_ND
        assert rows_ND.dtype == np.float32
        np.testing.assert_array_equal(rows_ND, ROWS_ND)

    def test_nan_which_is_no_json_is_missing_too(self):
        np.testing.assert_array_equal(
            decode(request([[1.5, np.nan, 0, -3], ROWS[1]])).rows_ND, ROWS_ND
        )

    def test_a_category_is_its_code_and_a_boolean_0_or_1(self):
        rows_ND = decode(request([[1.5, 1, 2, 0], [1, None, -1, 0]]), MIX).rows_ND
        np.testing.assert_array_equal(
            rows_ND, np.array([[1.5, 1, 2, 0], [1, np.nan, -1, 0]], np.float32)
        )

    def test_booleans_are_numbers_where_the_datatype_says_so(self):
        rows_ND = decode(request([True, False, None, True], (1, 4), "BOOL")).rows_ND
        np.testing.assert_array_equal(rows_ND, [[1, 0, np.nan, 1]])

    @pytest.mark.parametrize(
        ("data", "datatype", "error", "row", "feature", "expected", "got"),
        [
            ([1, 2, 3, 4, 1, "2", 3, 4], "FP32", InvalidRow, 1, "b", "a number or null", '"2"'),
            ([1, 2, True, 4, 1, 2, 3, 4], "FP64", InvalidRow, 0, "c", "a number or null", "true"),
            ([1, 2, 3, 4, 1, [2], 3, 4], "FP32", InvalidRow, 1, "b", "a number or null", "an array of 1"),
            ([1, 2, 3, 4, 1, "\ud800", 3, 4], "FP32", InvalidRow, 1, "b", "a number or null", '"\\ud800"'),
            ([1, 0, 3, 4, 1, 2, 3, 4], "BOOL", InvalidRow, 0, "a", "true, false or null", "1"),
            ([1, 2, 3, 4, 1, 2.5, 3, 4], "INT8", InvalidRow, 1, "b", "a whole number from -128 to 127", "2.5"),
            ([1, 2, 3, 4, 1, 2, 3, -4], "UINT16", InvalidRow, 1, "d", "a whole number from 0 to 65535", "-4"),
            ([1, 2, 3, 4, 1, 2, 3, 1e39], "FP64", InvalidNumber, 1, "d", "a finite number within float32", "1e+39"),
            ([1, 2, 3, 4, 1, 2, 3, -np.inf], "FP32", InvalidNumber, 1, "d", "a finite number within float32", "-Infinity"),
            ([1, 2, 3, 10**40, 1, 2, 3, 4], "INT64", InvalidNumber, 0, "d", "a finite number within float32", str(10**40)),
            ([1, 2, 3, 10**400, 1, 2, 3, 4], "FP32", InvalidNumber, 0, "d", "a finite number within float32", str(10**59) + "…"),
        ],
    )  # fmt: skip
    def test_a_wrong_cell_is_named_with_what_was_expected_and_what_came(
        self, data, datatype, error, row, feature, expected, got
    ):
        with pytest.raises(error) as caught:
            decode(request(data, datatype=datatype))
        problem = caught.value
        assert (problem.row, problem.feature, problem.expected, problem.got) == (
            row,
            feature,
            expected,
            got,
        )
        assert str(problem) == f"expected {expected} for {feature!r}, got {got} in row {row}"

    def test_millions_of_arrays_are_refused_before_they_are_parsed(self):
        sent = (
            json.dumps(request(["many"], (1, 4))).replace('"many"', "[]," * 200_000 + "[]").encode()
        )
        with pytest.raises(InvalidRow, match=r"expected 4 values for the shape .*, got 200001"):
            decode(sent)

    @pytest.mark.parametrize("literal", ["1e999", "-1e999", "1" + "0" * 5000])
    @pytest.mark.parametrize("beside", ["2", "NaN"])
    def test_digits_beyond_any_float_are_a_wrong_cell_too(self, literal, beside):
        sent = json.dumps(request([1, 7, 3, 8], (1, 4))).replace("7", beside).replace("8", literal)
        with pytest.raises(InvalidNumber) as caught:
            decode(sent.encode())
        assert (caught.value.feature, caught.value.got) == ("d", literal[:60])

    @pytest.mark.parametrize(
        ("data", "shape", "message"),
        [
            ([1, 2, 3], (1, 4), "expected 4 values for the shape [1, 4] of 'features', got 3"),
            ([], (1, 4), "expected 4 values for the shape [1, 4] of 'features', got 0"),
            ([[1, 2, 3, 4]], (2, 4), "expected 8 values for the shape [2, 4] of 'features', got 4"),
            ([[1, 2], [3, 4]], (1, 4), "expected 4 features, got 2 in row 0"),
            ([[1, 2, 3, 4], 5], (2, 4), "expected 4 features, got 5 in row 1"),
            (
                [1, 2, 3],
                (1, 3),
                (
                    "expected the shape [rows, 4] of 'features', one column for each feature, got"
                    " [1, 3]"
                ),
            ),
            (
                [1, 2, 3, 4],
                (4,),
                "expected the shape [rows, 4] of 'features', one column for each feature, got [4]",
            ),
            (
                [1],
                [1] * 99,
                (
                    "expected the shape [rows, 4] of 'features', one column for each feature, got"
                    " 99 dimensions"
                ),
            ),
        ],
    )
    def test_data_that_does_not_fit_the_shape_or_the_model_is_refused(self, data, shape, message):
        with pytest.raises(InvalidRow) as caught:
            decode(request(data, shape))
        assert (str(caught.value), caught.value.reason) == (message, "width")

    @pytest.mark.parametrize(
        ("count", "error"), [(0, InvalidBody), (-1, InvalidBody), (11, TooManyRows)]
    )
    def test_rows_are_at_least_one_and_at_most_so_many(self, count, error):
        with pytest.raises(error):
            decode(request([], (count, 4)))

    def test_what_makes_a_row_unfit_for_v1_makes_it_unfit_here(self):
        with pytest.raises(InvalidRow, match="row 0: expected at least 2 of 4 values, got 1"):
            decode(request([None, None, None, 1], (1, 4)))
        with pytest.raises(
            InvalidRow, match="expected a whole number from -1 to 2 for 'site', got 7 in row 0"
        ):
            decode(request([1, 1, 7, 1], (1, 4)), MIX)


class TestRowsAsBytes:
    def test_float32_is_read_as_it_is_with_nan_as_missing(self):
        np.testing.assert_array_equal(decode_raw(ROWS_ND.tobytes()).rows_ND, ROWS_ND)

    @pytest.mark.parametrize("datatype", tensors.DATATYPES)
    def test_every_datatype_is_read_little_endian(self, datatype):
        raw = np.array([[1, 0, 1, 1], [0, 1, 1, 0]]).astype(tensors.DATATYPES[datatype])
        np.testing.assert_array_equal(
            decode_raw(raw.tobytes(), datatype).rows_ND, raw.astype(np.float32)
        )

    def test_a_double_that_does_not_fit_float32_is_named(self):
        raw = np.array([[1, 2, 3, 4], [1, -1e39, 3, 4]])
        with pytest.raises(
            InvalidRow, match=r"finite number within float32 for 'b', got -1e\+39 in row 1"
        ):
            decode_raw(raw.tobytes(), "FP64")

    def test_infinity_is_named(self):
        with pytest.raises(
            InvalidRow, match="finite number within float32 for 'c', got inf in row 0"
        ):
            decode_raw(np.array([[1, 2, np.inf, 4]], np.float32).tobytes(), shape=(1, 4))

    @pytest.mark.parametrize(
        ("raw", "more", "message"),
        [
            (
                bytes(31),
                {},
                r"binary_data_size of 32 bytes for 'features', FP32 of shape \[2, 4\], got 31",
            ),
            (bytes(32), {"size": True}, "binary_data_size of 32 bytes .*, got true"),
            (bytes(32), {"size": "32"}, 'binary_data_size of 32 bytes .*, got "32"'),
            (bytes(31), {"size": 32}, "expected 32 bytes of 'features' after the JSON, got 31"),
            (bytes(32), {"tail": b"x"}, "expected 32 bytes of 'features' after the JSON, got 33"),
        ],
    )
    def test_a_size_that_is_not_that_of_the_shape_or_of_what_came_is_refused(
        self, raw, more, message
    ):
        with pytest.raises(InvalidRow, match=message):
            decode_raw(raw, **more)

    @pytest.mark.parametrize("length", [0, -1, 10_000])
    def test_a_header_length_beyond_the_body_is_refused(self, length):
        with pytest.raises(InvalidBody, match=f"within the body's .* bytes, got {length}"):
            decode_raw(ROWS_ND.tobytes(), header_length=length)

    def test_data_and_bytes_are_one_too_many(self):
        with pytest.raises(InvalidBody, match="either data or a binary_data_size"):
            decode_raw(ROWS_ND.tobytes(), data=[1])
        body = json.dumps(request(ROWS)).encode()
        with pytest.raises(
            InvalidBody, match="nothing after the JSON without a binary_data_size, got 3 bytes"
        ):
            decode(body + b"abc", header_length=len(body))


class TestRequest:
    def test_by_default_the_outputs_are_score_and_p_value_in_json(self):
        for outputs in ({}, {"outputs": None}, {"outputs": []}):
            asked = decode(request(ROWS, **outputs))
            assert (asked.id, asked.outputs) == (
                None,
                (Output("score", False), Output("p_value", False)),
            )

    def test_outputs_keep_their_order_and_may_each_be_binary(self):
        outputs = [
            {"name": "latent"},
            {"name": "score", "parameters": {"binary_data": False}},
            {"name": "p_value"},
        ]
        asked = decode(
            request(ROWS, id="42", outputs=outputs, parameters={"binary_data_output": True})
        )
        assert asked.id == "42"
        assert asked.outputs == (
            Output("latent", True),
            Output("score", False),
            Output("p_value", True),
        )

    def test_what_the_protocol_leaves_to_servers_is_ignored(self):
        parameters = {"sequence_id": 3, "priority": 1, "mine": "x"}
        asked = decode(request(ROWS, parameters=parameters, model_name="another", timeout=1))
        np.testing.assert_array_equal(asked.rows_ND, ROWS_ND)

    @pytest.mark.parametrize(
        ("sent", "message"),
        [
            (
                request(ROWS, outputs=[{"name": "anomaly"}]),
                "among score, p_value, severity, contributions, .*, got 'anomaly'",
            ),
            (
                request(ROWS, outputs=[{"name": "score"}, {"name": "score"}]),
                "each output once, got 'score' twice",
            ),
            (
                request(ROWS, outputs=[{"name": "score", "parameters": {"binary_data": 1}}]),
                "true or false for the parameter 'binary_data' of score, got 1",
            ),
            (
                request(ROWS, parameters={"binary_data_output": "yes"}),
                "'binary_data_output' of the request",
            ),
            (
                request(ROWS, outputs=[{"name": "score", "parameters": {"classification": 3}}]),
                "'classification' of 'score' belongs to an extension",
            ),
            ({"inputs": []}, "expected the one input 'features', got none"),
            (
                {"inputs": request(ROWS)["inputs"] * 2},
                "expected the one input 'features', got 'features', 'features'",
            ),
            (
                {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]},
                "'features', got 'x'",
            ),
            (
                request(["a"], (1, 4), "BYTES"),
                "a datatype of 'features' among FP32, .*, got 'BYTES'",
            ),
            (
                {"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32"}]},
                "expected data for 'features'",
            ),
            (
                {
                    "inputs": [
                        {
                            "name": "features",
                            "shape": [1, 4],
                            "datatype": "FP32",
                            "parameters": {"shared_memory_region": "r"},
                        }
                    ]
                },
                "'shared_memory_region' of 'features' belongs to an extension",
            ),
            (b"", "the body is empty"),
        ],
    )
    def test_what_cannot_be_done_is_refused(self, sent, message):
        with pytest.raises(InvalidBody, match=message):
            decode(sent)

    @pytest.mark.parametrize(
        ("sent", "message"),
        [
            (b"{", "is not JSON"),
            (b"\xff{}", "is not JSON"),
            (json.dumps(request(["deep"])).encode().replace(b'"deep"', b"[" * 50_000 + b"]" * 50_000), "is not JSON"),
            (json.dumps(request(ROWS, id="\ud800")).encode(), "is not JSON"),
            (b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "Open Inference Protocol"),
            (b"[]", "Expected `object`, got `array`"),
            (b"{}", "missing required field `inputs`"),
            (b"NaN", "Expected `object`, got `null`"),
            (b'{"inputs": [{"name": "features", "shape": [1.5, 4], "datatype": "FP32"}]}', "Expected `int`, got `float`"),
            (b'{"inputs": [], "id": 7}', "Expected `str | null`, got `int`"),
            (b'{"inputs": [], "id": NaN, "outputs": 7}', "Expected `array | null`, got `int`"),
        ],
    )  # fmt: skip
    def test_what_is_no_request_is_refused(self, sent, message):
        with pytest.raises(InvalidJSON) as caught:
            decode(sent)
        assert message in str(caught.value)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=60), st.one_of(st.none(), st.integers(-2, 70)))
    def test_any_bytes_are_read_or_refused_in_words(self, body, header_length):
        with pytest.raises(HourglassError):
            tensors.decode_request(body, header_length, PLAIN, max_rows=10)

    @settings(max_examples=100, deadline=None)
    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=12,
        ),
        st.sampled_from([*tensors.DATATYPES]),
        st.lists(st.integers(-1, 4), max_size=3),
    )
    def test_any_data_is_read_as_finite_rows_or_refused_in_words(self, data, datatype, shape):
        try:
            rows_ND = decode(request(data, shape, datatype)).rows_ND
        except HourglassError:
            return
        assert rows_ND.shape == tuple(shape)
        assert not np.isinf(rows_ND).any()


class TestAnswer:
    def answer(self, outputs, request_id=None):
        rows_ND = sample_rows(NUMERIC, 3)
        found = PLAIN_MODEL.detector.explain(rows_ND)._asdict()
        found["latent"] = PLAIN_MODEL.detector.encode(rows_ND)
        return found, tensors.encode_answer(
            PLAIN_MODEL, Inference(request_id, rows_ND, outputs), found
        )

    def test_json_holds_the_model_the_threshold_and_the_outputs_in_the_order_asked_for(self):
        found, (body, length) = self.answer(
            (Output("latent", False), Output("score", False)), request_id="42"
        )
        answer, threshold = json.loads(body), PLAIN_MODEL.threshold
        assert length is None
        assert answer["id"] == "42"
        assert (answer["model_name"], answer["model_version"]) == (
            "tiny",
            PLAIN_MODEL.detector.version,
        )
        assert answer["parameters"] == {
            "alpha": threshold.alpha,
            "delta": threshold.delta,
            "certified": threshold.certified,
            "guarantee": "certified",
            "threshold": pytest.approx(threshold.score),
        }
        latent, score = answer["outputs"]
        assert (latent["name"], latent["datatype"], latent["shape"]) == ("latent", "FP32", [3, 2])
        np.testing.assert_array_equal(np.array(latent["data"], np.float32), found["latent"].ravel())
        assert (score["name"], score["shape"]) == ("score", [3])
        assert "parameters" not in score

    def test_bytes_follow_the_json_in_the_order_of_the_outputs_that_asked_for_them(self):
        outputs = (Output("contributions", True), Output("score", False), Output("p_value", True))
        found, (body, length) = self.answer(outputs)
        contributions, score, p_value = json.loads(body[:length])["outputs"]
        assert "id" not in json.loads(body[:length])
        assert contributions["parameters"] == {"binary_data_size": 48}
        assert p_value["parameters"] == {"binary_data_size": 12}
        assert "data" not in contributions
        assert len(score["data"]) == 3
        assert body[length:] == found["contributions"].tobytes() + found["p_value"].tobytes()

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize(
        "name", ["score", "p_value", "severity", "contributions", "reconstruction", "latent"]
    )
    def test_neither_nan_nor_infinity_is_an_answer(self, name, binary):
        found, _ = self.answer((Output("score", False),))
        for value in (np.nan, np.inf):
            spoilt = found[name].copy()
            spoilt[1] = value
            asked = Inference(None, sample_rows(NUMERIC, 3), (Output(name, binary),))
            with pytest.raises(
                InvalidRow, match=f"row 1 is so far from what tiny knows that its {name} is beyond"
            ):
                tensors.encode_answer(PLAIN_MODEL, asked, {name: spoilt})

"""The Open Inference Protocol v2, as any HTTP client sees it; tests/clients has the clients made
for it.
"""

import gzip
import json
import zlib

import httpx
import numpy as np
import pytest

from hourglass.service import VERSION
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, NUMERIC, make_artifact, publish, sample_rows
from tests.serving import serving

INFER = "/v2/models/plain/infer"
DETECTOR = Detector.from_bytes(make_artifact())
ROWS_ND = sample_rows(NUMERIC, 8, seed=5)
HEADER_LENGTH = "inference-header-content-length"


def request(rows_ND=ROWS_ND, **more):
    tensor = {
        "name": "features",
        "shape": rows_ND.shape,
        "datatype": "FP32",
        "data": rows_ND.tolist(),
    }
    return {"inputs": [tensor], **more}


def raw_request(rows_ND=ROWS_ND, **more):
    """Body and headers of the same in binary."""
    tensor = {"name": "features", "shape": rows_ND.shape, "datatype": "FP32"}
    head = json.dumps(
        {"inputs": [tensor | {"parameters": {"binary_data_size": rows_ND.nbytes}}], **more}
    ).encode()
    return {"content": head + rows_ND.tobytes(), "headers": {HEADER_LENGTH: str(len(head))}}


def values(answer, name):
    (output,) = [each for each in answer.json()["outputs"] if each["name"] == name]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def error_of(answer: httpx.Response, status: int) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/json",
    ), answer.text
    assert answer.json().keys() == {"error"}
    assert "Traceback" not in answer.text
    return answer.json()["error"]


class TestMetadata:
    def test_the_server_says_what_it_is_and_that_it_lives(self, client):
        described = {"name": "hourglass", "version": VERSION, "extensions": ["binary_tensor_data"]}
        assert client.get("/v2").json() == client.get("/v2/").json() == described
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}

    def test_a_server_without_models_is_live_but_not_ready(self, tmp_path):
        with serving(tmp_path) as client:
            assert client.get("/v2/health/live").json() == {"live": True}
            assert error_of(client.get("/v2/health/ready"), 503) == "no model is in service"

    @pytest.mark.parametrize(("name", "width"), [("plain", 4), ("mixed", 4)])
    def test_a_model_says_what_it_takes_and_gives(self, client, name, width):
        described = client.get(f"/v2/models/{name}").raise_for_status().json()
        (version,) = described["versions"]
        assert version == client.get(f"/v1/models/{name}").json()["version"]
        assert described["inputs"] == [
            {"name": "features", "datatype": "FP32", "shape": [-1, width]}
        ]
        shapes = {output["name"]: output["shape"] for output in described["outputs"]}
        assert shapes == {
            "score": [-1], "p_value": [-1], "severity": [-1], "contributions": [-1, width], "reconstruction": [-1, width], "latent": [-1, 2],
        }  # fmt: skip
        assert client.get(f"/v2/models/{name}/versions/{version}").json() == described
        for path in (f"/v2/models/{name}/ready", f"/v2/models/{name}/versions/{version}/ready"):
            assert client.get(path).json() == {"name": name, "ready": True}

    def test_another_version_or_model_is_a_404_that_names_what_is_served(self, client):
        for method, what in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            error = error_of(client.request(method, f"/v2/models/plain/versions/7{what}"), 404)
            assert (
                error == "model 'plain' has no version '7' in service, the one served is"
                f" {DETECTOR.version}"
            )
            error = error_of(client.request(method, f"/v2/models/nobody{what}"), 404)
            assert error == "no model 'nobody' is served; served are: mixed, plain"

    def test_a_path_that_leads_nowhere_and_another_method_are_errors_of_the_protocol(self, client):
        assert error_of(client.get("/v2/repository/index"), 404).startswith(
            "there is nothing at /v2/repository/index"
        )
        answer = client.get(INFER)
        allowed = answer.headers["allow"]  # Litestar's order differs from start to start
        assert error_of(answer, 405) == f"{INFER} takes {allowed}, got GET"
        assert sorted(allowed.split(", ")) == ["OPTIONS", "POST"]
        assert client.get("/v20").headers["content-type"] == "application/problem+json"


class TestInfer:
    def test_scores_and_p_values_are_those_of_v1_in_json_and_in_binary(self, client):
        v1 = client.post("/v1/models/plain/score", json={"rows": ROWS_ND.tolist()}).json()
        for sent in ({"json": request()}, raw_request()):
            answer = client.post(INFER, **sent)
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["model_version"] == v1["version"]
            assert answer.json()["parameters"] == {
                name: v1[name] for name in ("alpha", "delta", "certified", "guarantee", "threshold")
            }
            assert [output["data"] for output in answer.json()["outputs"]] == [
                v1["score"],
                v1["p_value"],
            ]

    def test_rows_of_every_kind_of_feature_are_read_as_the_raw_body_of_v1(self, client):
        rows_ND = sample_rows(MIXED, 8, seed=5)
        raw = {
            "content": rows_ND.tobytes(),
            "headers": {"content-type": "application/octet-stream"},
        }
        v1 = client.post("/v1/models/mixed/score", **raw).json()
        for sent in ({"json": request(rows_ND)}, raw_request(rows_ND)):
            assert (
                client.post("/v2/models/mixed/infer", **sent).json()["outputs"][0]["data"]
                == v1["score"]
            )

    def test_no_content_type_is_asked_for(self, client):
        sent = json.dumps(request())
        for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/json"}):
            assert client.post(INFER, content=sent, headers=headers).status_code == 200

    def test_every_output_is_the_detectors_in_the_order_asked_for(self, client):
        explanation, codes_NK = DETECTOR.explain(ROWS_ND), DETECTOR.encode(ROWS_ND)
        names = ["latent", "reconstruction", "severity", "p_value", "contributions", "score"]
        answer = client.post(
            INFER, json=request(id="42", outputs=[{"name": name} for name in names])
        )
        assert answer.json()["id"] == "42"
        assert [output["name"] for output in answer.json()["outputs"]] == names
        for name in ("reconstruction", "severity", "p_value", "contributions", "score"):
            np.testing.assert_array_equal(values(answer, name), getattr(explanation, name))
        np.testing.assert_array_equal(values(answer, "latent"), codes_NK)
        alone = client.post(INFER, json=request(outputs=[{"name": "latent"}]))
        np.testing.assert_array_equal(values(alone, "latent"), codes_NK)

    def test_raw_outputs_follow_the_json_whose_length_a_header_tells(self, client):
        answer = client.post(INFER, **raw_request(parameters={"binary_data_output": True}))
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers[HEADER_LENGTH])
        assert [
            output["parameters"] for output in json.loads(answer.content[:length])["outputs"]
        ] == [
            {"binary_data_size": 32},
            {"binary_data_size": 32},
        ]
        expected = DETECTOR.score(ROWS_ND)
        assert answer.content[length:] == expected.score.tobytes() + expected.p_value.tobytes()

    @pytest.mark.parametrize(
        ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
    )
    def test_a_compressed_body_is_read_as_the_plain_one(self, client, encoding, compress):
        plain = client.post(INFER, json=request()).json()
        packed = client.post(
            INFER,
            content=compress(json.dumps(request()).encode()),
            headers={"content-encoding": encoding},
        )
        assert packed.json() == plain
        raw = raw_request()
        raw = {
            "content": compress(raw["content"]),
            "headers": raw["headers"] | {"content-encoding": encoding},
        }
        assert client.post(INFER, **raw).json() == plain

    @pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15)])
    @pytest.mark.parametrize("inline", [True, False])
    def test_an_answer_is_compressed_for_who_asks_and_never_an_error(
        self, models, encoding, bits, inline
    ):
        rows_ND = sample_rows(NUMERIC, 8 if inline else 2000)
        for binary in (True, False):
            sent = request(rows_ND, parameters={"binary_data_output": binary})
            with serving(models) as client:
                plain = client.post(INFER, json=sent, headers={"accept-encoding": "identity"})
                with client.stream(
                    "POST", INFER, json=sent, headers={"accept-encoding": encoding}
                ) as answer:
                    packed = b"".join(answer.iter_raw())
                error = client.post(INFER, json={}, headers={"accept-encoding": encoding})
            assert "content-encoding" not in plain.headers
            assert answer.headers["content-encoding"] == encoding
            assert answer.headers.get(HEADER_LENGTH) == plain.headers.get(HEADER_LENGTH)
            assert zlib.decompress(packed, bits) == plain.content
            assert "content-encoding" not in error.headers
            error_of(error, 400)

    def test_large_requests_are_worked_on_beside_the_loop_and_answer_the_same(self, models):
        rows_ND = sample_rows(NUMERIC, 3000, seed=8)
        outputs = [{"name": "score"}, {"name": "contributions"}]
        with serving(models, inline_cells=100) as client:
            scored = client.post(INFER, json=request(rows_ND))
            explained = client.post(INFER, **raw_request(rows_ND, outputs=outputs))
        np.testing.assert_allclose(
            values(scored, "score"), DETECTOR.score(rows_ND).score, rtol=1e-5
        )
        np.testing.assert_allclose(
            values(explained, "contributions").sum(axis=1), values(explained, "score"), rtol=1e-5
        )

    def test_scored_rows_are_counted_and_watched_as_those_of_v1(self, models):
        with serving(models) as client:
            client.post(INFER, json=request()).raise_for_status()
            client.post(INFER, json=request(outputs=[{"name": "contributions"}])).raise_for_status()
            client.post(INFER, json={})
            counted = client.get("/metrics").text
        # those with contributions as well
        assert 'hourglass_vectors_total{model="plain"} 16.0' in counted
        assert (
            'hourglass_requests_total{method="POST",route="/v2/models/{name}/infer",status="200"} 2.0'
            in counted
        )
        assert 'hourglass_rejections_total{reason="json"} 1.0' in counted


class TestErrors:
    @pytest.mark.parametrize(
        ("data", "status", "error"),
        [
            (
                [1, 2, 3, None, None, None],
                422,
                "expected 4 values for the shape [1, 4] of 'features', got 6",
            ),
            ([1, 2, "3", 4], 422, "expected a number or null for 'c', got \"3\" in row 0"),
            (
                [1, 2, 3, 1e39],
                400,
                "expected a finite number within float32 for 'd', got 1e+39 in row 0",
            ),
            (
                [1, 2, float("inf"), 4],
                400,
                "expected a finite number within float32 for 'c', got Infinity in row 0",
            ),
            ([None, None, None, 4], 422, "row 0: expected at least 2 of 4 values, got 1 (25%)"),
            (
                [1e38, 1e38, 1, 1],
                422,
                "row 0 is so far from what plain knows that its score is beyond float32",
            ),
        ],
    )
    def test_a_row_that_does_not_fit_is_named(self, client, data, status, error):
        sent = {"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": data}]}
        assert error_of(client.post(INFER, content=json.dumps(sent)), status) == error

    @pytest.mark.parametrize(
        ("body", "headers", "status", "error"),
        [
            (b"", {}, 400, "the body is empty"),
            (b"{", {}, 400, "the request is not JSON"),
            (b"{}", {}, 400, "missing required field `inputs`"),
            (b"{}", {HEADER_LENGTH: "9"}, 400, "within the body's 2 bytes, got 9"),
            (b"{}", {HEADER_LENGTH: "two"}, 400, "inference_header_content_length"),
            (b"{}", {HEADER_LENGTH: "0"}, 400, "inference_header_content_length"),
            (
                b"{}",
                {"content-encoding": "br"},
                415,
                "a Content-Encoding among gzip, deflate, got br",
            ),
            (b"{}", {"content-encoding": "gzip"}, 400, "the body is not gzip"),
            (gzip.compress(b"{}", mtime=0)[:-1], {"content-encoding": "gzip"}, 400, "cut short"),
            (b" " * 20_001, {}, 413, "at most 20000 bytes, got more"),
            (
                gzip.compress(bytes(10**6)),
                {"content-encoding": "gzip"},
                413,
                "20000 bytes once decompressed, got more",
            ),
            (
                zlib.compress(bytes(10**6)),
                {"content-encoding": "deflate"},
                413,
                "once decompressed, got more",
            ),
        ],
    )
    def test_a_body_that_cannot_be_read_is_an_error(self, client, body, headers, status, error):
        assert error in error_of(client.post(INFER, content=body, headers=headers), status)

    def test_rows_and_the_values_of_an_answer_are_limited(self, client, tmp_path):
        many = sample_rows(NUMERIC, 101)
        assert (
            error_of(client.post(INFER, **raw_request(many)), 413)
            == "expected at most 100 rows in one request, got 101"
        )
        wide = tuple(NUMERIC[0].__class__(name=f"f{i}", kind="numeric") for i in range(300))
        publish(tmp_path, "plain", make_artifact(wide))
        outputs = [{"name": "contributions"}, {"name": "reconstruction"}]
        with serving(tmp_path) as wide_client:
            rows_ND = np.zeros((14_000, 300), np.float32)
            error = error_of(wide_client.post(INFER, **raw_request(rows_ND, outputs=outputs)), 413)
        assert error.startswith(
            "expected at most 8388608 values in one answer, got 14000 rows of 600"
        )

    def test_a_defect_of_the_service_is_a_500_that_tells_nothing(self, models, monkeypatch, caplog):
        def broken(*_: object) -> bytes:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr("hourglass.service.rows.tensors.encode_answer", broken)
        with serving(models) as client:
            error = error_of(client.post(INFER, json=request()), 500)
        assert error == "something went wrong in the service: the service's log says what it was"
        assert "ZeroDivisionError: secret detail" in caplog.text

    def test_nothing_but_finite_json_ever_leaves(self, client):
        def refuse(literal: str) -> None:
            raise AssertionError(f"{literal} in an answer")

        outputs = [
            {"name": name}
            for name in ("score", "p_value", "contributions", "reconstruction", "latent")
        ]
        for row in (
            [1e38, 1e-38, -1e38, 3],
            [1, 2, 3, np.nan],
            [1e15, 1, 1, 1],
            [3e38, 3e38, 3e38, 3e38],
        ):
            answer = client.post(INFER, **raw_request(np.array([row], np.float32), outputs=outputs))
            assert answer.status_code in (200, 422)
            sent = json.loads(answer.text, parse_constant=refuse)
            assert None not in [
                value for output in sent.get("outputs", ()) for value in output["data"]
            ]

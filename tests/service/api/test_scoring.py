"""Score, explain, reconstruct, encode and decode, as a client sees them."""

import json

import numpy as np
import pytest

from hourglass.service.model import artifact
from hourglass.service.model.detector import Detector
from hourglass.service.serving.exhibits import FOLDER as EXHIBITS
from tests.artifacts import MIXED, NUMERIC, as_json_rows, make_artifact, publish, sample_rows
from tests.serving import serving

PLAIN_DETECTOR, MIXED_DETECTOR = (
    Detector.from_bytes(make_artifact()),
    Detector.from_bytes(make_artifact(MIXED)),
)
ROWS = {"plain": sample_rows(NUMERIC, 20, seed=5), "mixed": sample_rows(MIXED, 20, seed=5)}
DETECTORS = {"plain": PLAIN_DETECTOR, "mixed": MIXED_DETECTOR}
FEATURES = {"plain": NUMERIC, "mixed": MIXED}


def post(client, name, what, rows):
    answer = client.post(f"/v1/models/{name}/{what}", json={"rows": rows})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


@pytest.mark.parametrize("name", ["plain", "mixed"])
class TestEveryModel:
    def test_scores_are_the_detectors(self, client, name):
        expected = DETECTORS[name].score(ROWS[name])
        answer = post(client, name, "score", as_json_rows(FEATURES[name], ROWS[name]))
        np.testing.assert_allclose(answer["score"], expected.score, rtol=1e-6)
        np.testing.assert_allclose(answer["p_value"], expected.p_value, rtol=1e-6)
        assert (answer["model"], answer["version"]) == (name, DETECTORS[name].version)
        assert answer["is_anomaly"] == [ratio > 1 for ratio in answer["ratio"]]

    def test_raw_bytes_and_json_give_the_same_answer(self, client, name):
        for what in ("score", "explain", "reconstruct", "encode"):
            raw = client.post(
                f"/v1/models/{name}/{what}",
                content=ROWS[name].astype("<f4").tobytes(),
                headers={"content-type": "application/octet-stream"},
            )
            assert raw.json() == post(client, name, what, as_json_rows(FEATURES[name], ROWS[name]))

    def test_objects_and_arrays_give_the_same_answer(self, client, name):
        arrays = as_json_rows(FEATURES[name], ROWS[name])
        names = [feature.name for feature in FEATURES[name]]
        objects = [dict(zip(names, row, strict=True)) for row in arrays]
        for what in ("score", "explain", "reconstruct", "encode"):
            assert post(client, name, what, objects) == post(client, name, what, arrays)

    def test_contributions_sum_to_the_score(self, client, name):
        answer = post(client, name, "explain", as_json_rows(FEATURES[name], ROWS[name]))
        sums = [sum(each["contribution"] for each in row) for row in answer["explanations"]]
        np.testing.assert_allclose(sums, answer["score"], rtol=1e-5)

    def test_decoding_the_codes_of_rows_is_reconstructing_the_rows(self, client, name):
        rows = as_json_rows(FEATURES[name], ROWS[name])
        codes = post(client, name, "encode", rows)["codes"]
        decoded = client.post(f"/v1/models/{name}/decode", json={"codes": codes}).json()
        rebuilt = post(client, name, "reconstruct", rows)
        for one, other in zip(decoded["rows"], rebuilt["rows"], strict=True):
            assert (
                one == pytest.approx(other, rel=1e-5, abs=1e-6)
                if name == "plain"
                else one[1:3] == other[1:3]
            )
        assert rebuilt["filled"] == [[]] * 20

    def test_a_reconstructed_row_has_no_gaps_and_says_which_it_had(self, client, name):
        row = as_json_rows(FEATURES[name], ROWS[name])[0]
        answer = post(client, name, "reconstruct", [[None, *row[1:3], None]])
        names = [feature.name for feature in FEATURES[name]]
        assert answer["filled"] == [[names[0], names[3]]]
        assert None not in answer["rows"][0]


def test_top_limits_the_list_and_ten_is_the_default(client, tmp_path):
    wide = tuple(artifact.Feature(name=f"f{i}", kind="numeric") for i in range(12))
    publish(tmp_path, "wide", make_artifact(wide))
    with serving(tmp_path) as wide_client:
        rows = sample_rows(wide, 2).tolist()
        for query, length in (("", 10), ("?top=1", 1), ("?top=12", 12), ("?top=1000", 12)):
            answer = wide_client.post(f"/v1/explain{query}", json={"rows": rows}).json()
            assert [len(row) for row in answer["explanations"]] == [length, length]
        for query in ("?top=0", "?top=-1", "?top=x", "?top=1000001"):
            problem = wide_client.post(f"/v1/explain{query}", json={"rows": rows})
            assert problem.status_code == 400
            assert problem.json()["detail"].startswith("top: ")


def test_a_short_request_cannot_ask_for_an_answer_without_end(tmp_path):
    wide = tuple(artifact.Feature(name=f"f{i}", kind="numeric") for i in range(300))
    publish(
        tmp_path,
        "wide",
        make_artifact(wide, sampling=artifact.Sampling(kind="normal", noise=(0.0,) * 300)),
    )
    with serving(tmp_path) as client:
        raw = {
            "content": bytes(4 * 300 * 3500),
            "headers": {"content-type": "application/octet-stream"},
        }
        for what, request, sentence in (
            (
                "explain?top=1000",
                raw,
                "expected at most 262144 contributions in one answer, got 3500 rows of 300",
            ),
            (
                "sample",
                {"json": {"count": 30000}},
                "expected at most 8388608 values in one answer, got 30000 rows of 300",
            ),
            (
                "decode",
                {"json": {"codes": [[1, 2]] * 30000}},
                "expected at most 8388608 values in one answer",
            ),
        ):
            problem = client.post(f"/v1/{what}", **request)
            assert (problem.status_code, problem.json()["type"]) == (413, "/docs#too-many-rows")
            assert problem.json()["detail"].startswith(sentence)
        assert client.post("/v1/explain", **raw).status_code == 200
        assert len(client.post("/v1/sample", json={"count": 3}).json()["rows"]) == 3


def test_an_unseen_category_is_scored_as_stranger_than_any_known_one_and_shown_as_sent(client):
    rows = [[0.1, True, site, 0.2] for site in ("north", "south", "west", "atlantis")]
    answer = post(client, "mixed", "explain", rows)
    site = {
        n: next(each for each in row if each["feature"] == "site")
        for n, row in enumerate(answer["explanations"])
    }
    assert site[3]["actual"] == "atlantis"
    assert site[3]["expected"] in ("north", "south", "west")


def test_the_routes_without_a_name_are_those_of_the_only_model(tmp_path, client):
    publish(tmp_path, "pump", make_artifact())
    rows = sample_rows(NUMERIC, 2).tolist()
    with serving(tmp_path) as alone:
        for what in ("score", "explain", "reconstruct", "encode"):
            assert alone.post(f"/v1/{what}", json={"rows": rows}).json() == post(
                alone, "pump", what, rows
            )
        assert alone.post("/v1/decode", json={"codes": [[1, 2]]}).status_code == 200
    for what in ("score", "explain", "reconstruct", "encode", "decode"):
        problem = client.post(f"/v1/{what}", json={"rows": rows})
        assert problem.status_code == 404
        assert problem.json()["detail"].endswith("served are: mixed, plain")


def test_a_model_whose_code_is_not_enough_says_that_it_cannot_decode(tmp_path):
    publish(tmp_path, "pump", make_artifact(decodable=False))
    with serving(tmp_path) as client:
        assert client.get("/v1/models/pump").json()["can_decode"] is False
        problem = client.post("/v1/decode", json={"codes": [[1, 2]]})
        assert (problem.status_code, problem.json()["type"]) == (409, "/docs#not-decodable")


def test_large_bodies_are_scored_beside_the_loop_and_answer_the_same(models):
    rows_ND = sample_rows(NUMERIC, 3000, seed=8)
    with serving(models, inline_cells=100) as client:
        answer = post(client, "plain", "score", rows_ND.tolist())
        np.testing.assert_allclose(answer["score"], PLAIN_DETECTOR.score(rows_ND).score, rtol=1e-5)
        explained = post(client, "plain", "explain", rows_ND.tolist())
        assert explained["score"] == pytest.approx(answer["score"], rel=1e-5)


def test_nothing_but_finite_json_ever_leaves(client):
    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} in an answer")

    rows = [[1e38, 1e-38, -1e38, 3], [1, 2, 3, None], [1e15, 1, 1, 1]]
    for row in rows:
        for what in ("score", "explain", "reconstruct", "encode"):
            answer = client.post(f"/v1/models/plain/{what}", json={"rows": [row]})
            assert answer.status_code in (200, 422)
            json.loads(answer.text, parse_constant=refuse)
            if what == "score" and answer.status_code == 200:
                assert (
                    None
                    not in answer.json()["score"]
                    + answer.json()["ratio"]
                    + answer.json()["p_value"]
                )


RAW = "application/octet-stream"


@pytest.mark.parametrize("name", ["plain", "mixed"])
@pytest.mark.parametrize("body", ["json", "raw"])
def test_an_answer_as_mere_numbers_says_all_that_json_says(client, name, body):
    rows = as_json_rows(FEATURES[name], ROWS[name])
    raw = {"content": ROWS[name].astype("<f4").tobytes()}
    kind = {"content-type": RAW} if body == "raw" else {}
    answer = client.post(
        f"/v1/models/{name}/score",
        headers={"accept": RAW, **kind},
        **(raw if body == "raw" else {"json": {"rows": rows}}),
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, RAW)
    expected = post(client, name, "score", rows)
    scores_N2 = np.frombuffer(answer.content, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(
        scores_N2, np.array([expected["score"], expected["p_value"]], np.float32).T
    )
    assert (scores_N2[:, 0] > float(answer.headers["hourglass-threshold"])).tolist() == expected[
        "is_anomaly"
    ]
    fields = {"model", "version", "alpha", "delta", "certified", "guarantee", "threshold"}
    told = {field: answer.headers[f"hourglass-{field}"] for field in fields}
    assert told == {
        field: value if isinstance(value := expected[field], str) else json.dumps(value)
        for field in fields
    }


@pytest.mark.parametrize("name", ["plain", "mixed"])
@pytest.mark.parametrize("body", ["json", "raw"])
def test_codes_and_their_rows_may_be_mere_numbers(client, name, body):
    codes_NK = np.random.default_rng(0).normal(size=(5, 2)).astype("<f4")
    raw = {"content": codes_NK.tobytes(), "headers": {"accept": RAW, "content-type": RAW}}
    json_body = {"json": {"codes": codes_NK.tolist()}, "headers": {"accept": RAW}}
    answer = client.post(f"/v1/models/{name}/decode", **(raw if body == "raw" else json_body))
    assert (answer.status_code, answer.headers["content-type"]) == (200, RAW)
    rows_ND = np.frombuffer(answer.content, "<f4").reshape(5, 4)
    np.testing.assert_array_equal(rows_ND, DETECTORS[name].decode(codes_NK))
    assert answer.headers["hourglass-model"] == name
    assert answer.headers["hourglass-version"] == DETECTORS[name].version


@pytest.mark.parametrize(
    ("codes", "status", "told"),
    [
        ([], 400, "the body is empty, expected rows of float32"),
        ([1], 422, "expected a multiple of 8 bytes, 2 latent numbers of 4 bytes in each row, got 4"),
        ([0, 1, 2, np.nan], 400, "expected a finite number within float32 for 'code[1]', got nan in row 1"),
        ([np.inf, 1], 400, "for 'code[0]', got inf in row 0"),
        ([0, 1] * 200, 413, "expected at most 100 rows in one request, got 200"),
    ],
)  # fmt: skip
def test_mere_numbers_that_are_no_codes_are_named(client, codes, status, told):
    problem = client.post(
        "/v1/models/plain/decode",
        content=np.array(codes, "<f4").tobytes(),
        headers={"content-type": RAW},
    )
    assert problem.status_code == status
    assert told in problem.json()["detail"]


def test_a_variational_code_comes_with_its_deviation(client):
    rows = np.random.default_rng(0).uniform(size=(3, 64)).astype("<f4")
    name = "learn.digits-variational"
    answer = post(client, name, "encode", rows.tolist())
    detector = Detector.from_bytes((EXHIBITS / "digits-variational.onnx").read_bytes())
    expected = detector.encode_with_deviation(rows)
    np.testing.assert_allclose(answer["codes"], expected.code, rtol=1e-5)
    np.testing.assert_allclose(answer["deviations"], expected.deviation, rtol=1e-5)
    assert (np.array(answer["deviations"]) > 0).all()
    assert client.get(f"/v1/models/{name}").json()["has_deviation"]
    assert "deviations" not in post(client, "plain", "encode", ROWS["plain"].tolist())
    assert not client.get("/v1/models/plain").json()["has_deviation"]


def test_a_problem_is_json_whatever_was_to_come(client):
    problem = client.post(
        "/v1/models/plain/score", headers={"accept": RAW}, json={"rows": [[1, 2, 3]]}
    )
    assert (problem.status_code, problem.headers["content-type"]) == (
        422,
        "application/problem+json",
    )


@pytest.mark.parametrize("what", ["explain", "reconstruct", "encode", "sample"])
def test_the_other_routes_refuse_who_takes_mere_numbers_alone(client, what):
    for accept, status in (
        (RAW, 406),
        (f"{RAW}, application/json;q=0", 406),
        (f"{RAW}, */*;q=0.1", 200),
        ("*/*", 200),
    ):
        body = (
            {"codes": [[1, 2]]}
            if what == "decode"
            else {}
            if what == "sample"
            else {"rows": ROWS["plain"].tolist()}
        )
        answer = client.post(f"/v1/models/plain/{what}", headers={"accept": accept}, json=body)
        if what == "sample" and status == 200:
            status = 409  # of this model
        assert answer.status_code == status
        if status == 406:
            problem = answer.json()
            assert (answer.headers["content-type"], problem["type"]) == (
                "application/problem+json",
                "/docs#not-acceptable",
            )
            assert problem["detail"].startswith(
                f"/v1/models/plain/{what} answers in application/json alone"
            )


class TestReasons:
    ROWS = ([0.1, True, "north", 0.2], [300, True, "north", 0.2], [0.1, True, "mars", -90])

    @pytest.fixture
    def answer(self, tmp_path):
        publish(tmp_path, "reasoned", make_artifact(MIXED, conditional=True))
        with serving(tmp_path) as client:
            return post(client, "reasoned", "explain", self.ROWS)

    def test_a_row_that_alarms_has_a_sentence_and_another_has_none(self, answer):
        assert answer["is_anomaly"] == [False, True, True]
        assert answer["reason"][0] is None
        assert answer["reason"][1] == (
            "load is 300 kW where 0.6 ± 0.8 kW was expected (374 sd too high)"
        )
        assert answer["reason"][2] == ("heat is -90 °C where 0 ± 1 °C was expected (90 sd too low)")

    def test_the_value_to_blame_comes_first_with_what_was_expected_and_how_sure_that_is(
        self, answer
    ):
        first = answer["explanations"][1][0]
        assert (first["feature"], first["actual"], first["unit"]) == ("load", 300.0, "kW")
        assert (first["direction"], first["blamed"], first["probability"]) == ("high", True, None)
        assert first["expected"] == pytest.approx(0.6, rel=1e-4)
        assert first["expected_sd"] == pytest.approx(0.8, rel=1e-4)
        assert first["deviation"] == pytest.approx((300 - 0.6) / 0.8, rel=1e-4)
        assert not any(each["blamed"] for each in answer["explanations"][1][1:])

    def test_of_a_category_the_likeliest_is_expected_with_its_probability(self, answer):
        for row, actual in ((0, "north"), (2, "mars")):
            site = next(each for each in answer["explanations"][row] if each["feature"] == "site")
            assert site["actual"] == actual
            assert site["expected"] in ("north", "south", "west")
            assert site["probability"] == pytest.approx(1 / 3, rel=1e-3)
            assert (site["expected_sd"], site["deviation"], site["direction"]) == (None,) * 3

    def test_a_model_of_format_1_0_explains_as_before(self, client):
        rows = as_json_rows(NUMERIC, ROWS["plain"])
        answer = post(client, "plain", "explain", rows)
        explanation = PLAIN_DETECTOR.explain(ROWS["plain"])
        assert answer["reason"] == [None] * 20
        for n, row in enumerate(answer["explanations"]):
            names = [each["feature"] for each in row]
            order = np.argsort(-explanation.contributions[n], kind="stable")
            assert names == [NUMERIC[d].name for d in order]
            assert set(row[0]) == {"feature", "contribution", "share", "actual", "expected"}
            expected = {each["feature"]: each["expected"] for each in row}
            for d, feature in enumerate(NUMERIC):
                assert expected[feature.name] == pytest.approx(
                    float(explanation.reconstruction[n, d]), rel=1e-5
                )

    def test_a_row_too_far_out_is_refused_before_it_is_searched(self, tmp_path):
        publish(tmp_path, "reasoned", make_artifact(conditional=True))
        with serving(tmp_path) as client:
            problem = client.post("/v1/explain", json={"rows": [[3e38, -3e38, 3e38, 0]]})
        assert problem.status_code == 422

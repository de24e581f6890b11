"""A windowed model over HTTP, by the fast path and the ordinary one."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.service.model.detector import Detector
from tests.artifacts import (
    MIXED,
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.serving import serving, wait_until

RAW = {"content-type": "application/octet-stream"}
ROWS = sample_rows(NUMERIC, 12, seed=5)
JSON_ROWS = as_json_rows(NUMERIC, ROWS)
PER_ROW = ("score", "ratio", "p_value", "severity", "extrapolated", "is_anomaly")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "pump", make_windowed_artifact(gap=10.0))
    publish(folder, "mixed", make_windowed_artifact(MIXED))
    publish(folder, "single", make_artifact())
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "ordinary"])
def client(request: pytest.FixtureRequest, models: Path) -> httpx.Client:
    with serving(models, fast=request.param, max_rows=50_000) as running:
        yield running


@pytest.fixture(scope="module")
def both(models: Path) -> list[httpx.Client]:
    kind = {"content-type": "application/json"}
    with serving(models, fast=True) as fast, serving(models) as ordinary:
        for client in (fast, ordinary):
            client.headers.update(kind)
        yield [fast, ordinary]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_bytes(make_windowed_artifact(gap=10.0))


def ask(client: httpx.Client, what: str = "score", model: str = "pump", **body: object):
    return client.post(f"/v1/models/{model}/{what}", json=body)


def as_float32(values: list[float | None]) -> np.ndarray:
    return np.array(values, np.float32)  # None becomes NaN


def test_the_first_rows_are_warming_and_the_others_answered_as_by_the_detector(client, detector):
    answer = ask(client, rows=JSON_ROWS).json()
    scores = detector.score(ROWS)
    assert answer["warming"] == [True] * 3 + [False] * 9
    for name in PER_ROW:
        assert answer[name][:3] == [None] * 3
    for name, expected_N in scores._asdict().items():
        np.testing.assert_array_equal(as_float32(answer[name])[3:], expected_N)
    np.testing.assert_array_equal(
        answer["is_anomaly"][3:], detector.threshold.is_anomaly(scores.score)
    )


def test_entities_are_mixed_and_each_has_its_windows(client, detector):
    answer = ask(client, rows=JSON_ROWS, entity=list("ab") * 6, time=list(range(12))).json()
    for place in range(2):
        expected = detector.score(ROWS[place::2]).score
        np.testing.assert_array_equal(as_float32(answer["score"])[place::2][3:], expected)
    assert answer["warming"] == [True] * 6 + [False] * 6


def test_after_a_gap_a_model_warms_anew(client):
    time = [*range(6), *range(30, 36)]
    answer = ask(client, rows=JSON_ROWS, entity="a", time=time).json()
    assert answer["warming"] == ([True] * 3 + [False] * 3) * 2


def test_fewer_rows_than_a_window_are_all_warming(client):
    answer = ask(client, rows=JSON_ROWS[:2]).json()
    assert (answer["warming"], answer["score"]) == ([True, True], [None, None])


def test_rows_with_too_few_values_are_null_and_not_refused(client):
    rows = [*JSON_ROWS[:5], [None] * 4, *JSON_ROWS[6:]]
    answer = ask(client, rows=rows).json()
    assert [score is None for score in answer["score"]] == [True] * 3 + [False] * 2 + [True] + [
        False
    ] * 6
    assert answer["warming"][5] is False


def test_both_paths_give_the_same_bytes(models: Path):
    bodies = [
        {"rows": JSON_ROWS},
        {"rows": JSON_ROWS, "entity": list("ab") * 6, "time": [*range(12)]},
        {"rows": JSON_ROWS, "entity": "a", "time": [3, 2, *range(10)]},
        {"rows": JSON_ROWS[:1], "entity": 5},
        {"rows": []},
        {"rows": JSON_ROWS * 500, "entity": [str(n % 5) for n in range(6000)]},
    ]
    found = []
    for fast in (True, False):
        with serving(models, fast=fast) as client:
            answers = [ask(client, **body) for body in bodies]
            for accept in ("*/*", "application/octet-stream"):
                headers = {**RAW, "accept": accept}
                path = "/v1/models/pump/score"
                answers.append(client.post(path, content=ROWS.tobytes(), headers=headers))
            found.append([(each.status_code, each.content) for each in answers])
    assert [status for status, _ in found[0]] == [200, 200, 422, 422, 400, 200, 200, 200]
    assert found[0] == found[1]


SAID = st.one_of(
    st.none(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.sampled_from(["a", "b", "2026-03-04", "2026-03-04T01:02:03.5+01:00", "now", "\ud800"]),
    st.integers(-(2**70), 2**70),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(SAID, max_size=8) | SAID,
    st.lists(SAID, max_size=8) | SAID | st.lists(st.integers(0, 99), min_size=5, max_size=5),
)
def test_whatever_is_said_of_the_order_is_answered_or_refused_by_both_alike(both, entity, time):
    body = {"rows": JSON_ROWS[:5], "entity": entity, "time": time}
    answers = [client.post("/v1/models/pump/score", content=json.dumps(body)) for client in both]
    for field in ("entity", "time"):
        part = {name: value for name, value in body.items() if name != field}
        answers += [
            client.post("/v1/models/pump/score", content=json.dumps(part)) for client in both
        ]
    found = [(answer.status_code, answer.content) for answer in answers]
    assert found[::2] == found[1::2]
    assert {status for status, _ in found} <= {200, 400, 422}


def test_a_body_of_float32_is_one_entitys_and_nan_where_nothing_is_judged(client, detector):
    path, headers = "/v1/models/pump/score", {**RAW, "accept": "application/octet-stream"}
    answer = client.post(path, content=ROWS.tobytes(), headers=headers)
    found_N2 = np.frombuffer(answer.content, "<f4").reshape(-1, 2)
    scores = detector.score(ROWS)
    assert np.isnan(found_N2[:3]).all()
    np.testing.assert_array_equal(found_N2[3:], np.stack((scores.score, scores.p_value), axis=1))
    assert float(answer.headers["hourglass-threshold"]) == detector.threshold.score


def test_a_large_body_is_answered_as_its_rows_are(client, detector):
    rows_ND = sample_rows(NUMERIC, 20_000, seed=8)
    body = {
        "rows": as_json_rows(NUMERIC, rows_ND),
        "entity": ["a", "b"] * 10_000,
        "time": [n // 2 for n in range(20_000)],
    }
    answer = ask(client, **body).json()
    for place in range(2):
        found = as_float32(answer["score"])[place::2][3:]
        np.testing.assert_array_equal(found, detector.score(rows_ND[place::2]).score)


@pytest.mark.parametrize("what", ["score", "explain", "reconstruct", "encode", "replay"])
def test_what_is_wrong_names_row_and_entity(client, what):
    back = ask(client, what, rows=JSON_ROWS[:3], entity="m1", time=[5, 6, 4])
    assert back.status_code == 422
    assert back.json()["row"] == 2
    assert (
        'of entity "m1" in order of time, got row 2 at 4 after row 1 at 6' in back.json()["detail"]
    )
    assert ask(client, what, rows=JSON_ROWS[:3], time=[5, 6, "x"]).json()["row"] == 2
    assert ask(client, what, rows=JSON_ROWS[:3], entity=["a", "b", 3]).json()["row"] == 2
    assert ask(client, what, rows=JSON_ROWS[:3], entities="a").status_code == 400
    single = ask(client, what, "single", rows=JSON_ROWS[:3], entity="a")
    assert single.status_code == 422
    assert "the model scores single rows, which have no entity" in single.json()["detail"]


def test_a_value_too_far_out_is_refused_with_the_row_that_it_spoils(client):
    rows = [row[:] for row in JSON_ROWS]
    rows[7][0] = 3e38
    answer = ask(client, rows=rows)
    assert (answer.status_code, answer.json()["row"]) == (422, 7)
    assert "beyond float32" in answer.json()["detail"]


def test_explaining_blames_the_feature_and_says_what_the_rows_before_let_expect(client):
    rows = [[0.0] * 4 for _ in range(8)]
    rows[6][1] = 9.0
    answer = ask(client, "explain?top=1", rows=rows, entity="a", time=list(range(8))).json()
    assert answer["reason"][6] == "b is 9 where 0 ± 1 was expected (9 sd too high)"
    assert answer["reason"][:3] == answer["explanations"][:3] == [None] * 3
    (cell,) = answer["explanations"][6]
    assert (cell["feature"], cell["actual"], cell["expected"]) == ("b", 9.0, 0.0)
    assert (cell["blamed"], cell["expected_sd"], cell["direction"]) == (True, 1.0, "high")
    scored = ask(client, rows=rows, entity="a", time=list(range(8))).json()
    assert {name: answer[name] for name in scored} == scored


def test_categories_come_back_as_they_came(client):
    rows = as_json_rows(MIXED, sample_rows(MIXED, 6))
    rows[5][2], rows[5][0] = "elsewhere", 50.0
    answer = ask(client, "explain", "mixed", rows=rows, entity=["a"] * 6).json()
    cells = {cell["feature"]: cell for cell in answer["explanations"][5]}
    assert cells["site"]["actual"] == "elsewhere"
    assert cells["load"]["blamed"]
    assert cells["open"]["probability"] is not None


def test_reconstructing_and_encoding_are_null_while_warming(client, detector):
    rows = [*JSON_ROWS[:5], [None, *JSON_ROWS[5][1:]]]
    rows_ND = ROWS[:6].copy()
    rows_ND[5, 0] = np.nan
    answer = ask(client, "reconstruct", rows=rows).json()
    assert answer["rows"][:3] == answer["filled"][:3] == [None] * 3
    assert answer["filled"][3:] == [[], [], ["a"]]
    np.testing.assert_array_equal(as_float32(answer["rows"][3:]), detector.reconstruct(rows_ND))
    answer = ask(client, "encode", rows=rows).json()
    assert answer["codes"][:3] == [None] * 3
    np.testing.assert_array_equal(as_float32(answer["codes"][3:]), detector.encode(rows_ND))
    assert ask(client, "encode", rows=rows[:2]).json()["codes"] == [None, None]
    assert ask(client, "reconstruct", rows=rows[:2]).json()["rows"] == [None, None]


def test_it_neither_decodes_nor_makes_up_rows(client):
    answer = ask(client, "decode", codes=[[0, 0]])
    assert answer.status_code == 409
    assert "needs the rows before as well as the code" in answer.json()["detail"]
    answer = ask(client, "sample", count=1)
    assert answer.status_code == 409
    assert "looks at 4 rows in order, and makes up none" in answer.json()["detail"]


def test_a_replay_counts_judged_rows_and_its_episodes_are_an_entitys(client):
    rows = np.zeros((20, 4), np.float32)
    rows[[12, 13, 14, 16]] = 30.0  # of entity a 12, 14 and 16, of entity b 13
    answer = ask(
        client,
        "replay",
        rows=rows.tolist(),
        entity=list("ab") * 10,
        time=list(range(20)),
        alphas=[0.05],
        labels=[0] * 20,
    ).json()
    assert answer["warming"] == [True] * 6 + [False] * 14
    (outcome,) = answer["alphas"]
    assert outcome["alarm_rate"] == pytest.approx(outcome["alarms"] / 14)
    assert outcome["false_alarm_rate"] == outcome["alarm_rate"]
    firsts = {episode["first"]: episode for episode in outcome["episodes"]}
    assert set(firsts) == {12, 13}
    assert all((episode["last"] - first) % 2 == 0 for first, episode in firsts.items())


def test_the_model_says_what_it_looks_at(client):
    told = client.get("/v1/models/pump").json()["window"]
    assert told == {"rows": 4, "representation": "residual", "interval": None, "gap": 10.0}
    assert client.get("/v1/models/single").json()["window"] is None


def test_the_open_inference_protocol_takes_one_series_and_answers_of_its_windows(client, detector):
    def infer(rows_ND: np.ndarray, *outputs: str) -> httpx.Response:
        features = {"name": "features", "datatype": "FP32", "data": rows_ND.tolist()}
        inputs = [{**features, "shape": list(rows_ND.shape)}]
        body = {"inputs": inputs, "outputs": [{"name": name} for name in outputs]}
        return client.post("/v2/models/pump/infer", json=body)

    for outputs in (("score",), ("score", "contributions"), ("latent", "reconstruction")):
        found = {each["name"]: each for each in infer(ROWS, *outputs).json()["outputs"]}
        expected = {
            **detector.explain(ROWS)._asdict(),
            "score": detector.score(ROWS).score,
            "latent": detector.encode(ROWS),
        }
        for name in outputs:
            assert found[name]["shape"] == list(expected[name].shape)
            np.testing.assert_array_equal(as_float32(found[name]["data"]), expected[name].ravel())
    answer = infer(ROWS[:3], "score")
    assert answer.status_code == 422
    assert "expected at least 4 rows" in answer.json()["error"]


def test_metrics_and_alarms_count_judged_rows_and_know_the_entity(models: Path):
    rows = np.zeros((8, 4), np.float32)
    rows[6, 1] = 9.0
    rows[7] = np.nan
    sent = [[None if cell != cell else cell for cell in row] for row in rows.tolist()]
    with serving(models) as client:
        ask(client, rows=[*sent, *sent[:2]], entity=["m1"] * 8 + ["m2"] * 2)
        metrics = client.get("/metrics").text
        assert 'hourglass_vectors_total{model="pump"} 4.0' in metrics
        assert 'hourglass_anomalies_total{model="pump"} 1.0' in metrics
        wait_until(lambda: client.get("/v1/models/pump/alarms").json()["groups"])
        (group,) = client.get("/v1/models/pump/alarms").json()["groups"]
    assert (group["entity"], group["features"], group["count"]) == ("m1", ["b"], 1)


def test_a_journal_keeps_the_row_and_says_what_was_expected(models: Path, tmp_path: Path):
    rows = np.zeros((7, 4), np.float32)
    rows[6, 1] = 9.0
    with serving(models, journal=tmp_path / "alarms.sqlite") as client:
        ask(client, rows=rows.tolist(), entity="m1")
        wait_until(lambda: client.get("/v1/models/pump/alarms").json()["groups"])
        (group,) = client.get("/v1/models/pump/alarms").json()["groups"]
        (alarm,) = client.get(f"/v1/models/pump/alarms/{group['key']}").json()["alarms"]
    assert alarm["sentence"] == "b is 9 where 0 ± 1 was expected (9 sd too high)"
    assert alarm["row"] == [0.0, 9.0, 0.0, 0.0]


def test_too_large_an_explanation_is_refused(models: Path):
    publish(models, "long", make_windowed_artifact(rows=1000, calibration_rows=60))
    rows_ND = sample_rows(NUMERIC, 1100)
    with serving(models, max_rows=2000) as client:
        answer = ask(client, "explain", "long", rows=as_json_rows(NUMERIC, rows_ND))
    assert answer.status_code == 413
    assert "values of windows" in json.loads(answer.content)["detail"]

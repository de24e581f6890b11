"""Rows that are sent are held against other budgets: the alarms are those that score answers."""

import json

import numpy as np
import pytest

from hourglass.service.model.intervals import interval_of
from tests.artifacts import MIXED, NUMERIC, as_json_rows, make_artifact, publish, sample_rows
from tests.serving import serving

ROWS = sample_rows(NUMERIC, 60, seed=4)
ROWS[20:25] *= 9
RAW = {"content-type": "application/octet-stream"}


def replay(client, body, **query):
    return client.post("/v1/models/plain/replay", json=body, params=query)


def test_the_alarms_of_each_budget_are_those_that_score_answers_under_it(models):
    rows = {"rows": ROWS.tolist()}
    with serving(models, poll_seconds=3600) as client:
        answer = replay(client, {**rows, "alphas": [0.1, 0.05, 0.02]}).raise_for_status().json()
        for outcome in answer["alphas"]:
            client.patch("/v1/models/plain", json={"alpha": outcome["alpha"]}).raise_for_status()
            scored = client.post("/v1/models/plain/score", json=rows).json()
            assert outcome["alarm_rows"] == np.flatnonzero(scored["is_anomaly"]).tolist()
            assert (outcome["threshold"], outcome["delta"]) == (scored["threshold"], 0.05)
            assert {name: answer[name] for name in ("score", "p_value", "severity")} == {
                name: scored[name] for name in ("score", "p_value", "severity")
            }
            over = np.array(answer["severity"], np.float32) > np.float32(outcome["severity_limit"])
            assert np.flatnonzero(over).tolist() == outcome["alarm_rows"]
        in_force = [each["in_force"] for each in replay(client, rows).json()["alphas"]]
        assert in_force == [False, False, True, False]


def test_objects_and_float32_are_read_as_score_reads_them(client):
    expected = replay(client, {"rows": ROWS.tolist(), "alphas": [0.1]}).json()
    objects = [dict(zip("abcd", row, strict=True)) for row in ROWS.tolist()]
    assert replay(client, {"rows": objects, "alphas": [0.1]}).json() == expected
    raw = client.post(
        "/v1/models/plain/replay", content=ROWS.tobytes(), headers=RAW, params={"alpha": 0.1}
    )
    assert raw.json() == expected
    mixed = as_json_rows(MIXED, sample_rows(MIXED, 5))
    assert client.post("/v1/models/mixed/replay", json={"rows": mixed}).json()["rows"] == 5


def test_labels_give_precision_and_recall(client):
    labels = [int(20 <= row < 25) for row in range(60)]
    body = {"rows": ROWS.tolist(), "alphas": [0.05], "labels": labels, "rows_per_day": 600}
    (found,) = replay(client, body).json()["alphas"]
    hits = len({*found["alarm_rows"]} & {*range(20, 25)})
    assert found["recall"] == hits / 5
    assert found["precision"] == hits / found["alarms"]
    assert found["recall_interval"] == pytest.approx(interval_of(hits, 5))
    assert found["false_alarm_rate"] == (found["alarms"] - hits) / 55
    assert found["alarms_per_day"] == 10 * found["alarms"]
    body["labels"] = [None, True, False] + [None] * 57
    assert replay(client, body).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"rows": [[1, 2, 3]]}, 422, "expected 4 features, got 3 in row 0"),
        ({"rows": [[1, 2, 3, "x"]], "alphas": [0.1]}, 422, "expected a number or null for 'd'"),
        ({"rows": [], "alphas": [0.1]}, 400, "expected at least one row in 'rows', got none"),
        ({"alphas": [0.1]}, 400, "missing required field `rows`"),
        ({"rows": [[1, 2, 3, 4]], "alphas": []}, 400, "Expected `array` of length >= 1"),
        ({"rows": [[1, 2, 3, 4]], "alphas": [0.7]}, 400, "Expected `float` <= 0.5"),
        ({"rows": [[1, 2, 3, 4]], "alpha": 0.1}, 400, "unknown field `alpha`"),
        ({"rows": [[1, 2, 3, 4]], "alphas": [0.001]}, 409, "alpha = 0.001 cannot be certified"),
        ({"rows": [[1, 2, 3, 4]], "labels": []}, 400, "a label for each of 1 rows, got 0"),
        ({"rows": [[1, 2, 3, 4]], "labels": [2]}, 400, "0, 1 or null as the label of row 0, got 2"),
        ({"rows": [[3e38, -3e38, 3e38, 0]]}, 422, "beyond float32"),
        ({"rows": [[1, 2, 3, 4]] * 101}, 413, "expected at most 100 rows in one request, got 101"),
    ],
)
def test_what_is_wrong_is_said(client, body, status, said):
    answer = replay(client, body)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"rows":[[1,2,3,NaN]]}', "expected a finite number within float32 for 'd', got NaN"),
        (b'{"rows":[[1,2,3,4]', "the body is not JSON"),
        (b"", "the body is empty"),
    ],
)
def test_what_is_no_json_is_said_as_score_says_it(client, content, said):
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/models/plain/replay", content=content, headers=headers)
    assert (answer.status_code, said in answer.json()["detail"]) == (400, True), answer.text


def test_a_large_body_with_labels_is_read_whole(tmp_path):
    publish(tmp_path, "plain", make_artifact())
    rows_ND = sample_rows(NUMERIC, 30_000, seed=9)
    body = json.dumps({"labels": [0] * 30_000, "rows": rows_ND.round(3).tolist(), "alphas": [0.05]})
    headers = {"content-type": "application/json"}
    with serving(tmp_path) as client:
        answer = client.post("/v1/models/plain/replay", content=body, headers=headers).json()
        (found,) = answer["alphas"]
        assert found["alarms"] == round(found["false_alarm_rate"] * 30_000)
        assert found["alarm_rate"] == pytest.approx(found["promised"], rel=0.5)
        many = {"rows": rows_ND[:, :].round(2).tolist(), "alphas": [0.05] * 64}
        refused = client.post("/v1/models/plain/replay", json=many)
        assert refused.status_code == 413

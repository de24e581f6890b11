"""A model of entities with baselines over HTTP: every answer of rows in order knows whose they are,
and says so.
"""

from pathlib import Path

import httpx
import numpy as np
import pytest

from hourglass.service.model.detector import Detector
from tests.artifacts import NUMERIC, make_windowed_artifact, publish, sample_rows
from tests.serving import serving, wait_until

ENTITIES = {"a": (100.0, 5.0), "b": (-3.0, 0.125)}
SAID = {"a": "b is 250 where ", "b": "b is 0.75 where -", "new": "b is 30 where "}
NAMES = ["a", "b", "new"]  # the last has no baseline
WINDOW, ROWS = 4, 20
T0 = 1_760_000_000.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "fleet", make_windowed_artifact(rows=WINDOW, entities=ENTITIES))
    publish(folder, "plain", make_windowed_artifact(rows=WINDOW))
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "ordinary"])
def client(request: pytest.FixtureRequest, models: Path) -> httpx.Client:
    with serving(models, fast=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_bytes(make_windowed_artifact(rows=WINDOW, entities=ENTITIES))


def rows_of(name: str) -> np.ndarray:
    """Of each entity the same rows, in its own units; one alarms."""
    rows_TD = 0.1 * sample_rows(NUMERIC, ROWS, seed=5)
    rows_TD[12, 1] = 30.0
    center, scale = ENTITIES.get(name, (0.0, 1.0))
    return (center + scale * rows_TD).astype(np.float32)


MIXED_ROWS = np.stack([rows_of(name) for name in NAMES], axis=1).reshape(-1, 4)
BODY = {"rows": MIXED_ROWS.tolist(), "entity": NAMES * ROWS}


def ask(client: httpx.Client, what: str, model: str = "fleet", **body: object) -> dict:
    answer = client.post(f"/v1/models/{model}/{what}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def as_float32(values: list) -> np.ndarray:
    return np.array(values, np.float32)  # None becomes NaN


def test_mixed_rows_are_judged_each_by_its_entitys_baseline(client, detector):
    answers = [ask(client, what, **BODY) for what in ("score", "explain", "replay")]
    for answer in answers:
        assert answer["known_entity"] == [True, True, False] * ROWS
        for place, name in enumerate(NAMES):
            expected = detector.of(name).score(rows_of(name)).score
            found = as_float32(answer["score"])[place::3][WINDOW - 1 :]
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    scores = as_float32(answers[0]["score"]).reshape(ROWS, 3)
    np.testing.assert_allclose(scores[:, 0], scores[:, 2], rtol=1e-3)
    for reason, name in zip(answers[1]["reason"][12 * 3 : 12 * 3 + 3], NAMES, strict=True):
        assert reason.startswith(SAID[name])


def test_codes_and_reconstructions_are_the_entitys(client, detector):
    clean, codes = (ask(client, what, **BODY) for what in ("reconstruct", "encode"))
    assert clean["known_entity"] == codes["known_entity"] == [True, True, False] * ROWS
    for place, name in enumerate(NAMES):
        own = detector.of(name)
        np.testing.assert_allclose(
            as_float32(clean["rows"][place::3][WINDOW - 1 :]),
            own.reconstruct(rows_of(name)),
            rtol=1e-4,
            atol=1e-4,
        )
        np.testing.assert_allclose(
            as_float32(codes["codes"][place::3][WINDOW - 1 :]),
            own.encode(rows_of(name)),
            rtol=1e-4,
            atol=1e-4,
        )


def test_rows_without_an_entity_are_nobodys_and_plain_models_say_nothing(client, detector):
    answer = ask(client, "score", rows=rows_of("a").tolist())
    assert answer["known_entity"] == [False] * ROWS
    np.testing.assert_allclose(
        as_float32(answer["score"][WINDOW - 1 :]), detector.score(rows_of("a")).score, rtol=1e-5
    )
    for what in ("score", "explain", "reconstruct", "encode", "replay"):
        assert "known_entity" not in ask(client, what, "plain", **BODY)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_is_answered_as_the_batch_is(client, detector, name):
    scores, events = [], []
    for n, row in enumerate(rows_of(name).tolist()):
        path = f"streams/{name}"
        answer = ask(client, path, rows=[row], time=[T0 + 60 * n])
        assert answer["known_entity"] is (name != "new")
        scores += answer["score"]
        events += answer["changes"]
    client.delete(f"/v1/models/fleet/streams/{name}")
    expected = detector.of(name).score(rows_of(name)).score
    np.testing.assert_allclose(as_float32(scores)[WINDOW - 1 :], expected, rtol=1e-5)
    opened = [each for each in events if each["open"]]
    assert opened[0]["features"] == ["b"]
    assert opened[0]["sentence"].startswith(SAID[name])


def test_a_stream_of_a_plain_model_says_nothing_of_it(client):
    answer = ask(client, "streams/a", "plain", rows=[[0.0] * 4], time=[T0])
    assert "known_entity" not in answer
    client.delete("/v1/models/plain/streams/a")


def test_the_model_says_how_many_entities_it_knows(client):
    assert client.get("/v1/models/fleet").json()["baseline"] == {"entities": 2}
    assert client.get("/v1/models/plain").json()["baseline"] is None


def test_the_open_inference_protocol_judges_by_the_fleets_baseline_and_says_so(client, detector):
    rows_TD = rows_of("new")
    features = {"name": "features", "datatype": "FP32", "shape": list(rows_TD.shape)}
    body = {"inputs": [{**features, "data": rows_TD.tolist()}]}
    answer = client.post("/v2/models/fleet/infer", json=body).json()
    assert answer["parameters"]["known_entity"] is False
    np.testing.assert_allclose(
        as_float32(answer["outputs"][0]["data"]), detector.score(rows_TD).score, rtol=1e-5
    )
    plain = client.post("/v2/models/plain/infer", json=body).json()
    assert "known_entity" not in plain["parameters"]


def test_alarms_are_told_in_the_units_of_their_entity(models: Path, tmp_path: Path):
    until = 13 * len(NAMES)  # the rows that alarm are the last ones
    with serving(models, journal=tmp_path / "alarms.sqlite") as client:
        ask(client, "score", rows=BODY["rows"][:until], entity=BODY["entity"][:until])
        wait_until(lambda: len(client.get("/v1/models/fleet/alarms").json()["groups"]) == 3)
        said = {}
        for group in client.get("/v1/models/fleet/alarms").json()["groups"]:
            assert group["features"] == ["b"]
            (alarm,) = client.get(f"/v1/models/fleet/alarms/{group['key']}").json()["alarms"]
            said[group["entity"]] = alarm["sentence"]
    assert set(said) == set(NAMES)
    # a journal that is short of time explains one alarm at least, not all
    told = {name: sentence for name, sentence in said.items() if sentence}
    assert told
    assert all(sentence.startswith(SAID[name]) for name, sentence in told.items())

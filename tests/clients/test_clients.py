"""Clients that exist speak to the service unchanged: every call they offer that the protocol names,
with /v1's values.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hourglass.service import VERSION
from tests.artifacts import NUMERIC, make_artifact, publish, sample_rows
from tests.environment import ensure
from tests.serving import serving

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / "build" / "clients"
NAME = "pump"
ONES = [[1, 0, 1, 1], [0, 1, 1, 0]]
OUTPUTS = ["latent", "score", "contributions", "reconstruction", "severity", "p_value"]
THRESHOLD = {"alpha", "delta", "certified", "guarantee", "threshold"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    publish(folder, NAME, make_artifact())
    with serving(folder, max_body_bytes=20_000) as client:
        yield client


@pytest.fixture(scope="module")
def request_to_client(service: httpx.Client) -> dict[str, Any]:
    """What a client's script is told: where, which model, and six rows, one of them with a missing
    value.
    """
    rows = sample_rows(NUMERIC, 6, seed=3).tolist()
    rows[4][1] = None
    version = service.get(f"/v1/models/{NAME}").json()["version"]
    return {"url": service.base_url.netloc.decode(), "name": NAME, "version": version, "rows": rows}


@pytest.fixture(scope="module")
def expected(service: httpx.Client, request_to_client: dict[str, Any]) -> dict[str, Any]:
    """By output, /v1's answers for those rows."""
    rows = {"rows": request_to_client["rows"]}
    answer = {
        what: service.post(f"/v1/{what}", json=rows).json()
        for what in ("explain", "reconstruct", "encode")
    }
    contributions = [
        [each["contribution"] for each in sorted(row, key=lambda each: each["feature"])]
        for row in answer["explain"]["explanations"]
    ]
    return {
        "score": answer["explain"]["score"],
        "p_value": answer["explain"]["p_value"],
        "severity": answer["explain"]["severity"],
        "contributions": contributions,
        "reconstruction": answer["reconstruct"]["rows"],
        "latent": answer["encode"]["codes"],
    }


@pytest.fixture(scope="module")
def score_of_ones(service: httpx.Client) -> list[float]:
    """The scores of two rows that every datatype can hold."""
    return service.post("/v1/score", json={"rows": ONES}).json()["score"]


def speak(client: str, request: dict[str, Any]) -> dict[str, Any]:
    """What <client>_calls.py, run in the client's environment, makes of the request."""
    interpreter = ensure(ENVIRONMENTS / client, HERE / f"{client}.txt", f"{client}'s")
    done = subprocess.run(
        [interpreter, "-B", HERE / f"{client}_calls.py"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same(outputs: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, values in outputs.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def tritonclient(request_to_client: dict[str, Any]) -> dict[str, Any]:
    return speak("tritonclient", request_to_client)


@pytest.mark.parametrize("variant", ["http", "http.aio"])
class TestTritonclient:
    def test_it_sees_server_and_model_live_and_ready(self, tritonclient, variant):
        said = tritonclient[variant]
        assert said["is_server_live"] is said["is_server_ready"] is True
        assert said["is_model_ready"] is said["is_model_ready of the version"] is True
        assert (
            said["is_model_ready of another version"]
            is said["is_model_ready of another model"]
            is False
        )

    def test_it_reads_what_the_server_is(self, tritonclient, variant):
        expected = {"name": "hourglass", "version": VERSION, "extensions": ["binary_tensor_data"]}
        assert tritonclient[variant]["get_server_metadata"] == expected

    def test_it_reads_what_the_model_takes_and_gives(
        self, tritonclient, variant, request_to_client
    ):
        said, version = tritonclient[variant], request_to_client["version"]
        shapes = {
            "score": [-1],
            "p_value": [-1],
            "severity": [-1],
            "contributions": [-1, 4],
            "reconstruction": [-1, 4],
            "latent": [-1, 2],
        }
        assert said["get_model_metadata"] == said["get_model_metadata of the version"]
        assert said["get_model_metadata"] == {
            "name": NAME,
            "versions": [version],
            "platform": "onnx",
            "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": shape} for name, shape in shapes.items()
            ],
        }

    def test_it_shows_the_sentence_of_an_error(self, tritonclient, variant, request_to_client):
        said, version = tritonclient[variant], request_to_client["version"]
        assert said["get_model_metadata of another version"] == {
            "status": "404",
            "message": f"model 'pump' has no version '1' in service, the one served is {version}",
        }
        assert said["get_model_metadata of another model"] == {
            "status": "404",
            "message": "no model 'nobody' is served; served are: pump",
        }
        assert said["infer another shape"] == {
            "status": "422",
            "message": (
                "expected the shape [rows, 4] of 'features', one column for each feature, got"
                " [6, 2]"
            ),
        }
        assert said["infer too much once decompressed"] == {
            "status": "413",
            "message": "expected a body of at most 20000 bytes once decompressed, got more",
        }

    def test_it_infers_scores_of_the_version_and_gets_its_id_back(
        self, tritonclient, variant, expected, request_to_client
    ):
        said = tritonclient[variant]
        assert_same(said["infer"], expected)
        response = said["response"]
        assert (response["id"], response["model_name"]) == ("first", NAME)
        assert response["model_version"] == request_to_client["version"]
        assert response["parameters"].keys() == THRESHOLD
        assert [output["name"] for output in response["outputs"]] == ["score", "p_value"]

    def test_it_infers_every_output_in_json_and_binary_with_and_without_compression(
        self, tritonclient, variant, expected
    ):
        every_way = tritonclient[variant]["infer every way"]
        assert len(every_way) == 2 * 2 * 3 * 3
        for said in every_way:
            assert said["names"] == OUTPUTS
            assert_same(said["outputs"], expected)

    def test_it_may_send_any_datatype_of_numbers(self, tritonclient, variant, score_of_ones):
        said = tritonclient[variant]["infer datatypes"]
        assert len(said) == 12
        for datatype, ways in said.items():
            assert len(ways) == (1 if datatype == "float16" else 2)
            for outputs in ways:
                np.testing.assert_allclose(
                    outputs["score"], score_of_ones, rtol=1e-6, err_msg=datatype
                )


def test_tritonclient_infers_asynchronously_and_by_a_body_of_its_making(tritonclient, expected):
    said = tritonclient["http"]
    for start, outputs in zip((0, 2, 4), said["async_infer"], strict=True):
        assert_same(outputs, {name: values[start : start + 2] for name, values in expected.items()})
    assert_same(said["by hand"], expected)


@pytest.fixture(scope="module")
def kserve(request_to_client: dict[str, Any]) -> dict[str, Any]:
    return speak("kserve", request_to_client | {"url": f"http://{request_to_client['url']}"})


class TestKserve:
    def test_it_sees_server_and_model_live_and_ready(self, kserve):
        assert kserve["is_server_live"] is kserve["is_server_ready"] is True
        assert kserve["is_model_ready"] is kserve["is_model_ready of the version"] is True
        assert (
            kserve["is_model_ready of another version"]
            is kserve["is_model_ready of another model"]
            is False
        )

    def test_it_shows_the_sentence_of_an_error(self, kserve):
        assert kserve["infer another shape"]["status"] == 422
        assert (
            "expected the shape [rows, 4] of 'features'" in kserve["infer another shape"]["message"]
        )
        assert kserve["infer another model"]["status"] == 404
        assert (
            "no model 'nobody' is served; served are: pump"
            in kserve["infer another model"]["message"]
        )

    def test_it_infers_scores_in_json_and_binary_and_gets_its_id_back(self, kserve, expected):
        assert (kserve["id"], kserve["model_name"], kserve["parameters"].keys()) == (
            "first",
            NAME,
            THRESHOLD,
        )
        assert len(kserve["infer"]) == 4
        for outputs in (*kserve["infer"], kserve["infer of the version"]):
            assert_same(outputs, expected)

    def test_it_infers_every_output_in_the_order_it_asks_for(self, kserve, expected):
        assert len(kserve["infer every output"]) == 4
        for each in kserve["infer every output"]:
            assert each["names"] == OUTPUTS
            assert_same(each["outputs"], expected)

    def test_it_may_send_any_datatype_of_numbers(self, kserve, score_of_ones):
        assert len(kserve["infer datatypes"]) == 6
        for datatype, ways in kserve["infer datatypes"].items():
            for outputs in ways:
                np.testing.assert_allclose(
                    outputs["score"], score_of_ones, rtol=1e-6, err_msg=datatype
                )

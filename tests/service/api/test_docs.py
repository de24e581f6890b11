"""The OpenAPI document says what the service does, and its page needs nothing from elsewhere."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hourglass.service import VERSION
from tests.artifacts import MIXED, make_artifact, make_windowed_artifact, publish
from tests.serving import serving

ROWS_ROUTES = [
    f"{prefix}/{what}"
    for prefix in ("/v1", "/v1/models/{name}")
    for what in ("score", "explain", "reconstruct", "encode")
]


@pytest.fixture(scope="module")
def document(client):
    return client.get("/docs/openapi.json").raise_for_status().json()


class TestDocument:
    def test_every_route_is_there(self, document):
        routes = {
            (method.upper(), path)
            for path, methods in document["paths"].items()
            for method in methods
        }
        assert {("POST", path) for path in ROWS_ROUTES} <= routes
        assert {
            ("POST", "/v1/decode"), ("POST", "/v1/models/{name}/decode"), ("GET", "/v1/models"),
            ("GET", "/v1/models/{name}"), ("PATCH", "/v1/models/{name}"), ("POST", "/v1/models/{name}/reload"),
            ("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/metrics"), ("GET", "/v2"),
            ("POST", "/v1/models/{name}/streams/{entity}"), ("DELETE", "/v1/models/{name}/streams/{entity}"),
            ("GET", "/v1/models/{name}/streams"), ("GET", "/v1/models/{name}/events"),
            ("GET", "/v1/models/{name}/timeline"), ("GET", "/v1/models/{name}/timeline/{entity}"),
            ("GET", "/v2/models/{name}"), ("POST", "/v2/models/{name}/infer"),
            ("POST", "/v2/models/{name}/versions/{version}/infer"),
        } <= routes  # fmt: skip
        assert (document["openapi"], document["info"]["version"]) == ("3.1.0", VERSION)

    def test_every_answer_that_is_no_success_is_a_problem_and_under_v2_an_error(self, document):
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                well = "204" if method == "delete" else "200"
                assert {well, "400", "405", "500"} <= operation["responses"].keys(), (method, path)
                media_type, schema = "application/problem+json", "Problem"
                if path.startswith("/v2"):
                    media_type, schema = "application/json", "InferenceError"
                for status, answer in operation["responses"].items():
                    if status != well:
                        assert answer["content"] == {
                            media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}
                        }, (method, path, status)
        for path in (*ROWS_ROUTES, "/v2/models/{name}/infer"):
            assert document["paths"][path]["post"]["responses"].keys() >= {
                "404",
                "413",
                "415",
                "422",
            }

    @pytest.mark.parametrize("path", ROWS_ROUTES)
    def test_bodies_of_rows_state_both_forms_and_the_limits_in_force(self, document, path):
        body = document["paths"][path]["post"]["requestBody"]
        assert body["required"] is True
        assert set(body["content"]) == {"application/json", "application/octet-stream"}
        schema = body["content"]["application/json"]["schema"]
        assert (schema["required"], schema["additionalProperties"]) == (["rows"], False)
        rows = schema["properties"]["rows"]
        assert (rows["minItems"], rows["maxItems"]) == (1, 100)
        assert "At most 20000 bytes" in schema["description"]
        number = rows["items"]["anyOf"][0]["items"]["anyOf"][0]
        assert (number["type"], number["maximum"]) == ("number", pytest.approx(3.4028235e38))

    def test_scoring_states_its_answer_in_both_forms_and_its_headers(self, document):
        for path in ROWS_ROUTES:
            responses = document["paths"][path]["post"]["responses"]
            if path.endswith("/score"):
                assert set(responses["200"]["content"]) == {
                    "application/json",
                    "application/octet-stream",
                }
                kinds = {
                    header: told["schema"]["type"]
                    for header, told in responses["200"]["headers"].items()
                }
                assert kinds == {
                    "hourglass-model": "string", "hourglass-version": "string", "hourglass-alpha": "number",
                    "hourglass-delta": "number", "hourglass-certified": "boolean", "hourglass-guarantee": "string",
                    "hourglass-threshold": "number",
                }  # fmt: skip
            else:
                assert "406" in responses
                assert set(responses["200"]["content"]) == {"application/json"}

    def test_decoding_states_codes_and_rows_in_both_forms(self, document):
        operation = document["paths"]["/v1/models/{name}/decode"]["post"]
        both = {"application/json", "application/octet-stream"}
        assert set(operation["requestBody"]["content"]) == both
        assert set(operation["responses"]["200"]["content"]) == both

    def test_the_threshold_change_states_its_limits(self, document):
        content = document["paths"]["/v1/models/{name}"]["patch"]["requestBody"]["content"]
        assert content["application/json"]["schema"] == {
            "$ref": "#/components/schemas/ThresholdChange"
        }
        change = document["components"]["schemas"]["ThresholdChange"]
        assert change["additionalProperties"] is False
        assert {"type": "number", "minimum": 1e-9, "maximum": 0.5}.items() <= change["properties"][
            "alpha"
        ].items()

    def test_top_and_name_state_their_limits(self, document):
        name, top = sorted(
            document["paths"]["/v1/models/{name}/explain"]["post"]["parameters"],
            key=lambda each: each["name"],
        )
        assert name["schema"]["pattern"] == r"^(learn\.)?[a-z0-9][a-z0-9_-]{0,62}$"
        assert (top["schema"]["minimum"], top["schema"]["default"]) == (1, 10)
        assert top["required"] is False

    def test_inference_states_its_body_in_both_forms_and_its_header(self, document):
        for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
            operation = document["paths"][path]["post"]
            body = operation["requestBody"]["content"]
            assert set(body) == set(operation["responses"]["200"]["content"])
            assert set(body) == {"application/json", "application/octet-stream"}
            (tensor,) = body["application/json"]["example"]["inputs"]
            assert tensor["name"] == "features"
            assert "At most 20000 bytes" in body["application/json"]["schema"]["description"]
            parameters = {each["name"]: each for each in operation["parameters"]}
            assert parameters["name"]["schema"]["type"] == "string"
            header = parameters["Inference-Header-Content-Length"]
            assert (header["in"], header["schema"]["type"], header["required"]) == (
                "header",
                "integer",
                False,
            )
        assert parameters["version"]["schema"] == {"type": "string", "pattern": "^[0-9a-f]{64}$"}

    def test_every_reference_leads_somewhere(self, client, document):
        names = set(
            re.findall(r"#/components/schemas/(\w+)", client.get("/docs/openapi.json").text)
        )
        assert names <= document["components"]["schemas"].keys()


class TestPage:
    def test_it_is_at_docs(self, client):
        assert client.get("/docs").headers["content-type"] == "text/html; charset=utf-8"

    def test_it_refers_to_this_service_alone(self, client):
        page = client.get("/docs")
        targets = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page.text)
        assert targets
        for target in targets:
            assert target.startswith("/docs/")
            assert client.get(target).status_code == 200
        assert "http" not in page.text.replace("charset", "")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")

    def test_its_script_starts_on_the_document(self, client):
        assert 'url: new URL("openapi.json", document.currentScript.src)' in (
            client.get("/docs/start.js").text
        )

    def test_it_is_framed_by_nobody_and_read_as_what_it_says_it_is(self, client):
        page = client.get("/docs")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        for path in ("/docs", "/docs/openapi.json", "/docs/start.js", "/docs/swagger-ui.css"):
            assert client.get(path).headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize(
        ("file", "media_type"),
        [
            ("swagger-ui-bundle.js", "text/javascript"),
            ("swagger-ui.css", "text/css"),
            ("icon.svg", "image/svg+xml"),
        ],
    )
    def test_its_files_are_kept_by_browsers(self, client, file, media_type):
        answer = client.get(f"/docs/{file}")
        assert answer.headers["content-type"].startswith(media_type)
        assert answer.headers["cache-control"] == "public, max-age=86400"

    def test_large_files_are_compressed_for_who_takes_that(self, client):
        with client.stream(
            "GET", "/docs/swagger-ui.css", headers={"accept-encoding": "gzip"}
        ) as answer:
            packed = b"".join(answer.iter_raw())
            assert answer.headers["content-encoding"] == "gzip"
        plain = client.get("/docs/swagger-ui.css", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert gzip.decompress(packed) == plain.content


# Rows that the document allows need not fit a model that it cannot know: 422 is an answer to them
# too. What is too long is a 413.
SCHEMATHESIS = """
warnings = false
[parameters]
"path.name" = "pump"
"path.version" = "%(version)s"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "409", "413", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "413", "415", "422"]
[[operations]]  # to JSON Schema 3.0 is an integer, to us it is not
include-path-regex = "/sample$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "409", "413"]
[[operations]]  # a version that nobody has published fits the pattern of one
include-path-regex = "/report$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "404"]
[[operations]]  # of a model that cannot decode the body is not looked at
include-path-regex = "/decode$"
[operations.checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "409", "413", "415", "422"]
[[operations]]  # which keys and versions there are the document cannot know
include-path-regex = "(/alarms/.key.|/promote)$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "409"]
[[operations]]  # nor which rows a model takes
include-path-regex = "/feedback$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "422"]
[[operations]]  # nor which entities; and a span may end before it begins
include-path-regex = "(/timeline|/.entity.)$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "404", "409", "413", "422"]
[[operations]]  # raw tensors that fit the JSON before them are more than the document can describe
include-path-regex = "/infer$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "413", "422"]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [make_artifact, pytest.param(make_windowed_artifact, marks=pytest.mark.heavy)]
)
def test_schemathesis_finds_nothing(tmp_path, make):
    version = publish(tmp_path / "models", "pump", make(MIXED))
    for file in ("report.html", "report.json"):
        (tmp_path / "models" / "pump" / version / file).write_text("{}")
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS % {"version": version})
    with serving(tmp_path / "models", max_rows=100, max_body_bytes=20_000) as client:
        found = subprocess.run(
            [
                Path(sys.executable).with_name("st"), "--config-file", tmp_path / "schemathesis.toml", "run", "--no-color",
                "--max-examples", "20", "--seed", "1", f"{client.base_url}/docs/openapi.json",
            ],
            cwd=tmp_path, text=True, capture_output=True, check=False,
        )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    assert (
        re.search(r"Tested: +(\d+)", found.stdout)[1]
        == re.search(r"Selected: +(\d+)", found.stdout)[1]
    )


def test_options_tell_the_methods_of_a_path(client):
    for path, allowed in (
        ("/v1/models/plain", "GET, OPTIONS, PATCH"),
        ("/v1/score", "OPTIONS, POST"),
        ("/v1/models/plain/replay", "GET, OPTIONS, POST"),
    ):
        answer = client.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, allowed)

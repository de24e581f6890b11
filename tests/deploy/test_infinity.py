"""The dashboard for the plugin Infinity: every URL in it is asked of a live service, with the header
that the datasource has, and every field that it selects is in the answer.
"""

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import yaml

from hourglass.service.keys.file import add_key
from hourglass.service.watch.drift import State
from tests.artifacts import NUMERIC, as_json_rows, make_artifact, publish, sample_rows
from tests.serving import serving

PLUGIN = "yesoreyeram-infinity-datasource"
MODEL = "pumps"
Query = dict[str, Any]


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    return json.loads((root / "deploy/grafana/infinity/hourglass-alarms.json").read_text())


@pytest.fixture(scope="module")
def source(root: Path) -> dict[str, Any]:
    path = root / "deploy/grafana/infinity/hourglass-datasource.yaml"
    (source,) = yaml.safe_load(path.read_text())["datasources"]
    return source


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, source: dict[str, Any]
) -> Iterator[httpx.Client]:
    """A service with keys, alarms and drift, and a client with the datasource's header."""
    models = tmp_path_factory.mktemp("models")
    publish(models, MODEL, make_artifact(conditional=True))
    keys = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    expires = datetime.now(UTC) + timedelta(days=1)
    scoring = add_key(keys, "gateway", ["score", "read"], expires=expires)
    reading = add_key(keys, "grafana", ["read"], expires=expires)
    with serving(models, keys=keys, drift_rows=100, drift_seconds=0) as service:
        for seed in range(3):
            rows = as_json_rows(NUMERIC, sample_rows(NUMERIC, 100, seed=seed))
            sent = {"rows": [[row[0] + 9, *row[1:]] for row in rows]}
            key = {"x-api-key": scoring}
            assert service.post(f"/v1/models/{MODEL}/score", json=sent, headers=key).is_success
            assert service.get(f"/v1/models/{MODEL}/drift", headers=key).is_success
        service.headers[source["jsonData"]["httpHeaderName1"]] = reading
        yield service


def queries(dashboard: dict[str, Any]) -> list[Query]:
    of_panels = [target for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return [*of_panels, *(each["query"]["infinityQuery"] for each in variables)]


def items(service: httpx.Client, query: Query) -> list[dict[str, Any]]:
    """The rows of a query's table, as the plugin's backend parser finds them."""
    url = query["url"].replace("${model:percentencode}", quote(MODEL, safe=""))
    assert "$" not in url
    assert query["url_options"]["method"] == "GET"
    answer = service.get(url)
    assert answer.status_code == 200, url
    found = answer.json()
    if not query["root_selector"]:
        return [found]
    assert query["root_selector"] in found, url
    return found[query["root_selector"]]


def value_of(item: dict[str, Any], selector: str) -> Any:
    value: Any = item
    for key in selector.split("."):
        assert key in value, selector
        value = value[key]
    return value


def test_each_url_answers_and_has_each_field_of_the_type_that_is_said(
    service: httpx.Client, dashboard: dict[str, Any]
) -> None:
    asked = queries(dashboard)
    assert {re.sub(r"^.*/|\?.*$", "", query["url"]) for query in asked} == {
        "models", "alarms", "drift"
    }  # fmt: skip
    for query in asked:
        assert (query["type"], query["source"], query["parser"]) == ("json", "url", "backend")
        rows = items(service, query)
        assert rows, query["url"]  # else nothing would be checked
        assert query["columns"]
        for row, column in itertools.product(rows, query["columns"]):
            value = value_of(row, column["selector"])
            match column["type"]:
                case "number":
                    assert value is None or type(value) in (int, float), column
                case "timestamp":
                    assert value is None or datetime.fromisoformat(value).tzinfo, column
                case "string":
                    assert value is None or type(value) is str, column
                case other:
                    pytest.fail(f"{other} is no type of this dashboard's columns")
        # a column that is empty in all rows is there in vain, but for what people have to say
        for column in query["columns"]:
            if column["selector"] not in ("entity", "verdict", "muted_until"):
                assert any(value_of(row, column["selector"]) is not None for row in rows), column


def test_what_is_shown_is_what_the_service_has(
    service: httpx.Client, dashboard: dict[str, Any]
) -> None:
    by_title = {panel["title"]: panel["targets"][0] for panel in dashboard["panels"]}
    (drift,) = items(service, by_title["Drift"])
    assert drift["state"] == "drifting"
    assert "a" in {
        each["feature"] for each in items(service, by_title["What the last window found"])
    }
    (counted,) = items(service, by_title["Counted"])
    assert counted["rows_scored"] == 300
    assert (
        sum(each["count"] for each in items(service, by_title["Alarms"])) == counted["alarms"] > 0
    )
    colours = next(panel for panel in dashboard["panels"] if panel["title"] == "Drift")
    states = re.findall(r'"(\w+)": \{"color"', json.dumps(colours))
    assert set(states) <= set(State.__args__)  # type: ignore[attr-defined]
    assert "drifting" in states


def test_the_key_is_in_no_file_and_goes_to_the_service_alone(
    service: httpx.Client, root: Path, dashboard: dict[str, Any], source: dict[str, Any]
) -> None:
    assert source["type"] == PLUGIN
    assert source["secureJsonData"] == {"httpHeaderValue1": "$HOURGLASS_KEY"}
    assert source["jsonData"]["allowedHosts"] == [source["url"]]
    compose = yaml.safe_load((root / "deploy/compose.yaml").read_text())["services"]
    url = httpx.URL(source["url"])
    assert url.host in compose
    assert compose[url.host]["ports"] == [f"127.0.0.1:8000:{url.port}"]
    checked = source["jsonData"]["customHealthCheckUrl"].removeprefix(source["url"])
    assert service.get(checked).status_code == 200
    assert all(query["url"].startswith("/v1/") for query in queries(dashboard))
    assert not any(query["url_options"].get("headers") for query in queries(dashboard))
    # without the header there is no answer, and with it nothing can be changed
    assert httpx.get(service.base_url.join("/v1/models")).status_code == 401
    assert service.patch(f"/v1/models/{MODEL}", json={"alpha": 0.1}).status_code == 403


def test_the_dashboard_names_its_source_and_its_panels_lie_apart(
    root: Path, dashboard: dict[str, Any], source: dict[str, Any]
) -> None:
    named = [*dashboard["panels"], *queries(dashboard)[:-1], dashboard["templating"]["list"][0]]
    assert {(each["datasource"]["type"], each["datasource"]["uid"]) for each in named} == {
        (source["type"], source["uid"])
    }
    other = json.loads((root / "deploy/grafana/dashboards/hourglass.json").read_text())
    assert dashboard["uid"] != other["uid"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] for panel in panels)
    for one, two in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        above = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert beside or above, (one, two)
    # what is formatted is there
    for panel in panels:
        shown = {column["text"] for target in panel["targets"] for column in target["columns"]}
        overrides = panel["fieldConfig"]["overrides"]
        assert {each["matcher"]["options"] for each in overrides} <= shown
    linked = re.findall(r"\$\{console\}/#/\$\{model\}/(\w+)", json.dumps(dashboard))
    assert linked == ["alarms"]
    assert (root / "service/console/views/alarms.js").is_file()

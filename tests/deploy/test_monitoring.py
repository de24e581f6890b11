"""Alerts and dashboard: what they name exists, what they ask parses, and they find each other."""

import itertools
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families

from hourglass.service.app import create_app
from hourglass.service.keys.file import SCOPES, add_key
from hourglass.service.serving.store import Store
from hourglass.service.settings import Settings
from tests.artifacts import NUMERIC, as_json_rows, make_artifact, publish, sample_rows
from tests.lacking import lacking

NAME = re.compile(r"\bhourglass[_:][a-z0-9_:]+")
Series = dict[str, list[dict[str, str]]]  # name -> the labels of each


@pytest.fixture(scope="module")
def rules(root: Path) -> list[dict[str, Any]]:
    """Alerting and recording rules."""
    groups = yaml.safe_load((root / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    return json.loads((root / "deploy/grafana/dashboards/hourglass.json").read_text())


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """The series of a service that has a model, and a broken one, and has answered."""
    models = tmp_path_factory.mktemp("models")
    publish(models, "pumps", make_artifact())
    Store(models).model("pumps").challenge("0" * 64)
    (models / "pumps" / "threshold.json").write_text('{"alpha":0.0001,"delta":0.05}')  # too small
    publish(models, "broken", b"no model")
    keys = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    expires = datetime.now(UTC) + timedelta(days=1)
    key = add_key(keys, "all", SCOPES, expires=expires)
    settings = Settings(models=models, drift_rows=100, drift_seconds=0, keys=keys)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        client.headers["x-api-key"] = key
        rows = as_json_rows(NUMERIC, sample_rows(NUMERIC, 100))
        assert client.post("/v1/score", json={"rows": rows}).status_code == 200
        assert client.get("/health/ready").status_code == 200
        assert client.get("/v1/models/pumps/drift").json()["state"] == "stable"
        assert client.get("/v1/models/pumps/challenger").json()["state"] == "failed"
        streamed = client.post("/v1/models/pumps/streams/p1", json={"rows": rows})
        assert streamed.status_code == 200
        scrape = client.get("/metrics").text
    series: Series = {}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """All PromQL of the dashboard, with the values Grafana would put in."""
    targets = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    annotations = [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    return [
        text.replace("$__rate_interval", "1m").replace("$model", ".*").replace("$instance", ".*")
        for text in (*targets, *annotations)
    ]


def test_every_metric_an_alert_names_is_exposed(
    rules: list[dict[str, Any]], exposed: Series
) -> None:
    recorded = {rule["record"] for rule in rules if "record" in rule}
    named = {name for rule in rules for name in NAME.findall(rule["expr"])}
    assert named
    assert named <= exposed.keys() | recorded


def test_every_metric_the_dashboard_names_is_exposed_or_recorded(
    dashboard: dict[str, Any], rules: list[dict[str, Any]], exposed: Series
) -> None:
    recorded = {rule["record"] for rule in rules if "record" in rule}
    variables = [
        variable["query"]["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    named = {name for text in (*expressions(dashboard), *variables) for name in NAME.findall(text)}
    assert named <= exposed.keys() | recorded


def test_what_a_query_selects_by_are_labels_and_values_that_series_have(
    dashboard: dict[str, Any], rules: list[dict[str, Any]], exposed: Series
) -> None:
    asked = " ".join([*expressions(dashboard), *(rule["expr"] for rule in rules)])
    for name, matchers in re.findall(r"(hourglass_\w+)\{(.*?)\}", asked):
        for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"(.*?)"', matchers):
            if label in ("job", "instance"):  # Prometheus's own
                continue
            # a KeyError here is a label that the metric lacks
            values = {labels[label] for labels in exposed[name]}
            assert operator == "=~" or value in values, (name, label, value)
    grouped = {
        label for labels in re.findall(r"\bby \((.*?)\)", asked) for label in labels.split(", ")
    }
    of_prometheus = {"job", "instance"}
    assert grouped - of_prometheus <= {
        label for series in exposed.values() for labels in series for label in labels
    }


def test_the_dashboard_shows_every_metric_of_the_service(
    dashboard: dict[str, Any], exposed: Series
) -> None:
    shown = " ".join(expressions(dashboard))
    families = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in exposed
        if name.startswith("hourglass_")
    }
    through_rules = {"hourglass_anomalies_total"}
    assert {family for family in families - through_rules if family not in shown} == set()


def test_prometheus_accepts_its_configuration_and_rules(promtool, root: Path) -> None:
    promtool("check", "config", root / "deploy/prometheus/prometheus.yml")
    promtool("check", "rules", root / "deploy/prometheus/alerts.yml")


def test_each_alert_of_a_watch_fires_when_it_should(promtool, root: Path) -> None:
    promtool("check", "rules", root / "deploy/prometheus/watch.yml")
    promtool("test", "rules", root / "deploy/prometheus/watch_test.yml")
    (group,) = yaml.safe_load((root / "deploy/prometheus/watch.yml").read_text())["groups"]
    tested = (root / "deploy/prometheus/watch_test.yml").read_text()
    assert [
        rule["alert"] for rule in group["rules"] if f"alertname: {rule['alert']}\n" not in tested
    ] == []


def test_each_alert_fires_when_it_should_and_only_then(
    promtool, root: Path, rules: list[dict[str, Any]]
) -> None:
    tests = sorted((root / "deploy/prometheus").glob("alerts_*test.yml"))
    promtool("test", "rules", *tests)
    tested = "".join(each.read_text() for each in tests)
    names = [rule["alert"] for rule in rules if "alert" in rule]
    assert [name for name in names if not re.search(rf'alertname(: |="){name}\b', tested)] == []


def test_each_alert_has_a_paragraph_that_says_what_to_do(
    root: Path, rules: list[dict[str, Any]]
) -> None:
    runbook = (root / "deploy/README.md").read_text()
    assert [
        rule["alert"]
        for rule in rules
        if "alert" in rule and f"**`{rule['alert']}`**" not in runbook
    ] == []


def test_alertmanager_accepts_its_configuration_and_tells_of_models_apart(root: Path) -> None:
    path = root / "deploy/prometheus/alertmanager.yml"
    if shutil.which("amtool") is None:
        lacking("amtool is in Debian's package `prometheus-alertmanager`")
    subprocess.run(["amtool", "check-config", path], check=True, capture_output=True)
    assert "model" in yaml.safe_load(path.read_text())["route"]["group_by"]


def test_the_dashboards_expressions_parse(
    promtool, dashboard: dict[str, Any], tmp_path: Path
) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text}
        for number, text in enumerate(expressions(dashboard))
    ]
    (tmp_path / "panels.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})
    )
    promtool("check", "rules", tmp_path / "panels.yml")


def test_each_panel_says_what_it_shows_and_lies_in_its_own_place(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(
        panel["description"] and panel["targets"] for panel in panels if panel["type"] != "row"
    )
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_the_dashboard_leads_to_views_that_the_console_has(
    root: Path, dashboard: dict[str, Any]
) -> None:
    (console,) = [each for each in dashboard["templating"]["list"] if each["name"] == "console"]
    assert console["query"] == "http://127.0.0.1:8000"  # as compose.yaml publishes it
    assert [link["url"] for link in dashboard["links"]] == ["${console}/"]
    linked = set(re.findall(r"\$\{console\}/#/\$\{__value\.text\}/(\w+)", json.dumps(dashboard)))
    assert linked == {"budget", "alarms"}
    assert all((root / f"service/console/views/{view}.js").is_file() for view in linked)


def test_the_dashboard_finds_prometheus_and_prometheus_the_service(
    root: Path, dashboard: dict[str, Any]
) -> None:
    deploy = root / "deploy"
    services = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]
    (source,) = yaml.safe_load(
        (deploy / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    assert {
        panel["datasource"]["uid"] for panel in dashboard["panels"] if "datasource" in panel
    } == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in services["prometheus"]["ports"]

    prometheus = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text())
    (managers,) = prometheus["alerting"]["alertmanagers"]
    assert managers["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert "./prometheus:/etc/alertmanager:ro" in services["alertmanager"]["volumes"]
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["job_name"] == "hourglass"
    assert scrape["static_configs"] == [{"targets": ["service:8000"]}]
    assert "127.0.0.1:8000:8000" in services["service"]["ports"]

    (provider,) = yaml.safe_load(
        (deploy / "grafana/provisioning/dashboards/hourglass.yaml").read_text()
    )["providers"]
    folder = provider["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/hourglass.json"

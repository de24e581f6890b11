"""A real Prometheus, a real Alertmanager and the service: what is told in a storm of alarms, and when.

Every time in the rules and in Alertmanager's configuration is a thirtieth of what ships, so that an
hour takes two minutes.
"""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.artifacts import NUMERIC, as_json_rows, make_artifact, publish, sample_rows
from tests.deploy.test_monitoring import expressions
from tests.lacking import lacking
from tests.receivers import Receiver, receiving
from tests.serving import Process, free_port

FASTER = 30
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
STORM = "HourglassAlarmRateOverLimit"
# what a healthy service under load has nothing to show of
QUIET = re.compile(
    r"reloads|deaths|rejections|model_error|stream|warm_ups|late_rows|events|notices"
    r"|journal_(lost|write)|shadow|challenger|record|hourglass_drift|hourglass_keys?_|ALERTS"
)

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def tools() -> tuple[str, str]:
    found = [shutil.which(name) for name in ("prometheus", "prometheus-alertmanager")]
    if None in found:
        lacking("Debian's packages prometheus and prometheus-alertmanager are needed")
    return found[0], found[1]


def faster(text: str) -> str:
    """Durations, in milliseconds, a thirtieth as long."""

    def shorter(found: re.Match[str]) -> str:
        return f"{int(found[1]) * UNITS[found[2]] * 1000 // FASTER}ms"

    in_brackets = re.sub(
        r"\[[0-9a-z:]+\]", lambda each: re.sub(r"(\d+)([smhd])\b", shorter, each[0]), text
    )
    named = r"((?:for|keep_firing_for|group_wait|group_interval|repeat_interval): )(\d+[smhd])\b"
    return re.sub(
        named, lambda each: each[1] + re.sub(r"(\d+)([smhd])", shorter, each[2]), in_brackets
    )


@contextmanager
def running(folder: Path, name: str, *command: str) -> Iterator[None]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


class Load:
    """Rows in a steady stream, half of them strange while there is a storm."""

    def __init__(self, url: str) -> None:
        self.url, self.storm = url, False
        self.answered = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        rows = sample_rows(NUMERIC, 20_000, seed=9)
        at = 0
        while not self._end.wait(0.2):
            some = rows[at % 20_000 : at % 20_000 + 20].copy()
            at += 20
            if self.storm:
                some[::2] *= 100
            body = {"rows": as_json_rows(NUMERIC, some)}
            with suppress(httpx.TransportError):  # while it starts again
                self.answered += httpx.post(self.url + "/v1/score", json=body).is_success


class Watched:
    """What Alertmanager has told of the storm: (when, firing or resolved)."""

    def __init__(self, receiver: Receiver, prometheus: str) -> None:
        self._receiver, self.prometheus = receiver, prometheus

    def told(self) -> list[tuple[float, str]]:
        messages = [(each.at, json.loads(each.body)) for each in list(self._receiver.received)]
        return [
            (at, alert["status"])
            for at, message in messages
            for alert in message["alerts"]
            if alert["labels"]["alertname"] == STORM
        ]

    def groups(self) -> list[dict[str, str]]:
        return [json.loads(each.body)["groupLabels"] for each in list(self._receiver.received)]

    def wait_for(self, status: str, seconds: float) -> float:
        """When that was told."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for at, said in self.told():
                if said == status:
                    return at
            time.sleep(0.1)
        raise AssertionError(f"not told of {status} within {seconds} s, but of {self.told()}")

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]["result"]


def test_a_storm_is_told_once_survives_a_restart_and_is_over_soon_after_its_end(
    tools: tuple[str, str], root: Path, tmp_path: Path
) -> None:
    models, port = tmp_path / "models", free_port()
    publish(models, "pumps", make_artifact())
    service = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        prometheus = start_monitoring(stack, tools, root, tmp_path, port, receiver)
        watched = Watched(receiver, prometheus)
        process = stack.enter_context(Process(models, "--port", str(port)))
        load = stack.enter_context(Load(service))
        time.sleep(20)
        assert watched.told() == []

        load.storm, began = True, time.monotonic()
        fired = watched.wait_for("firing", 90)
        assert fired - began >= 5 * 60 / FASTER  # its `for`

        assert process.stop() == 0
        time.sleep(2)
        stack.enter_context(Process(models, "--port", str(port)))
        answered, deadline = load.answered, time.monotonic() + 30
        while load.answered < answered + 25:  # 5 s of storm after the restart
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert [status for _, status in watched.told()] == ["firing"]

        load.storm, ended = False, time.monotonic()
        resolved = watched.wait_for("resolved", 100)
        assert [status for _, status in watched.told()] == ["firing", "resolved"]
        assert 5 * 60 / FASTER <= resolved - ended < 3600 / FASTER * 0.75
        assert {"job": "hourglass", "model": "pumps"} in watched.groups()
        over = "hourglass:anomalies:increase1h > hourglass:anomalies_limit:increase1h"
        assert watched.ask(over)  # of an hour's count alone the alert would go on

        dashboard = json.loads((root / "deploy/grafana/dashboards/hourglass.json").read_text())
        for query in expressions(dashboard):
            assert watched.ask(query.replace("[1h]", "[120s]")) or QUIET.search(query), query
        print(
            f"told {fired - began:.0f} s after its begin, resolved {resolved - ended:.0f} s after its end"
        )


def start_monitoring(
    stack: ExitStack,
    tools: tuple[str, str],
    root: Path,
    folder: Path,
    port: int,
    receiver: Receiver,
) -> str:
    """Prometheus's address."""
    shipped = root / "deploy/prometheus"
    manager_port, prometheus_port = free_port(), free_port()
    (folder / "alerts.yml").write_text(faster((shipped / "alerts.yml").read_text()))
    config = yaml.safe_load((shipped / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    managers = config["alerting"]["alertmanagers"][0]
    managers["static_configs"] = [{"targets": [f"127.0.0.1:{manager_port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    manager = yaml.safe_load(faster((shipped / "alertmanager.yml").read_text()))
    manager["receivers"] = [{"name": "nobody", "webhook_configs": [{"url": receiver.url}]}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(manager))
    listen = "--web.listen-address=127.0.0.1:"
    stack.enter_context(
        running(
            folder, "alertmanager", tools[1], "--config.file=alertmanager.yml", "--storage.path=am",
            "--cluster.listen-address=", f"{listen}{manager_port}",
        )
    )  # fmt: skip
    stack.enter_context(
        running(
            folder, "prometheus", tools[0], "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
            "--rules.alert.resend-delay=2s", f"{listen}{prometheus_port}",
        )
    )  # fmt: skip
    return f"http://127.0.0.1:{prometheus_port}"

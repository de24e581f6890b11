"""A real Prometheus looks at pumps: a model is fitted from it and watches, and a fault is told.

Its rules are those that ship.
"""

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hourglass.training.__main__ import main as train
from tests import prometheus as real
from tests.prometheus import Written
from tests.serving import ROOT, free_port

SECONDS = 7200  # that are known when the model is fitted
SEAM_SECONDS = 60  # of rows that were scraped, of which a watch looks back over 33
PUMPS = ("left", "right")
QUERIES = (
    "load=pump_load",
    "flow=avg by (pump) (pump_flow)",
    "strokes=rate(pump_strokes_total[10s])",
)

pytestmark = pytest.mark.heavy


def load(pump: str, at: float) -> float:
    noise = np.random.default_rng([int(at), PUMPS.index(pump)]).normal()
    return 50 + 10 * math.sin(2 * math.pi * at / 60) + float(noise)


def flow(pump: str, at: float) -> float:
    return 2 * load(pump, at) + float(np.random.default_rng([int(at), 7]).normal())


def strokes(pump: str, at: float) -> float:
    """A counter: about 3 a second, with a slow wave. Without noise a live one, which is scraped at
    other moments, would be another; between seconds it goes straight, as one that falls counts as
    one that began anew.
    """
    second = math.floor(at)
    before, after = (
        np.random.default_rng([each, PUMPS.index(pump), 5]).uniform(0, 2)
        for each in (second, second + 1)
    )
    noise = before + (at - second) * (after - before)
    return 3 * (at % 1e6) + 5 * math.sin(2 * math.pi * at / 90) + float(noise)


class Exporter:
    """Pumps that are scraped; `flow` of those in `broken` falls."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    def text(self) -> str:
        at, lines = time.time(), []
        for pump in PUMPS:
            falls = 300 if pump in self.broken else 0
            lines.append(f'pump_load{{pump="{pump}"}} {load(pump, at)}')
            lines.append(f'pump_flow{{pump="{pump}"}} {flow(pump, at) - falls}')
            lines.append(f'pump_strokes_total{{pump="{pump}"}} {strokes(pump, at)}')
        return "\n".join([*lines, ""])


@contextmanager
def exporting(exporter: Exporter) -> Iterator[str]:
    """Where it is scraped."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exporter.text().encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def past(address: str) -> list[Written]:
    """What Prometheus would have scraped."""
    end, scraped = int(time.time()), {"instance": address, "job": "pumps"}
    return [
        Written(name, {"pump": pump, **scraped}, [(at, of(pump, at)) for at in range(end - SECONDS, end)])
        for name, of in (
            ("pump_load", load), ("pump_flow", flow), ("pump_strokes_total", strokes),
        )
        for pump in PUMPS
    ]  # fmt: skip


def wait_for(ask: Callable[[], list[dict[str, Any]]], seconds: float = 120) -> list[dict[str, Any]]:
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def test_a_fault_is_seen_in_prometheus_with_its_reason_and_an_alert_fires(tmp_path: Path) -> None:
    models, port, exporter = tmp_path / "models", free_port(), Exporter()
    rules = (ROOT / "deploy/prometheus/watch.yml").read_text()
    with (
        exporting(exporter) as address,
        real.running(
            tmp_path / "prometheus",
            past(address),
            targets={"pumps": address, "watch": f"127.0.0.1:{port}"},
            rules=rules,
        ) as prometheus,
    ):
        began = time.monotonic()
        fitted = [
            "fit", "--prometheus", prometheus.url, "--query", *QUERIES, "--range", "118m", "--step",
            "1s", "--name", "pumps", "--models", str(models), "--window", "4", "--variant", "linear",
            "--quiet", "--no-report",
        ]  # fmt: skip
        assert train(fitted) == 0
        # that a watch looks back over rows that were scraped, and not over where they begin
        time.sleep(max(0.0, began + SEAM_SECONDS - time.monotonic()))
        watching = subprocess.Popen(
            [
                sys.executable, "-m", "hourglass.service", "watch", "pumps", "--prometheus",
                prometheus.url, "--models", str(models), "--every", "1s", "--port", str(port),
                "--events-per-day", "10",  # with rows each second 50 would be a false one in a test of 20
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            wait_for(lambda: prometheus.ask("hourglass_watch_severity"))
            time.sleep(5)
            quiet = prometheus.ask("max_over_time(hourglass_watch_event[5s])")
            assert [(each["metric"]["pump"], each["value"][1]) for each in quiet] == [
                ("left", "0"),
                ("right", "0"),
            ]
            assert prometheus.ask("ALERTS") == []

            began = time.monotonic()
            exporter.broken.add("right")
            over = 'hourglass_watch_alarm{pump="right"} == 1 and hourglass_watch_event == 1'
            wait_for(lambda: prometheus.ask(over))
            alarmed = time.monotonic() - began
            (alert,) = wait_for(lambda: prometheus.ask('ALERTS{alertstate="firing"}'))
            fired = time.monotonic() - began
            assert alert["metric"]["alertname"] == "HourglassWatchEvent"
            assert alert["metric"]["pump"] == "right"
            time.sleep(5)  # in each row of the fault, and not by the chance of one
            blamed = prometheus.ask(
                'topk(1, count_over_time(hourglass_watch_blame{pump="right", rank="1"}[5s]))'
            )
            assert [each["metric"]["feature"] for each in blamed] == ["flow"]
            severities = {
                each["metric"]["pump"]: float(each["value"][1])
                for each in prometheus.ask("max_over_time(hourglass_watch_severity[5s])")
            }
            assert severities["right"] > max(3, severities["left"])
            print(f"alarm after {alarmed:.1f} s, alert after {fired:.1f} s")
        finally:
            watching.send_signal(signal.SIGTERM)
            printed, said = watching.communicate(timeout=120)
            print(printed, said)
    assert watching.returncode == 0, said
    assert re.search(r'\{pump="right"\}: event opened, severity .*flow is ', printed), printed
    assert f"metrics on http://127.0.0.1:{port}/metrics" in said

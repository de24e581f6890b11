"""The READMEs' commands about Prometheus run, against a real one: a fit from its expressions, a
retraining through the gate into service, and a watch, over a range of minutes instead of days.
"""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from hourglass.service.serving.store import Store
from hourglass.training.gate import read_decision
from tests import prometheus as real
from tests.prometheus import Written
from tests.serving import free_port, wait_until
from tests.test_readmes import blocks

SECONDS, AHEAD = 1500, 1200  # that are written, until now and beyond
HOST = {"instance": "web:9100", "job": "node"}


def commands(readme: str) -> list[list[str]]:
    """The words of the commands in the README's block that names a Prometheus."""
    (block,) = (each.text for each in blocks(readme) if "--prometheus http" in each.text)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix(".venv/bin/")) for line in lines]


def samples(begin: int) -> list[Written]:
    draw = np.random.default_rng(0)
    rate = draw.normal(1000, 50, SECONDS + AHEAD)
    load = 2 + rate / 500 + draw.normal(0, 0.1, len(rate))
    times = range(begin, begin + len(rate))
    read = np.cumsum(rate).tolist()
    return [
        Written("node_load1", HOST, list(zip(times, load.tolist(), strict=True))),
        Written(
            "node_disk_read_bytes_total",
            {"device": "sda", **HOST},
            list(zip(times, read, strict=True)),
        ),
    ]


@pytest.mark.slow
def test_a_fit_a_retraining_through_the_gate_and_a_watch(tmp_path: Path) -> None:
    (fit, retrain), port = commands("training/README.md"), str(free_port())
    (watch,) = commands("service/README.md")
    assert (fit[1], retrain) == ("fit", ["hourglass-train", "retrain", "web"])
    begin = int(time.time()) - SECONDS
    with real.running(tmp_path / "prometheus", samples(begin)) as prometheus:
        instead = {"http://127.0.0.1:9090": prometheus.url, "14d": "20m", "30s": "1s", "8001": port}

        def start(words: list[str]) -> subprocess.Popen[str]:
            program = str(Path(sys.prefix) / "bin" / words[0])
            return subprocess.Popen(
                [program, *(instead.get(word, word) for word in words[1:])],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        def run(words: list[str]) -> None:
            with start(words) as running:
                out, err = running.communicate(timeout=300)
            assert running.returncode == 0, f"{out}\n{err}"

        assert {*instead} <= {*fit, *watch}
        run(fit)
        model = Store(tmp_path / "models").model("web")
        first = model.current()
        run(retrain)  # of the last 20 minutes, which are others now
        assert model.current() != first
        decision = read_decision(model.path)
        assert decision is not None
        assert (decision.published, decision.forced) == (True, False)
        assert (decision.champion, decision.challenger) == (first, model.current())
        assert {check.name for check in decision.checks} >= {"Alarms of the champion", "Parity"}

        with start(watch) as watching:
            try:
                url = f"http://127.0.0.1:{port}/metrics"
                wait_until(lambda: "hourglass_watch_severity{" in metrics(url))
                said = metrics(url)
            finally:
                watching.send_signal(signal.SIGTERM)
                watching.communicate(timeout=60)
        assert watching.returncode == 0
        assert f'version="{model.current()}"' in said
        assert 'instance="web:9100"' in said


def metrics(url: str) -> str:
    try:
        return httpx.get(url).text
    except httpx.TransportError:
        return ""

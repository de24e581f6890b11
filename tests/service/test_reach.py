"""A thousand small models in one process: how soon it answers, what they take, what a scrape costs.

`pytest -s -m heavy tests/service/test_reach.py` prints the figures; times are for reading, since
they are the machine's and its neighbours'.
"""

import os
import time
from pathlib import Path

import httpx
import pytest

from tests.artifacts import make_artifact, publish
from tests.serving import Process

MODELS = 1000
ROW = {"rows": [[0.1, 0.2, 0.3, 0.4]]}


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thousand")
    for number in range(MODELS):
        publish(folder, f"m{number:04d}", make_artifact(seed=number))
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    publish(folder, "m0000", make_artifact())
    return folder


def cpu_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: Process) -> int:
    pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def count(client: httpx.Client) -> int:
    return len(client.get("/health/ready").json().get("models", ()))


@pytest.mark.heavy
def test_a_thousand_models_are_live_at_once_small_and_have_few_series(thousand: Path, one: Path):
    with Process(one) as process, httpx.Client(base_url=process.url) as client:
        client.post("/v1/models/m0000/score", json=ROW).raise_for_status()
        alone = resident_bytes(process)
    with (
        Process(thousand, HOURGLASS_LOG_LEVEL="warning") as process,
        httpx.Client(base_url=process.url, timeout=60) as client,
    ):
        loaded = count(client)
        started = time.perf_counter()
        client.post("/v1/models/m0500/score", json=ROW).raise_for_status()
        first = time.perf_counter() - started
        deadline = time.monotonic() + 300
        while count(client) < MODELS:
            assert time.monotonic() < deadline
            time.sleep(1)
        each = (resident_bytes(process) - alone) / MODELS
        text, seconds = "", []
        for _ in range(10):
            before = cpu_seconds(process)
            text = client.get("/metrics").text
            seconds.append(cpu_seconds(process) - before)
        # the middle: what neighbours do to the caches, and the looks at the folder, are in it too
        scrape = sorted(seconds)[len(seconds) // 2]
        series = sum(not line.startswith("#") for line in text.splitlines())
        assert process.stop() == 0
    print(f"\nlive with {loaded} of {MODELS} models loaded, first score of another {first:.3f} s")
    print(f"{each / 1024:.0f} KiB each, scrape {scrape:.3f} CPU s, {series} series")
    assert loaded < MODELS  # it did not wait for all
    assert each <= 250 * 1024
    assert series < 16 * MODELS


@pytest.mark.heavy
def test_of_a_thousand_models_as_many_as_are_allowed_stay_and_each_comes_back(thousand: Path):
    with (
        Process(thousand, "--max-loaded", "20") as process,
        httpx.Client(base_url=process.url, timeout=60) as client,
    ):
        deadline = time.monotonic() + 60
        while count(client) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        used, walls = [], []
        for number in range(0, MODELS, 10):
            before, started = cpu_seconds(process), time.perf_counter()
            client.post(f"/v1/models/m{number:04d}/score", json=ROW).raise_for_status()
            walls.append(time.perf_counter() - started)
            used.append(cpu_seconds(process) - before)
        ready = [model["ready"] for model in client.get("/v1/models").json()["models"]]
        assert process.stop() == 0
    middle = sorted(walls)[len(walls) // 2]
    print(f"\n{sum(used) / len(used) * 1e3:.1f} ms of processor, {middle * 1e3:.1f} ms of time")
    assert ready.count(True) == 20


def test_few_models_are_all_there_when_the_service_is(one: Path):
    with Process(one) as process:
        assert httpx.get(f"{process.url}/health/ready").json()["models"] == ["m0000"]
        assert process.stop() == 0

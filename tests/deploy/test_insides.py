"""What is read from other libraries' insides, which any of their versions may change.

When a test fails after an update, read the library's code before its bound in pyproject.toml moves.
"""

import asyncio
import json
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import aiomqtt
import onnxruntime as ort
import paho.mqtt.client as paho
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from prometheus_client import CollectorRegistry, Histogram

from tests.artifacts import make_artifact

# uvicorn's, which front/protocol.py inherits, are listed in tests/service/front/test_protocol.py
INSIDES = {
    "service/adapters/mqtt.py": {"_client"},  # of aiomqtt: paho's, which acknowledges when told
    "service/model/session.py": {"_model_bytes"},  # of onnxruntime
    "service/watch/metrics.py": {"_buckets", "_sum"},  # of prometheus-client
}


def test_no_other_inside_is_read(root: Path) -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--ignore-noqa", "--exit-zero"]
    done = subprocess.run(
        [*ruff, "--select", "SLF001", "--output-format", "json", "service", "training"],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    read: dict[str, set[str]] = {}
    for found in json.loads(done.stdout):
        path, name = Path(found["filename"]).relative_to(root), found["message"].split("`")[1]
        read.setdefault(str(path), set()).add(name)
    del read["service/front/protocol.py"]
    assert read == INSIDES


@pytest.mark.parametrize("name", ["onnxruntime", "prometheus-client", "uvicorn"])
def test_the_versions_to_come_are_shut_out(root: Path, name: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    (wanted,) = (each for each in map(Requirement, project["dependencies"]) if each.name == name)
    locks = (root / "deploy/requirements/service.txt").read_text().splitlines()
    (locked,) = (line.partition("==")[2] for line in locks if line.startswith(f"{name}=="))
    major, minor = Version(locked).release[:2]
    assert wanted.specifier.contains(locked)
    assert not wanted.specifier.contains(f"{major}.{minor + 1}.0")


def test_the_versions_of_aiomqtt_to_come_are_shut_out(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    (wanted,) = map(Requirement, project["optional-dependencies"]["mqtt"])
    locked = Version(version("aiomqtt"))
    assert wanted.specifier.contains(locked)
    assert not wanted.specifier.contains(f"{locked.major}.{locked.minor + 1}.0")


async def _paho_of_aiomqtt() -> paho.Client:
    inside: paho.Client = aiomqtt.Client(
        "127.0.0.1", identifier="test", clean_session=False
    )._client
    return inside


def test_a_client_of_aiomqtt_holds_one_of_paho_that_acknowledges_when_told() -> None:
    client = asyncio.run(_paho_of_aiomqtt())
    assert isinstance(client, paho.Client)
    client.ack(1, 1)
    assert not client.want_write()  # paho acknowledges by itself
    client.manual_ack_set(True)
    client.ack(1, 1)
    assert client.want_write()


def test_a_session_keeps_the_models_bytes_and_runs_without_them() -> None:
    model = make_artifact()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert session._model_bytes == model
    rows_ND = {"features": [[1.0, 2.0, 3.0, 4.0]]}
    before = session.run(["score"], rows_ND)[0].tolist()
    session._model_bytes = None
    assert session.run(["score"], rows_ND)[0].tolist() == before


def test_a_histogram_is_a_count_for_each_bucket_and_a_sum() -> None:
    exposed = CollectorRegistry()
    histogram = Histogram("seconds", "Of a test.", buckets=(1, 2), registry=exposed)
    for bucket, count in zip(histogram._buckets, (3, 5, 7), strict=True):
        bucket.inc(count)
    histogram._sum.inc(40.0)
    bounds = [{"le": "1.0"}, {"le": "2.0"}, {"le": "+Inf"}]
    counts = [exposed.get_sample_value("seconds_bucket", labels) for labels in bounds]
    assert counts == [3, 8, 15]
    assert exposed.get_sample_value("seconds_count") == 15
    assert exposed.get_sample_value("seconds_sum") == 40

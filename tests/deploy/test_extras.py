"""Each extra, installed by itself as a user installs it, does what it is for; without it a command
says in a line which extra it needs.

The wheel is built once; each environment is made anew and goes with its test, so that pip's own
cache is all that is kept. `pytest -m heavy --durations 0 tests/deploy/test_extras.py` says how long
each takes.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from hourglass.service.serving.signatures import SigningKey, make_keys
from tests.artifacts import (
    MIXED,
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.buckets import Buckets
from tests.lacking import lacking
from tests.schema_registry import SchemaRegistry
from tests.serving import ROOT

pytestmark = pytest.mark.heavy

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
AWAY = "127.0.0.1:1"  # where nobody listens
ROW = {"rows": [[9.0, True, "north", 0.0]]}
# of whoever runs the tests, and none of a user's
NOT_INHERITED = ("PYTHONPATH", "VIRTUAL_ENV", "HOURGLASS_", "MLFLOW_", "OTEL_", "AWS_")


class Installed:
    """The package with one extra, or none, in an environment of its own; commands run in a folder
    with models and rows, where nothing of this checkout is found.
    """

    def __init__(self, wheel: Path, extra: str | None, folder: Path, data: Path) -> None:
        self.bin, self.folder = folder / "env" / "bin", folder / "data"
        shutil.copytree(data, self.folder)
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        for command in (
            [sys.executable, "-m", "venv", "--without-pip", str(folder / "env")],
            [
                *(sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--quiet"),
                *("--disable-pip-version-check", "--no-input", "install", "--no-compile", wanted),
            ],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    @contextmanager
    def start(self, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A program of the environment."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        with subprocess.Popen(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=inherited | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                yield running
            finally:
                running.kill()

    def run(self, *command: str, status: int = 0, **environment: str) -> str:
        """What it says on stdout, or where it fails on stderr, once it has ended with this status."""
        with self.start(*command, **environment) as running:
            out, err = running.communicate(timeout=180)
        assert running.returncode == status, f"{command}\n{out}\n{err}"
        return err if status else out

    def says(self, sentence: str, *command: str, **environment: str) -> None:
        """It says so on stderr, goes on, and ends well when it is told to."""
        with self.start(*command, **environment) as running:
            while sentence not in (line := running.stderr.readline()):
                assert line, f"{command} ended without saying {sentence!r}"
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=60)
        assert running.returncode == 0

    @contextmanager
    def serving(self, *flags: str, **environment: str) -> Iterator[httpx.Client]:
        """`hourglass serve`, once it has `pump` in service; then told to end, which it does."""
        command = ("hourglass", "serve", "--port", "0", *flags)
        with self.start(*command, **environment) as running:
            said = ""
            while "model pump: version" not in said:
                line = running.stderr.readline()
                assert line, said
                said += line
            reading = threading.Thread(target=running.stderr.read)
            reading.start()
            with httpx.Client(base_url=re.findall(r"http://[\d.:]+", said)[0]) as client:
                yield client
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0
            reading.join()


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (wheel,) = distributions.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, one of them signed, and rows for them."""
    folder = tmp_path_factory.mktemp("data") / "data"
    models = folder / "models"
    model = make_artifact(MIXED, conditional=True)
    version = publish(models, "pump", model)
    publish(models, "ordered", make_windowed_artifact(rows=3))
    make_keys(folder / "signing.pem")
    signature = SigningKey(folder / "signing.pem").sign(model)
    (models / "pump" / version / "model.onnx.sig").write_bytes(signature)
    cells = as_json_rows(MIXED, sample_rows(MIXED, 20, seed=3))
    cells[4][0], cells[5][1] = 9.0, None
    rows = pl.DataFrame(cells, schema=[feature.name for feature in MIXED], orient="row")
    rows.write_csv(folder / "rows.csv")
    rows.write_parquet(folder / "rows.parquet")
    normal = pl.DataFrame(sample_rows(NUMERIC, 400, seed=4), schema=[each.name for each in NUMERIC])
    normal.write_csv(folder / "normal.csv")
    return folder


@pytest.fixture
def install(wheel: Path, data: Path, tmp_path: Path) -> Iterator[Callable[..., Installed]]:
    yield lambda extra=None: Installed(wheel, extra, tmp_path, data)
    shutil.rmtree(tmp_path)  # a gigabyte with torch


def use_avro(installed: Installed, _: Buckets) -> None:
    fields = [{"name": "load", "type": "long"}]
    schema = {"type": "record", "name": "row", "fields": fields}
    with SchemaRegistry() as registry:
        registered = httpx.post(
            f"{registry.url}/subjects/rows-value/versions", json={"schema": json.dumps(schema)}
        )
        body = b"\0" + registered.json()["id"].to_bytes(4, "big") + b"\x04"  # 2, zigzag
        said = installed.run(
            *("python", "-c"),
            "from hourglass.service.adapters.avro import Avro;"
            f" avro = Avro({registry.url!r}); avro.fetch([{body!r}]); print(avro.decode({body!r}))",
        )
    assert said == "{'load': 2}\n"


def use_client(installed: Installed, _: Buckets) -> None:
    asked = (
        "import sys; from hourglass.client import Client; client = Client(sys.argv[1]);"
        "print(client.score('pump', [[9.0, True, 'north', 0.0]]).is_anomaly.tolist())"
    )
    with installed.serving() as service:
        assert installed.run("python", "-c", asked, str(service.base_url)) == "[True]\n"


def use_cloud(installed: Installed, s3: Buckets) -> None:
    s3.fill("models", "extras", installed.folder / "models")
    flags = ("--models", "s3://models/extras", "--cache", "cache")
    with installed.serving(*flags, **s3.environment) as service:
        assert service.post("/v1/models/pump/score", json=ROW).json()["is_anomaly"] == [True]


def use_files(installed: Installed, _: Buckets) -> None:
    for name in ("rows.csv", "rows.parquet"):
        installed.run("hourglass", "score", "models/pump", name, "--output", "scored.csv")
        scored = pl.read_csv(installed.folder / "scored.csv")
        assert scored["is_anomaly"][4]
        assert scored["score"].null_count() == 0


def use_kafka(installed: Installed, _: Buckets) -> None:
    topics = ("--input", "rows", "--output", "scores", "--model", "ordered")
    said = f"Kafka at {AWAY}: KafkaConnectionError: Unable to bootstrap"
    installed.says(said, "hourglass", "stream", "--kafka", AWAY, *topics)


def use_mcp(installed: Installed, _: Buckets) -> None:
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    }
    with installed.start("hourglass", "mcp", "--url", f"http://{AWAY}") as running:
        sent = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        out, err = running.communicate(json.dumps(sent) + "\n", timeout=60)
    assert json.loads(out)["result"]["serverInfo"]["name"] == "hourglass", err


def use_mlflow(installed: Installed, _: Buckets) -> None:
    asked = """
import mlflow
import pandas
from hourglass.service.adapters.mlflow import log_model

logged = log_model("models/pump", "pump")
told = mlflow.pyfunc.load_model(logged.model_uri).predict(pandas.read_csv("rows.csv"))
print(told.is_anomaly[4], told.blamed[4], len(told))
"""
    # the one store that needs no server of MLflow, nor sqlalchemy
    store = {"MLFLOW_TRACKING_URI": f"file://{installed.folder}/mlruns"}
    quiet = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    assert installed.run("python", "-c", asked, **store, **quiet) == "True ['load'] 20\n"


def use_mqtt(installed: Installed, _: Buckets) -> None:
    topics = ("--topic", "plant/+/state", "--model", "ordered")
    installed.says(f"MQTT at {AWAY}: ", "hourglass", "stream", "--mqtt", AWAY, *topics)


def use_signing(installed: Installed, _: Buckets) -> None:
    with installed.serving("--trust", "signing.pem.pub") as service:
        (broken,) = service.get("/v1/models").json()["broken"]
    assert (broken["name"], broken["fault"]) == ("ordered", "untrusted")


def use_spark(installed: Installed, _: Buckets) -> None:
    if shutil.which("java") is None:
        lacking("there is no java: apt-get install openjdk-17-jre-headless")
    local = {
        "PYSPARK_PYTHON": str(installed.bin / "python"),
        "PYSPARK_SUBMIT_ARGS": "--master local[1] --conf spark.ui.enabled=false pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    asked = ("rows.parquet", "scored", "--model", "models/pump")
    installed.run("python", "-m", "hourglass.spark", *asked, **local)
    assert pl.read_parquet(installed.folder / "scored" / "*.parquet")["is_anomaly"][4]


class Collector(BaseHTTPRequestHandler):
    """One that takes traces."""

    came: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.came.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def use_traces(installed: Installed, _: Buckets) -> None:
    Collector.came = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        with installed.serving(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as service:
            assert service.post("/v1/models/pump/score", json=ROW).status_code == 200
        server.shutdown()
        thread.join()
    assert [path for path, body in Collector.came if b"/v1/models/{name}/score" in body] != []


def use_training(installed: Installed, _: Buckets) -> None:
    assert "fit, calibrate, export" in installed.run("hourglass-train", "--help")
    flags = ("--name", "fitted", "--variant", "linear", "--quiet")
    installed.run("hourglass-train", "fit", "normal.csv", *flags)
    assert "variant linear," in re.sub(
        r" +", " ", installed.run("hourglass", "inspect", "models/fitted")
    )
    asked = "from hourglass.sklearn import Hourglass; print(Hourglass(variant='linear'))"
    assert "Hourglass(" in installed.run("python", "-c", asked)


USES: dict[str, Callable[[Installed, Buckets], None]] = {
    "avro": use_avro,
    "client": use_client,
    "cloud": use_cloud,
    "files": use_files,
    "kafka": use_kafka,
    "mcp": use_mcp,
    "mlflow": use_mlflow,
    "mqtt": use_mqtt,
    "signing": use_signing,
    "spark": use_spark,
    "traces": use_traces,
    "training": use_training,
}


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra != "dev"])
def test_an_extra_alone_is_enough_for_what_it_is_for(
    extra: str, install: Callable[..., Installed], s3_server: Buckets
) -> None:
    USES[extra](install(extra), s3_server)


# without the extra: what is asked, and in which environment
NEED: list[tuple[str, tuple[str, ...], dict[str, str]]] = [
    ("cloud", ("hourglass", "serve", "--models", "s3://models/plant"), {}),
    ("files", ("hourglass", "score", "models/pump", "rows.csv"), {}),
    ("files", ("hourglass", "replay", "models/pump", "rows.parquet"), {}),
    ("files", ("hourglass", "serve", "--record", "recorded"), {}),
    ("files", ("hourglass", "serve", "--azure", "--azure-data", "."), {}),
    (
        "kafka",
        ("hourglass", "stream", "--kafka", AWAY, "--input", "a", "--output", "b", "--model", "x"),
        {},
    ),
    ("mcp", ("hourglass", "mcp"), {}),
    ("mcp", ("hourglass", "mcp", "--http", "0"), {}),
    ("mlflow", ("hourglass", "serve", "--models", "mlflow://champion"), {}),
    (
        "mqtt",
        ("hourglass", "stream", "--mqtt", AWAY, "--topic", "plant/+/state", "--model", "x"),
        {},
    ),
    ("signing", ("hourglass", "serve", "--trust", "signing.pem.pub"), {}),
    ("signing", ("hourglass-train", "sign", "--new-key", "new.pem"), {}),
    ("spark", ("python", "-m", "hourglass.spark", "rows.parquet", "out", "--model", "pump"), {}),
    ("traces", ("hourglass", "serve"), {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{AWAY}"}),
    *(
        ("training", ("hourglass-train", *command), {})
        for command in (
            ("fit", "normal.csv", "--name", "fitted"),
            ("retrain", "pump", "normal.csv"),
            ("compare", "normal.csv"),
            ("versions", "pump"),
            ("demo",),
            ("exhibits",),
            ("work", "--once"),
        )
    ),
]
# of the client what it needs, httpx, comes with Litestar; Avro is asked for beside Kafka alone,
# which is missed first
NEEDED_BY_NO_COMMAND = {"avro", "client"}


def test_without_extras_each_command_says_in_a_line_which_it_needs(
    install: Callable[..., Installed],
) -> None:
    bare = install()
    assert {extra for extra, _, _ in NEED} | NEEDED_BY_NO_COMMAND == EXTRAS.keys() - {"dev"}
    for extra, command, environment in NEED:
        said = bare.run(*command, status=2, **environment)
        assert f"pip install 'hourglass[{extra}]'" in said, command
        assert said.count("\n") == 1, said
    with bare.serving() as service:
        told = f"{service.base_url}"
        said = bare.run(
            *("hourglass", "stream", "rows.csv", "--name", "pump", "--time", "load"),
            *("--url", told),
            status=2,
        )
        assert said.endswith("pip install 'hourglass[files]'\n"), said
    for asked, extra in (
        ("from hourglass.sklearn import Hourglass", "training"),
        ("from hourglass.service.adapters.avro import Avro; Avro('http://127.0.0.1:1')", "avro"),
        (
            "from hourglass.service.adapters.mlflow import save_model as s; s('models/pump', 'x')",
            "mlflow",
        ),
        ("from hourglass.spark import score; score(None, 'models/pump')", "spark"),
    ):
        assert bare.run("python", "-c", asked, status=1).endswith(
            f"pip install 'hourglass[{extra}]'\n"
        )

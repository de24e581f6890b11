"""A real Prometheus for a test, on a free port, with samples of the past and targets of its own."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from tests.lacking import lacking
from tests.serving import free_port

Labels = tuple[tuple[str, str], ...]


class Written(NamedTuple):
    """Samples of one series: seconds since 1970 and values."""

    name: str
    labels: Mapping[str, str]
    samples: Sequence[tuple[float, float]]


class Prometheus:
    """One that is asked at `url`, and can be stopped and started again."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder, self.options, self.port = folder, options, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
                    "--storage.tsdb.retention.time=100d", "--rules.alert.resend-delay=1s",
                    f"--web.listen-address=127.0.0.1:{self.port}", *self.options,
                ],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/-/ready").is_success:
                    return
            assert self._process.poll() is None, (self.folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(120)
            self._process = None

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]["result"]


def require(*names: str) -> None:
    """Skips a test, or fails it in CI, where Debian's package is missing."""
    if missing := [name for name in names if shutil.which(name) is None]:
        lacking(f"{missing[0]} is not installed: it is in Debian's package `prometheus`")


@contextmanager
def running(
    folder: Path,
    written: Sequence[Written] = (),
    *,
    targets: Mapping[str, str] | None = None,
    rules: str | None = None,
    options: Sequence[str] = (),
) -> Iterator[Prometheus]:
    """Prometheus with these samples, which looks each second at targets, by their job."""
    require("prometheus", "promtool")
    folder.mkdir(parents=True, exist_ok=True)
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config: dict[str, Any] = {"global": every}
    if targets:
        config["scrape_configs"] = [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ]
    if rules is not None:
        (folder / "rules.yml").write_text(rules)
        config["rule_files"] = ["rules.yml"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    if written:
        (folder / "written.om").write_text(open_metrics(written))
        done = subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", "written.om", "tsdb"],
            cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    prometheus = Prometheus(folder, options)
    prometheus.start()
    try:
        yield prometheus
    finally:
        prometheus.stop()


def open_metrics(written: Sequence[Written]) -> str:
    """The text that promtool makes blocks of."""
    lines, named = [], set[str]()
    for name, labels, samples in sorted(written, key=lambda each: each.name):
        if name not in named:
            kind, family = ("counter", name[:-6]) if name.endswith("_total") else ("gauge", name)
            lines.append(f"# TYPE {family} {kind}")
            named.add(name)
        text = ",".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
        lines += [f"{name}{{{text}}} {value!r} {at:.3f}" for at, value in samples]
    return "\n".join([*lines, "# EOF", ""])

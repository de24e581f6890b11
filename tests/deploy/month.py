"""What a month is made of: pumps whose rows a file gets each night, clients that post all the time,
and a person who does what deploy/README.md says.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.buckets import Buckets
from tests.serving import free_port, wait_until
from tests.test_readmes import blocks

MODEL = "pumps"
COLUMNS = ("speed", "flow", "pressure", "current", "heat")
DAYS = 5  # that the file goes back
ROWS = 400  # a day
PER_POST = 5
FAULT = 6.0  # by so much a value is off

Float64 = NDArray[np.float64]
PLANE_KD = np.random.default_rng(5).normal(size=(2, len(COLUMNS)))


def normal_rows(rows: int, seed: Sequence[int], *, moved: float = 0.0) -> Float64:
    """[N, D] of two causes; all of them moved by so many of their standard deviations."""
    random = np.random.default_rng(seed)
    causes_NK, noise_ND = random.normal(size=(rows, 2)), random.normal(size=(rows, len(COLUMNS)))
    rows_ND: Float64 = causes_NK @ PLANE_KD + 0.3 * noise_ND + moved * PLANE_KD.std(axis=0)
    return rows_ND.round(3)


def faulty_rows(rows: int, seed: Sequence[int], *, moved: float = 0.0) -> Float64:
    """The same, but that one value no longer goes with the others."""
    rows_ND = normal_rows(rows, seed, moved=moved)
    rows_ND[:, 1] += np.where(rows_ND[:, 1] > moved * PLANE_KD[:, 1].std(), -FAULT, FAULT)
    return rows_ND.round(3)


class Export:
    """The file that whoever has the rows writes each night, whole."""

    def __init__(self, file: Path) -> None:
        self._file, self._days = file, dict[int, Float64]()

    def add(self, day: int, rows_ND: Float64) -> None:
        """What the day brought, which the file has from the next writing on."""
        self._days[day] = rows_ND

    def forget(self, *, before: int) -> None:
        """Rows of earlier days are no longer what is normal."""
        self._days = {day: rows_ND for day, rows_ND in self._days.items() if day >= before}

    def write(self) -> None:
        """The last days of those that there are."""
        last = [self._days[day] for day in sorted(self._days)[-DAYS:]]
        self.put(pl.DataFrame(np.concatenate(last), schema=list(COLUMNS)).write_csv())

    def put(self, text: str) -> None:
        """A file of this text."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(text)
        scratch.rename(self._file)


class Plant:
    """A checkout in which the README's commands are those of the plant's model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "data").mkdir()
        self.export = Export(folder / "data/pumps.csv")
        self._server: subprocess.Popen[bytes] | None = None

    def commands(self, containing: str) -> str:
        """Those of deploy/README.md's first block with this text."""
        found = next(
            block.text
            for block in blocks("deploy/README.md")
            if containing in block.text and "test_month" in (block.not_run or "test_month")
        )
        for said, here in (
            (r"demo/tumour\.csv", "data/pumps.csv"),
            (r"\btumour\b", MODEL),
            (r"\bgateway\b", "client"),
            (r"127\.0\.0\.1:8000", f"127.0.0.1:{self.port}"),
            (r"\bhourglass serve\b", f"hourglass serve --port {self.port}"),
        ):
            found = re.sub(said, here, found)
        return found

    def start(self, script: str, **environment: str) -> subprocess.Popen[str]:
        """Bash that runs a script."""
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=os.environ | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, script: str) -> tuple[int, str, str]:
        """Exit code, and what it printed on both."""
        process = self.start(script)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def serve(self, script: str, **environment: str) -> None:
        """The README's server, until `stop`."""
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.folder,
                env=os.environ | environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return
            assert self._server.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)

    def server_pid(self) -> int:
        """Of the server itself, not of its shell."""
        assert self._server
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "-g", str(self._server.pid)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        (pid,) = (
            int(line.split()[0])
            for line in listed.stdout.splitlines()
            if "hourglass serve" in line and "bash" not in line
        )
        return pid

    def stop(self) -> None:
        """As Ctrl-C does it."""
        if self._server is not None and self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGINT)
            self._server.wait(30)
        self._server = None

    def key(self, name: str) -> dict[str, str]:
        """The header of a key that a file holds."""
        return {"x-api-key": (self.folder / f"{name}.key").read_text().strip()}

    def knows(self, key: dict[str, str]) -> bool:
        """Whether the service lets in who has this key."""
        return httpx.get(f"{self.url}/v1/models", headers=key).status_code == 200

    def ask(self, path: str) -> Any:
        """What the operator is answered."""
        return (
            httpx.get(f"{self.url}{path}", headers=self.key("operator")).raise_for_status().json()
        )

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        text = (
            httpx.get(f"{self.url}/metrics", headers=self.key("operator")).raise_for_status().text
        )
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def version_on_disk(self) -> str:
        """The one that the pointer names."""
        return (self.folder / "models" / MODEL / "current").read_text().strip()

    def decision(self) -> dict[str, Any]:
        """The last one about the model."""
        text = (self.folder / "models" / MODEL / "decision.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found

    def wait_for_version(self) -> None:
        """Until the service has what the pointer names."""
        wait_until(lambda: self.ask(f"/v1/models/{MODEL}")["version"] == self.version_on_disk())

    def alarm_rate(self, rows_ND: Float64) -> float:
        """Of rows that are looked at, and are no traffic."""
        answer = httpx.post(
            f"{self.url}/v1/models/{MODEL}/replay",
            headers=self.key("client"),
            json={"rows": rows_ND.tolist()},
        ).raise_for_status()
        threshold = self.ask(f"/v1/models/{MODEL}")["threshold"]
        return float(np.mean(np.array(answer.json()["score"]) > threshold))


class InBucket(Plant):
    """The same, with its models in a bucket."""

    def __init__(self, folder: Path, buckets: Buckets) -> None:
        super().__init__(folder)
        self.buckets, self._url = buckets, buckets.make()
        self.place = f"--models {self._url} --cache cache"

    def commands(self, containing: str) -> str:
        found = super().commands(containing).replace("--models models", self.place)
        return found.replace("data/pumps.csv", f"data/pumps.csv {self.place}")

    def version_on_disk(self) -> str:
        return self.buckets.read(self._url, f"{MODEL}/current").decode().strip()

    def decision(self) -> dict[str, Any]:
        text = self.buckets.read(self._url, f"{MODEL}/decision.json")
        found: dict[str, Any] = json.loads(text)
        return found


class Client:
    """Posts rows of the day, over and over, and counts."""

    def __init__(self, plant: Plant) -> None:
        self._plant, self._lock = plant, threading.Lock()
        self._rows_ND = normal_rows(ROWS, (5, 6))
        self.headers = plant.key("client")
        self.requests = self.rows = self.alarms = 0
        self.failures: list[str] = []
        self.versions: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._post)

    def send(self, rows_ND: Float64) -> None:
        """These from now on."""
        with self._lock:
            self._rows_ND = rows_ND

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nothing is on its way meanwhile."""
        with self._lock:
            yield

    def _post(self) -> None:
        at = 0
        with httpx.Client(base_url=self._plant.url) as client:
            while not self._end.wait(0.05):
                with self._lock:
                    at = (at + PER_POST) % len(self._rows_ND)
                    self._post_rows(client, self._rows_ND[at : at + PER_POST])

    def _post_rows(self, client: httpx.Client, rows_ND: Float64) -> None:
        self.requests += 1
        body = {"rows": rows_ND.tolist()}
        try:
            answer = client.post(f"/v1/models/{MODEL}/score", json=body, headers=self.headers)
            found = answer.raise_for_status().json()
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
            return
        self.rows += len(rows_ND)
        self.alarms += sum(found["is_anomaly"])
        if self.versions[-1:] != [found["version"]]:
            self.versions.append(found["version"])

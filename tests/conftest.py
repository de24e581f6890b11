"""Fixtures that more than one package of tests needs."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.artifacts import MIXED, make_artifact, publish
from tests.buckets import Buckets, buckets
from tests.lacking import lacking
from tests.serving import free_port, serving

# Files of tests that share what takes long to make go to one process: path -> their group. These
# begin first, since they take longest.
TOGETHER = {
    "tests/training/models/": "family",
    "tests/contract/": "family",
    "tests/test_readmes.py": "demo",
    "tests/training/test_demo.py": "demo",
}


def _group(nodeid: str) -> str | None:
    return next((group for part, group in TOGETHER.items() if nodeid.startswith(part)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _group(item.nodeid) is None)


@pytest.hookimpl(optionalhook=True)  # of xdist, where it is installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several processes run the suite; a file stays whole, since its fixtures are its own."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid) or super()._split_scope(nodeid)

    return Scheduling(config, log)


class Demo(NamedTuple):
    """What the first `make demo` leaves."""

    folder: Path  # with demo/ and models/
    printed: str


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo's data and model, fitted once for all tests by the command that `make demo` runs."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "hourglass.training", "demo", "--port", str(free_port())]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return Demo(folder, done.stdout)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Buckets]:
    """An S3 server."""
    with buckets() as server:
        yield server


@pytest.fixture
def s3(s3_server: Buckets, monkeypatch: pytest.MonkeyPatch) -> Buckets:
    """The same, known to this process and those that it starts, with nobody having asked yet."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.requests.clear()
    return s3_server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with `plain` (numbers only) and `mixed` (every kind of feature)."""
    publish(tmp_path, "plain", make_artifact())
    publish(tmp_path, "mixed", make_artifact(MIXED))
    return tmp_path


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of one server with `plain` and `mixed`, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "plain", make_artifact())
    publish(folder, "mixed", make_artifact(MIXED))
    with serving(folder, max_rows=100, max_body_bytes=20_000) as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    return found or lacking("chromium is not installed: it is in Debian's package of that name")

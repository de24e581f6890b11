"""Fixtures that more than one package of tests needs."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.artifacts import MIXED, make_artifact, publish
from tests.serving import serving


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

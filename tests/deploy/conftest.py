"""Where things are, and promtool and kubectl, which are no Python packages."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """promtool(*arguments) -> what it printed; fails the test when promtool is not content."""
    if shutil.which("promtool") is None:
        missing = (
            "promtool is not installed: it is in Debian's package `prometheus`, which .ci/run"
            " installs"
        )
        pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            ["promtool", *map(str, arguments)], text=True, stdout=-1, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="session")
def kubectl() -> str:
    """kubectl, with a kustomize that knows components."""
    found = shutil.which("kubectl")
    if found is None:
        missing = "kubectl is not installed: it is in Debian's package `kubernetes-client`"
        pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)
    return found

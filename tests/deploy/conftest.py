"""Where things are, what is built of them, promtool and kubectl, which are no Python packages, and
what kubectl makes.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lacking import lacking

Promtool = Callable[..., str]
Objects = list[dict[str, Any]]
OVERLAYS = ("single-node", "production", "bucket", "kserve")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def distributions(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    for name in ("service", "training"):
        shutil.copytree(
            root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return built


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """promtool(*arguments) -> what it printed; fails the test when promtool is not content."""
    if shutil.which("promtool") is None:
        lacking(
            "promtool is not installed: it is in Debian's package `prometheus`, which .ci/run"
            " installs"
        )

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
        lacking("kubectl is not installed: it is in Debian's package `kubernetes-client`")
    return found


@pytest.fixture(scope="session")
def files(kubectl: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By overlay, what kubectl makes of it."""
    folder = tmp_path_factory.mktemp("kubernetes")
    made = {}
    for overlay in OVERLAYS:
        command = [kubectl, "kustomize", str(root / "deploy/kubernetes/overlays" / overlay)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "kustomize warns of what will go"
        made[overlay] = folder / f"{overlay}.yaml"
        made[overlay].write_text(done.stdout)
    return made


@pytest.fixture(scope="session")
def overlays(files: dict[str, Path]) -> dict[str, Objects]:
    """By overlay, its objects."""
    return {overlay: list(yaml.safe_load_all(file.read_text())) for overlay, file in files.items()}

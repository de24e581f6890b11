"""Locks and distributions: what others install is whole, exact, and the same anywhere."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = {"service": [], "training": ["files", "training"], "dev": ["files", "training", "dev"]}


def pins(root: Path, lock: str) -> dict[str, str]:
    lines = (root / f"deploy/requirements/{lock}.txt").read_text().splitlines()
    return dict(line.partition(" ;")[0].split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_holds_exact_versions_and_nothing_of_the_machine_it_was_written_on(
    root: Path, lock: str
) -> None:
    first, *lines = (root / f"deploy/requirements/{lock}.txt").read_text().splitlines()
    assert first == "# Written by `make lock` from pyproject.toml."
    assert [
        line
        for line in lines
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==\d[a-z0-9.]*( ; .+)?", line)
    ] == []


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_satisfies_what_the_project_asks_for(root: Path, lock: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(text for extra in EXTRAS[lock] for text in project["optional-dependencies"][extra]),
    ]
    locked = pins(root, lock)
    for requirement in map(Requirement, wanted):
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), (
                requirement
            )


def test_the_locks_agree_and_the_services_is_the_smallest(root: Path) -> None:
    service, training, dev = (pins(root, lock).items() for lock in EXTRAS)
    assert service < training < dev
    assert "torch" not in dict(service)


@pytest.fixture(scope="module")
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


def test_sdist_and_wheel_hold_all_of_both_packages(root: Path, distributions: Path) -> None:
    sources = [
        path
        for name in ("service", "training")
        for path in (root / name).rglob("*")
        if path.is_file()
    ]
    wanted = {
        str(path.relative_to(root))
        for path in sources
        if "__pycache__" not in path.parts and path.suffix != ".md"
    }
    wanted |= {
        "service/api/swagger/swagger-ui-bundle.js.gz",
        "service/api/swagger/swagger-ui.css.gz",
    }
    (wheel,), (sdist,) = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {
            str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()
        }
    csrc = {name for name in wanted if name.startswith("service/csrc/")}
    assert wanted - in_wheel == csrc  # of which the wheel holds what is compiled
    assert wanted - in_sdist == {"service/floats.abi3.so"}
    assert {name.split("/")[0] for name in in_wheel if ".dist-info/" not in name} == {
        "service",
        "training",
    }
    assert any(name.endswith("licenses/LICENSE") for name in in_wheel)

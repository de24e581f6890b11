"""Locks and distributions: what others install is whole, exact, and the same anywhere."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import httpx
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hourglass.service import floats
from hourglass.service.model.detector import Detector
from tests.artifacts import make_artifact
from tests.serving import Process

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


@pytest.mark.slow
def test_sdist_and_wheel_hold_all_of_the_packages(root: Path, distributions: Path) -> None:
    wanted = {
        str(path.relative_to(root))
        for name in ("service", "training")
        for path in (root / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".md", ".so")
    }
    (wheel,), (sdist,) = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
        licenses = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    with tarfile.open(sdist) as archive:
        in_sdist = {
            str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()
        }
    assert wanted - in_sdist == set()
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {folder: name.replace(".", "/") for name, folder in settings["package-dir"].items()}

    def installed_as(name: str) -> str:
        """By the longest of the folders that it lies in."""
        folder = max((each for each in folders if name.startswith(f"{each}/")), key=len)
        return folders[folder] + name.removeprefix(folder)

    csrc = {installed_as(name) for name in wanted if name.startswith("service/floats/csrc/")}
    readme = "hourglass/service/api/swagger/README.md"
    assert csrc  # of which the wheel holds what is compiled
    assert in_wheel - {readme} == {installed_as(name) for name in wanted} - csrc | {
        "hourglass/service/floats/compiled.abi3.so"
    }
    assert len(licenses) == 1


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from, with what the wheel holds."""
    (wheel,) = distributions.glob("*.whl")
    return install(wheel, tmp_path_factory.mktemp("installed"))


def install(package: Path, folder: Path, **environment: str) -> Path:
    """A wheel or an sdist, into the folder, without what it depends on."""
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, str(package)],
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    return folder


APPLICATION = """
from pathlib import Path

import numpy as np
import service
import training
import hourglass.service
import hourglass.training
from hourglass.service.model.detector import Detector
from hourglass.training.config import RunConfig

detector = Detector.from_bytes(Path("model.onnx").read_bytes())
print(service.OWNER, training.OWNER, RunConfig.__name__)
print(*detector.score(np.array([[1, 2, 3, 4]], np.float32)).score.tolist())
print(hourglass.service.__file__, hourglass.training.__file__, sep="\\n")
"""


@pytest.mark.slow
def test_an_application_with_packages_service_and_training_of_its_own_uses_both(
    installed: Path, tmp_path: Path
) -> None:
    for name in ("service", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"OWNER = 'my {name}'\n")
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "model.onnx").write_bytes(model := make_artifact())
    row_1D = np.array([[1, 2, 3, 4]], np.float32)
    score = Detector.from_bytes(model).score(row_1D).score.tolist()[0]
    ours = [str(installed / "hourglass" / name / "__init__.py") for name in ("service", "training")]
    for order in ([installed, tmp_path], [tmp_path, installed]):  # neither shadows the other
        done = subprocess.run(
            [sys.executable, "application.py"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, order))},
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines() == ["my service my training RunConfig", str(score), *ours]


@pytest.fixture(scope="module")
def plain(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from, with what pip makes of the sdist where there is no compiler."""
    (sdist,) = distributions.glob("*.tar.gz")
    return install(sdist, tmp_path_factory.mktemp("plain"), CC="/there/is/no/compiler")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_installed_without_a_compiler_the_service_gives_the_same_answers(
    plain: Path, models: Path, workers: str
) -> None:
    assert list(plain.rglob("*.so")) == []
    answers = []
    for environment in ({"PYTHONPATH": str(plain)}, {}):
        with Process(models, "--workers", workers, **environment) as process:
            with httpx.Client(base_url=process.url) as client:
                rows = [[0.1, -1e-5, 3, None], [1e9, 2, 3, 4.25]]
                answer = client.post("/v1/models/plain/score", json={"rows": rows})
                metrics = client.get("/metrics").text
            assert process.stop() == 0
        answers.append(answer.raise_for_status().content)
        used = re.search(r'hourglass_build_info{floats="(\w+)"', metrics)[1]
        assert f"JSON is read and written by {used}" in process.log[1]
        assert (used == "Python") is bool(environment) or floats.IMPLEMENTATION == "Python"
    assert answers[0] == answers[1]

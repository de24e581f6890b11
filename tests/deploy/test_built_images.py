"""The Dockerfile, built for real: what is in the images, and the service doing its work in one."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.artifacts import make_artifact, publish
from tests.containers import Builder, Container, Image, make_base, size_bytes, suite_of, why_not
from tests.lacking import lacking
from tests.serving import free_port

pytestmark = pytest.mark.heavy

ROW = {"rows": [[1, 2, 3, 4]]}
ABSENT = {"pip", "setuptools", "wheel", "faker", "Faker", "polyfactory", "torch", "onnxscript"}
TOOLS = ("pip", "pip3", "hourglass-train", "gcc", "cc")
OF_ANOTHER_INDEX = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Image, Path]]:
    """The service's image, and the files of the base that it was built from."""
    if reason := why_not():
        lacking(f"THE IMAGES ARE NOT BUILT: {reason}")
    folder = tmp_path_factory.mktemp("images")
    builder = Builder(folder)
    try:
        name, suite = suite_of((root / "Dockerfile").read_text())
        make_base(folder / "base", suite)
        builder.import_base(folder / "base", name)
        given = {name: os.environ[name] for name in OF_ANOTHER_INDEX if name in os.environ}
        yield builder.build(root, "service", given), folder / "base"
    finally:  # several copies of everything: gigabytes
        builder.close()
        shutil.rmtree(folder)


def test_it_is_small(built: tuple[Image, Path]) -> None:
    image, base = built
    own_bytes = size_bytes(image.files) - size_bytes(base)
    print(f"service: {own_bytes / 1e6:.0f} MB of its own on {size_bytes(base) / 1e6:.0f}")
    assert own_bytes < 300e6


def test_it_scores_is_changed_and_ends_as_a_user_without_rights_on_a_read_only_root(
    built: tuple[Image, Path], tmp_path: Path
) -> None:
    image, _ = built
    publish(tmp_path, "plain", make_artifact())
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 10001, 10001)
    address = {"HOURGLASS_HOST": "127.0.0.1", "HOURGLASS_PORT": str(free_port())}
    url = f"http://127.0.0.1:{address['HOURGLASS_PORT']}"
    with Container(image, tmp_path, **address) as container:
        container.wait_for(f"{url}/health/ready")
        status = Path(f"/proc/{container.pid}/status").read_text()
        assert "Uid:\t10001\t10001\t10001\t10001\n" in status
        assert "CapEff:\t0000000000000000\n" in status
        written = container.execute("touch", "/opt/hourglass/changed")
        assert "Read-only file system" in written.stderr
        assert container.execute(*image.health_check).returncode == 0
        with httpx.Client(base_url=url, timeout=30) as client:
            assert client.post("/v1/models/plain/score", json=ROW).status_code == 200
            changed = client.patch("/v1/models/plain", json={"alpha": 0.2})
            assert (changed.status_code, changed.json()["alpha"]) == (200, 0.2)
            assert client.get("/docs/openapi.json").json()["paths"]
            assert client.get("/").status_code == 200
            assert 'hourglass_build_info{floats="C"' in client.get("/metrics").text
        assert (tmp_path / "plain/threshold.json").exists()
        assert container.stop() == 0
    assert not any("Traceback" in line for line in container.log), container.log


def test_it_holds_nothing_to_install_or_to_fit_with(
    built: tuple[Image, Path], tmp_path: Path
) -> None:
    image, _ = built
    asked = (
        "import importlib.metadata, shutil\n"
        f"print(sorted({ABSENT} & {{each.name for each in importlib.metadata.distributions()}}),"
        f" [tool for tool in {TOOLS} if shutil.which(tool)])"
    )
    tmp_path.chmod(0o755)
    for interpreter in ("python", "/usr/bin/python3"):  # the environment's, and what it is made of
        looking = image._replace(command=[interpreter])
        with Container(looking, tmp_path, "-c", asked) as container:
            assert container.wait(60) == 0, container.log
        assert container.log == ["[] []\n"]
    assert list(image.files.glob("opt/hourglass/lib/python3*/site-packages/hourglass/service"))
    assert not list(image.files.glob("opt/hourglass/lib/python3*/site-packages/hourglass/training"))

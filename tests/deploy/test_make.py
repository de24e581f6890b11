"""`make` on a machine that has nothing but make and Python."""

import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

# of Debian's essential packages what the Makefile calls; no compiler is among them
TOOLS = ("sh", "env", "cat", "cp", "ls", "mkdir", "rm", "sed", "touch", "uname", "awk", "make")
CUDA = "pip will now take torch 2.13.0 for CUDA, 2.7 GB."


@pytest.fixture(scope="module")
def bare_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH that leads to no compiler."""
    folder = tmp_path_factory.mktemp("bin")
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    (folder / "python3").write_text(f'#!/bin/sh\nexec {sys._base_executable} "$@"\n')
    (folder / "python3").chmod(0o755)
    return str(folder)


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """What git holds, and what was changed since, in an empty folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in listed.stdout.split("\0"):
        if name and (root / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tmp_path / name)
    return tmp_path


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "CC"}
    return subprocess.Popen(
        ["make", *arguments],
        cwd=folder,
        env=inherited | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offered", "said"), [(["2.12.0", "2.13.0"], True), (["2.13.0", "2.13.0+cpu"], False)]
)
def test_before_pip_takes_the_cuda_build_make_says_so_and_how_to_take_the_small_one(
    checkout: Path, bare_path: str, tmp_path_factory: pytest.TempPathFactory,
    offered: list[str], said: bool,
) -> None:  # fmt: skip
    (checkout / "deploy/requirements/dev.txt").write_text("torch==2.13.0\n")
    index = tmp_path_factory.mktemp("index")
    for version in offered:  # pip sees their names, and then that they are none
        (index / f"torch-{version}-py3-none-any.whl").touch()
    offers = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    with make(checkout, ".venv/.installed", PATH=bare_path, **offers) as running:
        output, _ = running.communicate(timeout=60)
    assert running.returncode != 0
    before_pip, pip, _ = output.partition(".venv/bin/pip install")
    assert pip
    if sys.platform == "linux" and platform.machine() == "x86_64":
        assert (CUDA in before_pip) is said
        assert ("PIP_EXTRA_INDEX_URL=ADDRESS make" in before_pip) is said
    else:
        assert CUDA not in output


@pytest.fixture
def demo(checkout: Path, bare_path: str) -> Iterator[tuple[str, list[str]]]:
    """The address of `make demo` where no compiler is, and what it has said so far."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with make(checkout, "demo", f"PORT={port}", PATH=bare_path) as running:
        said: list[str] = []
        try:
            for line in running.stdout:
                said.append(line)
                if "is in service" in line:
                    break
            yield f"http://127.0.0.1:{port}", said
        finally:
            os.killpg(running.pid, signal.SIGINT)
            running.communicate(timeout=60)


@pytest.mark.heavy
def test_without_a_compiler_make_demo_ends_in_a_service_that_answers(
    checkout: Path, demo: tuple[str, list[str]]
) -> None:
    url, said = demo
    assert [line for line in said if line.startswith("Without a C compiler")] != [], "".join(said)
    assert any("JSON is read and written by Python" in line for line in said)
    with httpx.Client(base_url=url, headers={"content-type": "application/json"}) as client:
        answers = [
            client.post("/v1/score", content=(checkout / f"demo/{name}.json").read_bytes()).json()
            for name in ("benign", "malignant")
        ]
        metrics = client.get("/metrics").text
    assert [answer["is_anomaly"] for answer in answers] == [[False], [True]]
    assert re.search(r'hourglass_build_info\{floats="Python",', metrics)

"""The systemd unit: systemd takes it, finds it hardened, and the service does its work with what it
leaves.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from hourglass.service.__main__ import GRACEFUL_SECONDS
from tests.lacking import lacking
from tests.serving import ROOT, Process

UNIT = ROOT / "deploy/systemd/hourglass.service"
ROW = {"rows": [[1, 2, 3, 4]]}


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with this environment in place of /opt/hourglass, which is not installed here."""
    if shutil.which("systemd-analyze") is None:
        lacking("systemd-analyze is not installed: it is in Debian's package `systemd`")
    (copy := tmp_path / UNIT.name).write_text(
        UNIT.read_text().replace("=/opt/hourglass/bin/", f"={sys.prefix}/bin/")
    )
    return copy


def analyse(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        stdout=-1,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_systemd_takes_the_unit(unit: Path) -> None:
    assert analyse("verify", unit) == ""


def test_systemd_finds_little_that_the_unit_leaves_open(unit: Path) -> None:
    threshold = "--threshold=15"  # of 100; a unit without hardening has 96
    assert "OK" in analyse("security", "--offline=true", threshold, unit)


def test_systemd_waits_for_the_service_to_end_by_itself() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(seconds) > GRACEFUL_SECONDS + 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_does_its_work_with_what_the_unit_leaves(
    unit: Path, models: Path, workers: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a /proc and confine a process as systemd does")
    confine = ["unshare", "--mount", sys.executable, Path(__file__).with_name("confined.py"), unit]
    with Process(models, "--workers", workers, before=confine) as process:
        with httpx.Client(base_url=process.url, timeout=30) as client:
            scored = client.post("/v1/models/plain/score", json=ROW)
            changed = client.patch("/v1/models/plain", json={"alpha": 0.2})
            streamed = client.post("/v1/models/plain/streams/a", json=ROW)
            metrics = client.get("/metrics").text
        assert process.stop() == 0
    assert (scored.status_code, changed.status_code) == (200, 200), process.log
    assert streamed.status_code == (200 if workers == "1" else 409)
    assert changed.json()["alpha"] == 0.2
    assert (models / "plain/threshold.json").exists()
    assert "process_resident_memory_bytes" in metrics
    assert [line for line in process.log if "ERROR" in line or "WARNING" in line] == []

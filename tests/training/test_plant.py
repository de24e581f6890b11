"""The simulated plant, and the demo that streams a day of it."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.training.plant import BEARING, DAYS, NUMBERS, PUMPS, TODAY_HOURS, write_plant
from tests.serving import ROOT, free_port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plant(tmp_path_factory.mktemp("plant") / "demo").before.parent


def test_the_files_follow_each_other_and_are_the_same_each_time(
    folder: Path, tmp_path: Path
) -> None:
    before, today = (
        pl.read_csv(folder / name, try_parse_dates=True)
        for name in ("plant.csv", "plant-today.csv")
    )
    assert before.columns == ["time", "pump", *NUMBERS]
    assert today.columns == [*before.columns, "fault"]
    assert (len(before), len(today)) == (3 * DAYS * 1440, 3 * TODAY_HOURS * 60)
    gap = today["time"].min() - before["time"].max()
    assert gap.total_seconds() == 60
    assert sorted(before["pump"].unique()) == list(PUMPS)
    again = write_plant(tmp_path)
    for path in again:
        assert path.read_bytes() == (folder / path.name).read_bytes()
        assert path.stat().st_mtime == (folder / path.name).stat().st_mtime


def test_a_fault_is_strange_by_how_numbers_hang_together_and_not_by_any_of_them(
    folder: Path,
) -> None:
    before, today = pl.read_csv(folder / "plant.csv"), pl.read_csv(folder / "plant-today.csv")
    faults = today.filter(pl.col("fault") == 1)
    assert faults.group_by("pump").len().sort("pump").rows() == [("pump-2", 61), ("pump-3", 41)]
    for column in NUMBERS:
        low, high = before[column].min(), before[column].max()
        assert faults[column].is_between(low, high).mean() > 0.95, column
    whose, first, last = BEARING
    worn = faults.filter(pl.col("pump") == whose)
    assert len(worn) == last - first + 1
    # vibration beyond what follows from the speed
    expected = 0.5 + 9e-4 * worn["speed"].to_numpy()
    assert np.median(worn["vibration"].to_numpy() - expected) == pytest.approx(0.3, abs=0.05)


@pytest.mark.heavy
def test_make_demo_stream_tells_of_both_faults_as_they_open_and_close(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "deploy", "service", "training"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    command = ["make", "--old-file=.venv/.installed", "demo-stream", f"PORT={free_port()}"]
    with subprocess.Popen(
        [*command, "SPEED=0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        deadline = threading.Timer(300, os.killpg, (running.pid, signal.SIGKILL))
        deadline.start()
        try:
            assert running.stdout is not None
            said = []
            for line in running.stdout:
                said.append(line)
                if "until Ctrl-C" in line:
                    break
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
            rest = running.stdout.read()
        finally:
            deadline.cancel()
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    printed = "".join(said)
    assert "three simulated pumps" in printed
    opened = re.findall(r"^(\S+ \S+)  (\S+): event opened, severity \S+: (\w+) is", printed, re.M)
    opened.sort()  # rows of several minutes are told pump by pump
    assert [(pump, feature) for _, pump, feature in opened] == [
        ("pump-2", "vibration"),
        ("pump-3", "flow"),
    ]
    # both faults grow for ten minutes; five rows later a range still counts as found
    assert "2026-05-06 03:00:00" <= opened[0][0] <= "2026-05-06 03:15:00"
    assert "2026-05-06 05:30:00" <= opened[1][0] <= "2026-05-06 05:40:00"
    assert printed.count("event closed at") == 2
    assert "1440 rows of 3 entities in" in printed
    assert "Traceback" not in printed + rest

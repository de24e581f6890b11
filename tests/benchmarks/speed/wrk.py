"""wrk, the load generator: many connections, each with its next request as soon as the last is
answered.
"""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.speed.requests import TOLERANCE, Query

SCRIPT = Path(__file__).with_name("wrk.lua")
FIGURES = re.compile(r"(\w+)=(\d+)")


class Load(NamedTuple):
    """What wrk counted."""

    requests: int  # answered
    sent: int
    seconds: float
    errors: int  # connections refused or lost, answers that took longer than its two seconds
    wrong: int  # answers that were not 200 or had not the scores of any of the requests
    example: str  # of a wrong one
    p50_seconds: float
    p99_seconds: float


class WrkFailed(Exception):
    """The reason, in a sentence."""


def run(
    port: int, query: Query, *, connections: int, seconds: int, core: int, folder: Path
) -> Load:
    """Load from one thread on this core."""
    for index, expected_N in enumerate(query.expected):
        (folder / f"{index + 1}.request").write_bytes(query.request(index))
        (folder / f"{index + 1}.expected").write_text(
            "".join(f"{score:.9g}\n" for score in expected_N)
        )
    load = [
        "--threads",
        "1",
        "--connections",
        str(connections),
        "--duration",
        f"{seconds}s",
        "--timeout",
        "30s",
    ]
    script = ["--script", str(SCRIPT), f"http://127.0.0.1:{port}"]
    told = ["--", str(folder), str(len(query.bodies)), query.before, str(TOLERANCE)]
    done = subprocess.run(
        ["taskset", "--cpu-list", str(core), "wrk", *load, *script, *told],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return parse(done.stdout + done.stderr)


def parse(output: str) -> Load:
    """The two lines that wrk.lua prints."""
    line = next((line for line in output.splitlines() if line.startswith("figures ")), None)
    if line is None:
        raise WrkFailed(f"wrk gave no figures: {output.strip()[-300:]}")
    found = {name: int(value) for name, value in FIGURES.findall(line)}
    example = next(line for line in output.splitlines() if line.startswith("example"))
    return Load(
        found["requests"],
        found["sent"],
        found["microseconds"] / 1e6,
        sum(found[kind] for kind in ("connect", "read", "write", "timeout")),
        found["wrong"],
        example.removeprefix("example").strip(),
        found["p50"] / 1e6,
        found["p99"] / 1e6,
    )


def version() -> str:
    """Of wrk; it says so with its usage and status 1."""
    said = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return said.removeprefix("wrk ").partition(" [")[0]

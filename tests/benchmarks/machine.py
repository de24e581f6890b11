"""Where and of what a benchmark was run: figures without it say nothing."""

import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def machine() -> str:
    """The processor, as it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def revision() -> str | None:
    """Of this repository; `-dirty` where it differs from the commit."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

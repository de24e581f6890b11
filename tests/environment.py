"""Environments beside ours, made at first use from pinned requirements: what others need disagrees
with what the service needs.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path


class EnvironmentFailed(Exception):
    """The reason, in a sentence."""


def ensure(folder: Path, requirements: Path, whose: str) -> Path:
    """Its interpreter; made anew when the requirements, which name everything, or this
    interpreter's version have changed.
    """
    interpreter, complete = folder / "bin" / "python", folder / "complete.sha256"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if complete.exists() and complete.read_text() == wanted and interpreter.exists():
        return interpreter
    print(f"making {whose} environment in {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    install = [*pip, "install", "--no-deps", "--requirement", str(requirements)]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentFailed(f"{whose} environment cannot be made: {_reason(done.stderr)}")
    complete.write_text(wanted)
    return interpreter


def _reason(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])[:300]

"""Environments beside ours, made at first use from pinned requirements: what we are compared with has its own dependencies."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path


class EnvironmentFailed(Exception):
    """The reason, in a sentence."""


def ensure(folder: Path, requirements: Path, whose: str) -> Path:
    """Its interpreter; made anew when the requirements have changed."""
    interpreter, complete = folder / "bin" / "python", folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if complete.exists() and complete.read_text() == wanted and interpreter.exists():
        return interpreter
    print(f"making {whose} environment in {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(requirements)]
    for command in ([sys.executable, "-m", "venv", str(folder)], [str(interpreter), *install]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentFailed(f"{whose} environment cannot be made: {_reason(done.stderr)}")
    complete.write_text(wanted)
    return interpreter


def _reason(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])[:300]

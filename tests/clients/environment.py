"""An environment for each client, made at first use: what they need disagrees with what the service needs."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build" / "clients"


class EnvironmentFailed(Exception):
    """The reason, in a sentence."""


def speak(client: str, request: dict[str, Any]) -> dict[str, Any]:
    """What <client>_calls.py, run in the client's environment, makes of the request."""
    interpreter = ensure(client, FOLDER / client)
    done = subprocess.run(
        [interpreter, "-B", HERE / f"{client}_calls.py"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ensure(client: str, folder: Path) -> Path:
    """The environment's interpreter; made anew when <client>.txt or this interpreter's version has changed."""
    requirements = HERE / f"{client}.txt"
    interpreter, complete = folder / "bin" / "python", folder / "complete.sha256"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if complete.exists() and complete.read_text() == wanted and interpreter.exists():
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    pip = ("-m", "pip", "--python", str(folder), "--quiet", "--disable-pip-version-check", "--no-input")
    install = (*pip, "install", "--no-deps", "--no-compile", "--requirement", str(requirements))
    for arguments in (("-m", "venv", "--without-pip", str(folder)), install):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentFailed(f"the environment of {client} cannot be made: {_reason(done.stderr)}")
    complete.write_text(wanted)
    return interpreter


def _reason(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])[:300]

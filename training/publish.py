"""What a run may publish into, and which version a person means; serving/store.py does it."""

import os
from pathlib import Path

from hourglass.service.serving.store import ModelFolder, Store
from hourglass.training.errors import RunError


def check_writable(folder: Path) -> None:
    """RunError when nothing can be written into a folder, or it cannot be made: better said before
    a fit than after.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RunError(f"{folder} cannot be written: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{folder} cannot be written: there is no permission to write into {there}")


def promote(models: Path, name: str, version: str) -> str:
    """Point `current` at a version that is there, given in full or by an unambiguous beginning;
    returns the full version.
    """
    model = Store(models).model(name)
    if not model.path.is_dir():
        raise RunError(f"there is no model {name!r} in {models}")
    full = _version_meant(model, version)
    if not model.is_intact(full):
        raise RunError(
            f"the file of version {full[:12]} of {name!r} is damaged: its SHA-256 is another"
        )
    model.point(full)
    return full


def _version_meant(model: ModelFolder, version: str) -> str:
    versions = model.versions()
    matches = [full for full in versions if full.startswith(version)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(full[:12] for full in versions)
    problem = "is ambiguous" if matches else "is not there"
    raise RunError(f"version {version!r} of {model.name!r} {problem}; the versions are {known}")

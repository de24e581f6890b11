"""MODELS/<name>/<version>/ is written whole beside its place and moved in; then the pointer
`current` is replaced. No half states.
"""

import os
import shutil
import tempfile
from pathlib import Path

from hourglass.service.model.artifact import MODEL_FILE, POINTER, version_of
from hourglass.training.errors import RunError


def publish(models: Path, name: str, data: bytes, beside: dict[str, str]) -> str:
    """Write an artifact and the texts beside it (file name -> text), then point `current` at it;
    returns the version.
    """
    version = version_of(data)
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    if not _intact(folder / version):
        shutil.rmtree(folder / version, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=".publishing-", dir=folder))
        try:
            _write(scratch / MODEL_FILE, data)
            for file, text in beside.items():
                _write(scratch / file, text.encode())
            scratch.chmod(0o755)
            scratch.rename(folder / version)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    point(folder, version)
    return version


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
    folder = models / name
    if not folder.is_dir():
        raise RunError(f"there is no model {name!r} in {models}")
    versions = sorted(
        path.parent.name
        for path in folder.glob(f"*/{MODEL_FILE}")
        if not path.parent.name.startswith(".")
    )
    matches = [full for full in versions if full.startswith(version)]
    if len(matches) != 1:
        known = ", ".join(full[:12] for full in versions)
        problem = "is ambiguous" if matches else "is not there"
        raise RunError(f"version {version!r} of {name!r} {problem}; the versions are {known}")
    if not _intact(folder / matches[0]):
        raise RunError(
            f"the file of version {matches[0][:12]} of {name!r} is damaged: its SHA-256 is another"
        )
    point(folder, matches[0])
    return matches[0]


def current_version(models: Path, name: str) -> str | None:
    """The version `current` names, if there is one."""
    try:
        return (models / name / POINTER).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def point(folder: Path, version: str) -> None:
    """Replace the pointer in one step: readers see the old version or the new one."""
    write_atomically(folder / POINTER, f"{version}\n".encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the place and move in: nobody ever reads half a file."""
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        _write(scratch, data)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _intact(folder: Path) -> bool:
    try:
        return version_of((folder / MODEL_FILE).read_bytes()) == folder.name
    except (FileNotFoundError, NotADirectoryError):
        return False


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

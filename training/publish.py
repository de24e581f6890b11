"""What a run may publish into, and which version a person means; serving/store.py and
serving/bucket.py do it.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hourglass.service.errors import HourglassError
from hourglass.service.serving.places import open_store
from hourglass.service.serving.store import ModelFolder
from hourglass.training.errors import RunError


def model_of(models: str | Path, name: str, cache: Path | None = None) -> ModelFolder:
    """A model as it is now, whether it is there or not; InvalidSettings where there is no such
    place, OSError where it cannot be asked. Copies of what lies elsewhere are below `cache`.
    """
    folder = open_store(models, cache=cache).model(name)
    folder.pull()
    return folder


def check_writable(folder: Path) -> None:
    """RunError when nothing can be written into a folder, or it cannot be made: better said before
    a fit than after.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RunError(f"{folder} cannot be written: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{folder} cannot be written: there is no permission to write into {there}")


@contextmanager
def alone(folder: ModelFolder) -> Iterator[None]:
    """RunError where another process trains the model in service, or takes versions of it away."""
    with ExitStack() as held:
        if folder.has_current():  # of a first model whoever is last is as good
            try:
                held.enter_context(folder.alone())
            except TimeoutError as error:
                raise RunError(
                    f"another run of {folder.name!r} is under way in {folder.path.parent}; wait for"
                    " its end"
                ) from error
        yield


def promote(models: str | Path, name: str, version: str, cache: Path | None = None) -> str:
    """Point `current` at a version that is there, given in full or by an unambiguous beginning;
    returns the full version.
    """
    try:
        return model_of(models, name, cache).promote(version)
    except HourglassError as error:
        raise RunError(str(error)) from error

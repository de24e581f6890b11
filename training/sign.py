"""Sign: give a version the signature that services with --trust ask for."""

import sys
from pathlib import Path

from hourglass.service.errors import HourglassError
from hourglass.service.serving.signatures import SIGNATURE_FILE, SigningKey
from hourglass.training.errors import RunError
from hourglass.training.publish import model_of


def sign(
    models: str | Path, name: str, version: str | None, key: Path, cache: Path | None = None
) -> str:
    """Sign a version, or without one that in service, in place of the signature that it may have;
    returns it in full. RunError where there is none, or the key cannot be used.
    """
    folder = model_of(models, name, cache)
    if not folder.exists():
        raise RunError(f"there is no model {name!r} in {models}")
    try:
        full = folder.current() if version is None else folder.version_meant(version)
        signature = SigningKey(key).sign(folder.read(full, max_bytes=sys.maxsize).data)
    except HourglassError as error:
        raise RunError(str(error)) from error
    folder.write(SIGNATURE_FILE, signature, version=full)
    return full

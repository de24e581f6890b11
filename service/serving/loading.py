"""Loading: what a model's folder says should be served, and in one sentence why that cannot be.

A fault is found here and kept in the registry, so that what is in service stays.
"""

import errno
from concurrent.futures import Executor
from dataclasses import replace
from typing import NamedTuple

from hourglass.service.errors import Fault, HourglassError, InvalidArtifact, UncertifiableAlpha
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import DEFAULT_MAX_BYTES, Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.serving.disk import ModelFile
from hourglass.service.serving.store import THRESHOLD_FILE, ModelFolder, StoredThreshold


class Problem(NamedTuple):
    """Why the newest state of a model's folder is not, or not wholly, in service."""

    fault: Fault
    sentence: str


def load(
    model: ModelFolder,
    before: Served | None = None,
    *,
    pool: Executor | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> tuple[Served, Problem | None]:
    """What a model's folder says should be served, and what is wrong with its threshold;
    InvalidArtifact when nothing can be.

    `before` is kept, and not read again, where it is of the same version.
    """
    version = model.current()
    if before and before.detector.version == version:
        model.require_trusted(version, max_bytes=max_bytes)  # a key may have been taken off
        served = before
    else:
        file = model.read(version, max_bytes=max_bytes)
        served = served_from(file, model.name, pool=pool, max_bytes=max_bytes)
    try:
        return with_threshold(served, model.threshold())
    except InvalidArtifact as error:
        return _with_own(served, Problem("threshold", str(error)))


def served_from(
    file: ModelFile, name: str, *, pool: Executor | None = None, max_bytes: int = DEFAULT_MAX_BYTES
) -> Served:
    """An artifact, with its own threshold; InvalidArtifact when it cannot be served."""
    detector = Detector.from_bytes(file.data, pool=pool, max_bytes=max_bytes)
    fitted_at = detector.manifest.fitted_at
    if fitted_at is None:  # a file from before it was written down
        fitted_at = file.written_at
    return Served(name, detector, Schema.of(detector.manifest), detector.threshold, fitted_at)


def with_threshold(served: Served, stored: StoredThreshold | None) -> tuple[Served, Problem | None]:
    """The model with a stored budget; with its own, and why, where it cannot have that."""
    if stored is None:
        return replace(served, threshold=served.detector.threshold, warning=None), None
    try:
        threshold = threshold_of(served.detector, stored)
    except UncertifiableAlpha as error:
        return _with_own(served, Problem("uncertifiable", str(error)))
    return replace(served, threshold=threshold, warning=None), None


def threshold_of(detector: Detector, stored: StoredThreshold) -> Threshold:
    """The threshold of a stored budget; UncertifiableAlpha where the model has none for it."""
    return detector.table.threshold(stored.alpha, stored.delta, certified=not stored.uncertified)


def problem_of(error: Exception) -> Problem:
    """What to say of an error: a file from elsewhere can break its readers in ways that have no
    name.
    """
    if isinstance(error, InvalidArtifact):
        return Problem(error.fault, str(error))
    if isinstance(error, HourglassError):
        return Problem("refused", str(error))
    used_up = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in used_up):
        return Problem("resources", f"the model file cannot be loaded: {error!r}")
    return Problem("refused", f"the model file cannot be loaded: {error!r}")


def _with_own(served: Served, why: Problem) -> tuple[Served, Problem]:
    own = served.detector.threshold
    warning = (
        f"{THRESHOLD_FILE} cannot be used, the model's own alpha = {own.alpha:g} is in force:"
        f" {why.sentence}"
    )
    return replace(served, threshold=own, warning=warning), Problem(why.fault, warning)

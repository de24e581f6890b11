"""Versions: which models of a name lie there, why each came into service or did not, and how they
are taken away.
"""

import sys
import time
from pathlib import Path

import msgspec

from hourglass.service.errors import HourglassError, InvalidArtifact
from hourglass.service.model.detector import Detector
from hourglass.service.serving.store import ModelFolder
from hourglass.service.serving.versions import read_versions
from hourglass.service.watch.challenger import require_comparable
from hourglass.training.errors import RunError
from hourglass.training.gate import Decision, read_decision
from hourglass.training.publish import alone, model_of


class VersionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One version; what its file does not say is None."""

    version: str
    current: bool
    challenger: bool  # scored beside it
    fitted_at: float | None  # seconds since 1970: the newest row, or the file of rows
    written_at: float
    rows: int | None  # that it was fitted to
    alpha: float | None
    guarantee: str | None
    auroc: float | None
    size_bytes: int
    decision: Decision | None  # of the gate; None of a first model, or one of before there was one
    why: str


def list_versions(
    models: str | Path, name: str, cache: Path | None = None
) -> tuple[VersionLine, ...]:
    """Those that lie there, the newest first; RunError where there is no such model."""
    folder = _folder(models, name, cache)
    current = folder.current() if folder.has_current() else None
    challenger = folder.challenger()
    lines = []
    for each in read_versions(folder, max_bytes=sys.maxsize, known={}):
        manifest, decision = each.manifest, read_decision(folder.path / each.version)
        lines.append(
            VersionLine(
                version=each.version,
                current=each.version == current,
                challenger=each.version == challenger,
                fitted_at=manifest.fitted_at if manifest else None,
                written_at=each.written_at,
                rows=manifest.rows.fit if manifest else None,
                alpha=manifest.calibration.alpha if manifest else None,
                guarantee=manifest.calibration.guarantee if manifest else None,
                auroc=each.auroc,
                size_bytes=each.size_bytes,
                decision=decision,
                why=each.problem or _why(decision),
            )
        )
    return tuple(lines)


def prune(models: str | Path, name: str, keep: int, cache: Path | None = None) -> tuple[str, ...]:
    """Take away all versions but that in service, its challenger and the newest others, so many in
    all; returns those that are gone.
    """
    if keep < 1:
        raise RunError(f"--keep: expected at least 1, which is the one in service, got {keep}")
    folder = _folder(models, name, cache)
    with alone(folder):
        current, challenger = folder.current(), folder.challenger()
        found = read_versions(folder, max_bytes=sys.maxsize, known={})
        others = [each.version for each in found if each.version != current]
        gone = [version for version in others[keep - 1 :] if version != challenger]
        for version in gone:
            try:
                folder.remove(version)
            except HourglassError as error:
                raise RunError(str(error)) from error
    return tuple(gone)


def challenge(
    models: str | Path, name: str, version: str | None, cache: Path | None = None
) -> str | None:
    """Have a version that is there, given in full or by an unambiguous beginning, scored beside
    that in service, and return it in full; None: have none. RunError where it cannot be.
    """
    folder = _folder(models, name, cache)
    if version is None:
        folder.challenge(None)
        return None
    if not folder.has_current():
        raise RunError(f"there is no model {name!r} in service in {models} to challenge")
    full, current = folder.version_meant(version), folder.current()
    if full == current:
        raise RunError(
            f"version {full[:12]} of {name!r} is in service, and cannot challenge itself"
        )
    before, now = (
        Detector.from_bytes(folder.read(each, max_bytes=sys.maxsize).data).manifest
        for each in (current, full)
    )
    try:
        require_comparable(before, now)
    except InvalidArtifact as error:
        raise RunError(f"version {full[:12]} of {name!r} cannot challenge: {error}") from error
    folder.challenge(full)
    return full


def retire(models: str | Path, name: str, cache: Path | None = None) -> str:
    """Take a model out of service with all its versions; returns in a sentence's part how it comes
    back.
    """
    folder = _folder(models, name, cache)
    with alone(folder):
        return folder.retire(time.time())


def _folder(models: str | Path, name: str, cache: Path | None) -> ModelFolder:
    folder = model_of(models, name, cache)
    if not folder.exists():
        raise RunError(f"there is no model {name!r} in {models}")
    return folder


def _why(decision: Decision | None) -> str:
    if decision is None:
        return "no gate was asked"
    if decision.forced:
        return f"by force, although {decision.reason}"
    return decision.reason if decision.published else f"refused: {decision.reason}"

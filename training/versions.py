"""Versions: which models of a name lie there, why each came into service or did not, and how they
are taken away.
"""

import sys
import time
from pathlib import Path

import msgspec

from hourglass.service.errors import HourglassError
from hourglass.service.serving.store import ModelFolder, Store
from hourglass.service.serving.versions import read_versions
from hourglass.training.errors import RunError
from hourglass.training.gate import Decision, read_decision
from hourglass.training.publish import alone


class VersionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One version; what its file does not say is None."""

    version: str
    current: bool
    fitted_at: float | None  # seconds since 1970: the newest row, or the file of rows
    written_at: float
    rows: int | None  # that it was fitted to
    alpha: float | None
    guarantee: str | None
    auroc: float | None
    size_bytes: int
    decision: Decision | None  # of the gate; None of a first model, or one of before there was one
    why: str


def list_versions(models: Path, name: str) -> tuple[VersionLine, ...]:
    """Those that lie there, the newest first; RunError where there is no such model."""
    folder = _folder(models, name)
    current = folder.current() if folder.has_current() else None
    lines = []
    for each in read_versions(folder, max_bytes=sys.maxsize, known={}):
        manifest, decision = each.manifest, read_decision(folder.path / each.version)
        lines.append(
            VersionLine(
                version=each.version,
                current=each.version == current,
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


def prune(models: Path, name: str, keep: int) -> tuple[str, ...]:
    """Take away all versions but that in service and the newest others, so many in all; returns
    those that are gone.
    """
    if keep < 1:
        raise RunError(f"--keep: expected at least 1, which is the one in service, got {keep}")
    folder = _folder(models, name)
    with alone(folder):
        current = folder.current()
        found = read_versions(folder, max_bytes=sys.maxsize, known={})
        others = [each.version for each in found if each.version != current]
        for version in others[keep - 1 :]:
            try:
                folder.remove(version)
            except HourglassError as error:
                raise RunError(str(error)) from error
    return tuple(others[keep - 1 :])


def retire(models: Path, name: str) -> Path:
    """Take a model out of service with all its versions; returns where they lie from now on."""
    folder = _folder(models, name)
    with alone(folder):
        return folder.retire(time.time())


def _folder(models: Path, name: str) -> ModelFolder:
    folder = Store(models).model(name)
    if not folder.path.is_dir():
        raise RunError(f"there is no model {name!r} in {models}")
    return folder


def _why(decision: Decision | None) -> str:
    if decision is None:
        return "no gate was asked"
    if decision.forced:
        return f"by force, although {decision.reason}"
    return decision.reason if decision.published else f"refused: {decision.reason}"

"""Versions: what the files of one model's folder say of themselves, without any of them being
served.
"""

from contextlib import suppress
from typing import NamedTuple

import msgspec
import onnx
from google.protobuf.message import DecodeError

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model.artifact import Manifest
from hourglass.service.model.safety import read_manifest
from hourglass.service.serving.store import REPORT_FILE, REPORT_PAGE, ModelFolder


class Version(NamedTuple):
    """One version of a model; without a manifest, why it has none that can be read."""

    version: str
    written_at: float  # seconds since the epoch
    size_bytes: int
    manifest: Manifest | None
    problem: str | None
    auroc: float | None  # of its report, where the fit had labelled anomalies
    has_report: bool  # as a page


class _Quality(msgspec.Struct, frozen=True):
    auroc: float | None = None


class _Report(msgspec.Struct, frozen=True):
    quality: _Quality | None = None


def read_versions(
    model: ModelFolder, *, max_bytes: int, known: dict[tuple[object, ...], Version]
) -> list[Version]:
    """Those that are there, the newest first; what is known of files that have not changed is not
    read again.
    """
    found = {}
    for version in model.versions():
        state = model.version_state(version)
        found[state] = known.get(state) or _read(model, version, max_bytes)
    known.clear()
    known |= found
    return sorted(found.values(), key=lambda each: -each.written_at)


def _read(model: ModelFolder, version: str, max_bytes: int) -> Version:
    manifest, problem, written_at, size = None, None, 0.0, 0
    try:
        data, written_at = model.read(version, max_bytes=max_bytes)
        size = len(data)
        manifest = read_manifest(onnx.load_model_from_string(data))
    except InvalidArtifact as error:
        problem = str(error)
    except (DecodeError, IndexError):  # no graph, or one that takes nothing
        problem = "the model file is not ONNX, or is cut short"
    auroc = None
    with suppress(OSError, InvalidArtifact, msgspec.DecodeError, UnicodeDecodeError):
        report = msgspec.json.decode(model.read_beside(version, REPORT_FILE), type=_Report)
        auroc = report.quality.auroc if report.quality else None
    has_report = (model.path / version / REPORT_PAGE).is_file()
    return Version(version, written_at, size, manifest, problem, auroc, has_report)
